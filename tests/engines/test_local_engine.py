import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pipeline.engines.local import LocalEngine, StartMethod, start_server
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


def die(number: signal.Signals, value: int) -> int:
    if value:
        os.kill(os.getpid(), number)
    return value


def die_while_writing(value: int) -> bytes:
    """Return more than a pipe holds, and die before it is read."""
    if value < 3:
        return b""
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return bytes(2**22)


def kill_fork_server(value: int) -> int:
    if value == 1:
        os.kill(os.getppid(), signal.SIGKILL)
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


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (signal.SIGKILL, r"was killed \(SIGKILL\), most likely because memory was short.*--workers 1"),
        (signal.SIGSEGV, r"crashed \(SIGSEGV\)"),
        (signal.SIGTERM, r"was ended by another program \(SIGTERM\)"),
    ],
)
@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_a_killed_worker_is_an_error_that_names_the_signal(
    number: signal.Signals, text: str, start_method: StartMethod
) -> None:
    with pytest.raises(EngineError, match=f"worker process [0-9]+ {text}"):
        list(LocalEngine(2, start_method=start_method).map(partial(die, number), range(4)))


def test_a_worker_that_is_killed_while_it_writes_blocks_nothing() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        time.sleep(0.2)
        yield 3
        # Long enough for the worker to fill its pipe and to die.
        time.sleep(0.5)
        yield 4

    with pytest.raises(EngineError, match="SIGKILL"):
        list(LocalEngine(2).map(die_while_writing, items()))


def test_workers_finish_when_the_fork_server_is_killed() -> None:
    assert list(LocalEngine(2).map(kill_fork_server, range(8))) == list(range(8))
    assert list(LocalEngine(2).map(square, range(4))) == [0, 1, 4, 9]


def test_no_semaphores_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are files in /dev/shm, which may be full."""
    monkeypatch.setattr("_multiprocessing.SemLock", None)
    assert list(LocalEngine(2).map(square, range(4))) == [0, 1, 4, 9]


def test_a_worker_that_cannot_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: BaseProcess) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(BaseProcess, "start", fail)
    with pytest.raises(EngineError, match="cannot be started: no more processes or threads"):
        list(LocalEngine(2).map(square, range(4)))


DRIVER = """
import sys, time
from pipeline.engines.local import LocalEngine, StartMethod, start_server
if __name__ == "__main__":
    for _ in LocalEngine(2).map(time.sleep, [0.01, 0.01] + [60] * 8):
        print("started", flush=True)
"""


@pytest.mark.parametrize(
    ("delay", "number", "text"),
    [
        (0, signal.SIGINT, "stopped"),
        (0.5, signal.SIGTERM, "stopped by SIGTERM"),
        *(
            pytest.param(delay, signal.SIGINT, "stopped", marks=pytest.mark.stress)
            for delay in (0.1, 0.2, 0.3, 0.5, 1, 2)
        ),
    ],
)
def test_an_interrupt_is_quick_and_quiet(tmp_path: Path, delay: float, number: signal.Signals, text: str) -> None:
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
        os.killpg(build.pid, number)
        assert build.stderr is not None
        said = build.stderr.read()
        build.wait(timeout=60)
    assert build.returncode == 128 + number, said
    assert f"imagelake: {text}. The lake is as of its last release" in said
    assert "KeyboardInterrupt" not in said


def test_ctrl_c_while_a_worker_starts_waits_until_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    start, known = BaseProcess.start, []

    def interrupted(process: BaseProcess) -> None:
        signal.raise_signal(signal.SIGINT)
        start(process)
        known.append(process)

    monkeypatch.setattr(BaseProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(LocalEngine(2).map(abs, range(100)))
    assert [process.exitcode for process in known] == [0]


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
