"""Commands and workers import nothing from the current folder, whatever modules a file there is named like."""

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from making import as_zip, files_of

PROJECT = Path(__file__).parents[1]
COMMAND = str(Path(sys.executable).with_name("imagelake"))
# Writes its name and process into `hits` beside the folder, then fails. It imports only what is built into Python.
TRAP = """
import posix, sys
handle = posix.open({hits!r}, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND)
posix.write(handle, (__name__ + " " + str(posix.getpid()) + " ").encode())
raise SystemError("a module of the current folder")
"""
ENGINES = ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the trap needs posix")


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A folder with a file for every module of the standard library and of the installed packages."""
    names = {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "usercustomize"}
    (tmp_path / "traps").mkdir()
    for name in filter(str.isidentifier, names):
        (tmp_path / "traps" / f"{name}.py").write_text(TRAP.format(hits=str(tmp_path / "hits")))
    return tmp_path / "traps"


def run(traps: Path, *words: object) -> None:
    """Run a command in the folder of traps; it succeeds and springs none."""
    variables = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        list(map(str, words)), cwd=traps, env=variables, capture_output=True, text=True, check=False, timeout=300
    )
    sprung = traps.with_name("hits").read_text() if traps.with_name("hits").exists() else ""
    assert (sprung, done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_a_build_with_several_workers_springs_no_trap(traps: Path, tmp_path: Path, engine: str) -> None:
    if engine == "ray" and find_spec("ray") is None:
        pytest.skip("ray (extra `ray`) is not installed")
    for number in range(2):
        as_zip(tmp_path / f"set{number}.zip", files_of(4, seed=number))
    sources = "".join(f'[[source]]\nuri = "set{number}.zip"\ndataset = "d{number}"\n' for number in range(2))
    (tmp_path / "in.toml").write_text(f'[lake]\nroot = "lake"\n{sources}')
    run(traps, COMMAND, "build", tmp_path / "in.toml", "--workers", 2, "--engine", engine)
    if engine == "local":
        run(traps, COMMAND, "sql", tmp_path / "lake", "SELECT count(*) FROM images")


SESSION = """
import os, sys
from concurrent.futures import process
from multiprocessing import forkserver, popen_forkserver, popen_spawn_posix, resource_sharer
from pipeline.engines.local import LocalEngine
os.chdir({folder!r})
assert "" in sys.path
before = sys.path.copy()
assert list(LocalEngine(2, start_method={method!r}).map(abs, [-1, -2, -3])) == [1, 2, 3]
assert sys.path == before
assert not [words for words in open({hits!r}).read().split()[1::2] if words != str(os.getpid())]
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_of_a_session_spring_no_trap_and_its_path_stays(traps: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "hits").touch()
    code = SESSION.format(folder=str(traps), method=method, hits=str(tmp_path / "hits"))
    variables = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_workers_do_not_run_the_script_of_the_user_again(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from pipeline.engines.local import LocalEngine\n"
        "print(list(LocalEngine(2, start_method='spawn').map(abs, [-1, -2, -3])))\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[1, 2, 3]\n", done.stderr
