import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import polars as pl
import pytest

from pipeline.cli.failures import Terminated, failure
from pipeline.engines.local import LocalEngine
from pipeline.errors import EngineError, LakeError


def aborted(cause: BaseException | None) -> click.Abort:
    """As click raises it."""
    error = click.Abort()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (aborted(KeyboardInterrupt()), 130, "imagelake: stopped. The lake is as of its last release"),
        (aborted(None), 130, "imagelake: stopped."),
        (aborted(Terminated(signal.SIGTERM)), 143, "imagelake: stopped by SIGTERM."),
        (EngineError("worker process 7 was killed"), 1, "imagelake: worker process 7 was killed"),
        (MemoryError(), 1, "imagelake: there is not enough memory"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, "imagelake: /x/y: Permission denied. Give this user"),
        (OSError(5, "Input/output error", "/x"), 1, "imagelake: /x: Input/output error. The disk or the network"),
        (RuntimeError("Symlink loop from '/x'"), 1, "A symbolic link points to itself"),
        (pl.exceptions.ComputeError("Stale file handle (os error 116)"), 1, "imagelake: Stale file handle"),
        (pl.exceptions.ComputeError("parquet: zstd error"), 1, "is damaged (parquet: zstd error). List the damage"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), 1, "Set TMPDIR"),
    ],
)
def test_an_error_of_the_surroundings_is_one_line(error: BaseException, code: int, text: str) -> None:
    found = failure(error)
    assert found is not None
    assert found.code == code
    assert text in found.line


@pytest.mark.parametrize(
    "error", [aborted(EOFError()), ValueError("Permission denied"), OSError(9, "Bad file descriptor")]
)
def test_a_bug_keeps_its_traceback(error: BaseException) -> None:
    assert failure(error) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that a process is in")
def test_a_relative_path_in_a_deleted_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    hint = "The current folder does not exist any more"
    with pytest.raises(FileNotFoundError) as raised:
        Path("lake").absolute()
    for error in (raised.value, FileNotFoundError(2, "No such file", "x"), LakeError("lake holds no finished build.")):
        found = failure(error)
        assert found is not None
        assert hint in found.line
    assert failure(FileNotFoundError(2, "No such file", "/x")) is None
    # Workers need no current folder.
    assert list(LocalEngine(2, start_method="spawn").map(abs, [-1, -2])) == [1, 2]


@pytest.mark.skipif(os.name == "nt", reason="Windows does not deliver SIGTERM")
def test_a_signal_ends_a_command_whose_library_computes_on() -> None:
    code = (
        "import hashlib, os, signal, threading\n"
        "from pipeline.cli import failures\n"
        "failures._GRACE_SECONDS = 0.1\n"
        "failures.end_on_signals()\n"
        "threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        # Minutes, without a step of Python between which the handler could run.
        "hashlib.pbkdf2_hmac('sha256', b'x', b'x', 2**31 - 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.startswith("imagelake: stopped by SIGTERM. The lake is as of its last release")
