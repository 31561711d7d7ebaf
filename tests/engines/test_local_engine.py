import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.local import LocalEngine, start_server
from pipeline.errors import EngineError, SourceError
from pipeline.import_path import workers_start_safely


def square(value: int) -> int:
    return value * value


def fail_at_three(value: int) -> int:
    if value == 3:
        raise SourceError("three is no image")
    return value


def cache_and_threads(_: int) -> tuple[str | None, str | None]:
    return os.environ.get("IMAGELAKE_CACHE"), os.environ.get("OPENBLAS_NUM_THREADS")


def die(value: int) -> int:
    if value:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(LocalEngine(workers).map(square, range(20))) == [i * i for i in range(20)]
    assert list(LocalEngine(workers).map(square, [])) == []
    assert list(LocalEngine(workers).map(square, [7])) == [49]


@pytest.mark.parametrize("workers", [1, 2])
def test_few_items_are_in_flight(workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(50):
            taken += 1
            yield i

    for done, _ in enumerate(LocalEngine(workers).map(square, items()), start=1):
        assert taken - done <= max(workers, 2)


def test_workers_may_be_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which has no fork server."""
    monkeypatch.setenv("IMAGELAKE_CACHE", "here")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    asked = LocalEngine(2, start_method="spawn")
    assert list(asked.map(cache_and_threads, range(3))) == [("here", "1")] * 3
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    context = start_server(2, ["numpy"])
    assert context is not None
    assert context.get_start_method() == "spawn"


def test_an_error_comes_out_as_it_was_raised() -> None:
    with pytest.raises(SourceError, match="three is no image"):
        list(LocalEngine(2).map(fail_at_three, range(10)))


def test_a_killed_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(EngineError, match="--workers 1"):
        list(LocalEngine(2).map(die, range(4)))


DRIVER = """
import sys, time
from pipeline.engines.local import LocalEngine, start_server
if __name__ == "__main__":
    for _ in LocalEngine(2).map(time.sleep, [0.01, 0.01] + [60] * 8):
        print("started", flush=True)
"""


@pytest.mark.parametrize(
    "delay", [0, 0.5, *(pytest.param(delay, marks=pytest.mark.stress) for delay in (0.1, 0.2, 0.3, 1, 2))]
)
def test_ctrl_c_is_quick_and_quiet(tmp_path: Path, delay: float) -> None:
    (tmp_path / "in.toml").write_text(
        '[lake]\nroot = "lake"\n'
        '[[source]]\nuri = "g"\nformat = "glyphs"\nrows = 200000\ndataset = "g"\nsplit = "train"\n'
    )
    command = [str(Path(sys.executable).with_name("imagelake")), "build", str(tmp_path / "in.toml"), "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as build:
        # From here on the command has its imports behind it and starts its workers.
        while not (tmp_path / "lake" / ".lock").exists() and build.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        os.killpg(build.pid, signal.SIGINT)
        assert build.stderr is not None
        said = build.stderr.read()
        build.wait(timeout=60)
    assert build.returncode == 130, said
    assert "imagelake: stopped. The lake is as of its last release" in said
    assert "KeyboardInterrupt" not in said


def test_ctrl_c_while_a_worker_starts_waits_until_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: Any = ProcessPoolExecutor
    spawn, known = pools._spawn_process, []  # noqa: SLF001 - the very moment that matters

    def interrupted(pool: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        spawn(pool)
        known.append(len(pool._processes))  # noqa: SLF001 - whom it will tell to stop

    monkeypatch.setattr(pools, "_spawn_process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(LocalEngine(2).map(abs, range(100)))
    assert known == [1]


def test_workers_leave_when_the_driver_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "started\n"
        driver.kill()
    deadline = time.monotonic() + 60
    while _alive(driver.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(driver.pid)


def _alive(session: int) -> list[int]:
    """Processes of a session that still run: field 6 of stat is the session, field 3 the state."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def access_key(_: int) -> str | None:
    return os.environ.get("AWS_ACCESS_KEY_ID")


def test_workers_have_the_current_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that starts workers may be older than the variable."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    assert list(LocalEngine(2).map(access_key, range(3))) == [None] * 3
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    assert list(LocalEngine(2).map(access_key, range(3))) == ["somebody"] * 3
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert list(LocalEngine(2).map(access_key, range(3))) == [None] * 3


@pytest.mark.parametrize("path", [None, "/elsewhere"])
def test_the_search_path_of_the_environment_is_as_before(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    with workers_start_safely():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert (os.environ.get("PYTHONPATH"), os.environ.get("PYTHONSAFEPATH")) == (path, None)
