"""Locks on files are those of the operating system: a file system without them is an error, not a weaker lock."""

import os
from pathlib import Path

import portalocker
import pytest

from pipeline.errors import LakeError
from pipeline.storage import atomic
from pipeline.storage.atomic import atomic_folder, try_lock


def opened(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT)


def test_one_handle_at_a_time(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "lock"), opened(tmp_path / "lock")
    assert try_lock(first, "lock")
    assert not try_lock(second, "lock")
    os.close(first)
    assert try_lock(second, "lock")
    os.close(second)


def test_a_file_system_without_locks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise portalocker.LockException("Function not implemented")

    monkeypatch.setattr(portalocker, "lock", refuse)
    handle = opened(tmp_path / "lock")
    with pytest.raises(LakeError, match=r"the file system has no locks .*Use a folder of another file system"):
        try_lock(handle, tmp_path / "lock")
    os.close(handle)


def test_a_lock_file_that_was_deleted_before_it_was_locked_protects_no_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that ends meanwhile deletes its lock file. The next export makes another file, and locks that."""

    def lock_late(handle: int, file: Path) -> bool:
        file.unlink()
        return try_lock(handle, file)

    monkeypatch.setattr(atomic, "try_lock", lock_late)
    with pytest.raises(LakeError, match="another export is writing to it"), atomic_folder(tmp_path / "out"):
        pytest.fail("two exports would write to one folder")
    assert list(tmp_path.iterdir()) == []
