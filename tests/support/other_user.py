"""Be another user of this machine, who owns nothing."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be a user who owns nothing."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """Make a folder that every user may look into; pytest's own are for one. Skips the test without root's rights."""
    if os.name == "nt" or os.geteuid():
        pytest.skip("only root can be another user")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
