import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from operator import length_hint
from pathlib import Path

import pytest

from pipeline.engines import Engine
from pipeline.engines import ray as ray_engine
from pipeline.engines.ray import RayEngine
from pipeline.errors import DiskFullError, EngineError, MissingExtraError, SourceError, StorageError

# Workers import this file, and nothing else of the tests.
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray (extra `ray`) is not installed"),
]

COMMAND = str(Path(sys.executable).with_name("imagelake"))
GLYPHS = (
    '[lake]\nroot = "lake"\n[[source]]\nuri = "g"\nformat = "glyphs"\nrows = 1000\ndataset = "g"\nsplit = "train"\n'
)


def square(value: int) -> int:
    return value * value


def fail_at_three(value: int) -> int:
    if value == 3:
        raise SourceError("three is no image: \u00e9\nsecond line")
    return value


class Odd(Exception):  # noqa: N818 - an error that nobody can pickle
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly(value: int) -> int:
    raise Odd(value, value)


def counted(folder: Path) -> int:
    """Tell how often this was called with a folder, across processes, this call included."""
    (folder / f"{time.time_ns()}").touch()
    return len(list(folder.iterdir()))


def fail_twice(folder: Path) -> int:
    if counted(folder) <= 2:
        raise StorageError("the bucket did not answer")
    return 7


def full_disk(folder: Path) -> int:
    counted(folder)
    raise DiskFullError("no space is left")


def die_once(folder: Path) -> int:
    if counted(folder) == 1:
        os._exit(1)
    return 7


def die_always(folder: Path) -> int:
    counted(folder)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def write_on(file: Path) -> None:
    for _ in range(60_000):
        with file.open("a") as stream:
            stream.write(".")
        time.sleep(0.001)


def speak(value: int) -> int:
    sys.stdout.write("on stdout\n")
    warnings.warn("mind the gap", stacklevel=1)
    return value


def unloadable() -> Callable[[int], int]:
    """Make a function of a module that only this process has."""
    module = type(sys)("only_here")
    exec("def double(x): return 2 * x", module.__dict__)  # noqa: S102 - there is no file of it
    sys.modules["only_here"] = module
    module.double.__module__ = "only_here"
    double: Callable[[int], int] = module.double
    return double


def test_results_come_in_the_order_of_the_items(ray_here: Engine) -> None:
    assert list(ray_here.map(square, range(20))) == [i * i for i in range(20)]
    assert list(ray_here.map(square, [])) == []
    assert list(ray_here.map(square, [7])) == [49]
    assert ray_here.pieces == 2
    assert ray_here.shares_disk


def test_few_items_are_in_flight(ray_here: Engine) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(50):
            taken += 1
            yield i

    for done, _ in enumerate(ray_here.map(square, items()), start=1):
        assert taken - done < 4


@pytest.mark.usefixtures("ray_here")
def test_with_a_cluster_workers_limit_the_tasks_in_flight() -> None:
    items = iter(range(5))
    # Ray is connected already, so the address is not used.
    for done, _ in enumerate(RayEngine(1, "127.0.0.1:1").map(square, items)):
        assert length_hint(items) == 4 - done


def test_an_error_comes_out_as_it_was_raised_with_the_place_where(ray_here: Engine) -> None:
    with pytest.raises(SourceError) as caught:
        list(ray_here.map(fail_at_three, range(10)))
    assert type(caught.value) is SourceError
    assert str(caught.value) == "three is no image: \u00e9\nsecond line"
    assert "in fail_at_three" in str(caught.value.__cause__)


def test_an_error_that_cannot_be_pickled_becomes_a_runtime_error(ray_here: Engine) -> None:
    with pytest.raises(RuntimeError, match="Odd: 1 and 1") as caught:
        list(ray_here.map(fail_oddly, [1]))
    assert "in fail_oddly" in str(caught.value.__cause__)


def test_transient_errors_are_retried(
    ray_here: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_engine, "_RETRY_WAITS", (0, 0, 0))
    assert list(ray_here.map(fail_twice, [tmp_path])) == [7]
    assert "the bucket did not answer: trying again in 0 s" in capsys.readouterr().err


def test_transient_errors_are_not_retried_forever(
    ray_here: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "_RETRY_WAITS", (0,))
    with pytest.raises(StorageError, match="the bucket did not answer"):
        list(ray_here.map(fail_twice, [tmp_path]))
    assert len(list(tmp_path.iterdir())) == 2


def test_other_errors_are_not_retried(ray_here: Engine, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="no space is left"):
        list(ray_here.map(full_disk, [tmp_path]))
    assert len(list(tmp_path.iterdir())) == 1


def test_work_whose_worker_dies_is_done_again(
    ray_here: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(ray_here.map(die_once, [tmp_path])) == [7]
    assert len(list(tmp_path.iterdir())) == 2
    assert capsys.readouterr().out == ""


def test_workers_that_die_again_and_again_are_an_error_that_says_what_to_do(ray_here: Engine, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="--workers 1"):
        list(ray_here.map(die_always, [tmp_path]))
    assert len(list(tmp_path.iterdir())) == 4


def test_work_that_a_worker_cannot_load_is_an_error_that_says_what_to_do(ray_here: Engine) -> None:
    with pytest.raises(EngineError, match="only_here.*Install imagelake"):
        list(ray_here.map(unloadable(), [1]))


def test_a_worker_of_another_version_refuses(monkeypatch: pytest.MonkeyPatch, ray_here: Engine) -> None:
    monkeypatch.setattr(ray_engine, "installed_version", lambda: "0.0.1")
    with pytest.raises(EngineError, match="this build 0.0.1"):
        list(ray_here.map(square, [1]))
    ray_engine.check_version(ray_engine.installed_version())


def test_output_of_workers_is_printed_once_and_on_stderr(ray_here: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(ray_here.map(speak, range(6))) == list(range(6))
    said = capsys.readouterr()
    assert said.out == ""
    assert "on stdout" in said.err
    assert "UserWarning: mind the gap" in said.err
    # Python itself warns once a process.
    assert said.err.count("mind the gap") <= 2


def test_closed_early_nobody_works_on(ray_here: Engine, tmp_path: Path) -> None:
    def items() -> Iterator[Path]:
        yield tmp_path / "a"
        deadline = time.monotonic() + 120
        while not (tmp_path / "a").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        raise SourceError("the source is damaged")

    with closing(ray_here.map(write_on, items())) as results, pytest.raises(SourceError, match="damaged"):
        next(results)
    written = (tmp_path / "a").stat().st_size
    time.sleep(0.2)
    assert (tmp_path / "a").stat().st_size == written


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'imagelake\[ray\]'"):
        RayEngine()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:10001"])
def test_a_cluster_that_is_not_there_is_an_error(address: str, tmp_path: Path) -> None:
    (tmp_path / "in.toml").write_text(GLYPHS)
    command = [COMMAND, "build", str(tmp_path / "in.toml"), "--engine", "ray", "--ray-address", address]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert said.stderr.startswith(f"imagelake: the cluster at {address} cannot be used: ")
    assert said.stderr.count("\n") == 1
