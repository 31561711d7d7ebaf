"""File systems of a given size that tests can fill or make read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory; skip the test if that is not allowed.

    Args:
        folder: where to; it is made.
        options: of tmpfs, as in `size=4m`.
    """
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> None:
    """Fill the disk to the last byte."""
    handle = os.open(disk / "fill", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (2**16, 2**12, 1):
        try:
            while os.write(handle, b"x" * size):
                pass
        except OSError:
            continue
    os.close(handle)


def use_up_names(disk: Path) -> None:
    """Use up the number of files and folders; free bytes remain."""
    (disk / "names").mkdir()
    try:
        for number in range(10**6):
            (disk / "names" / str(number)).touch()
    except OSError:
        return


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
