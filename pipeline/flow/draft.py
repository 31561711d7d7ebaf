"""A folder that is there whole or not at all: it is written beside its place and renamed into it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import LakeError


@contextmanager
def drafting(target: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes `target` when the work inside ends well, and goes when it fails.

    What a killed process left is found under the same name and deleted.

    Args:
        target: absolute; does not exist, or is an empty folder.

    Yields:
        An empty folder `.NAME.export` beside the target.

    Raises:
        LakeError: the target has something in it, cannot be made, or another process is writing to it.
    """
    check_free(target)
    draft = target.with_name(f".{target.name}.export")
    try:
        draft.mkdir(parents=True, exist_ok=True)
        handle = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise LakeError(f"{target}: cannot be written to ({error.strerror}). Name another folder.") from error
    try:
        _lock(handle, draft, target)
        _empty(draft)
        try:
            yield draft
            _rename(draft, target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def check_free(target: Path) -> None:
    """Refuse a folder that an export cannot become.

    Raises:
        LakeError: there is a file, or something in the folder, or something else is mounted there.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise LakeError(f"{target}: is a file. Name a folder, one that is new or empty.")
    if any(target.iterdir()):
        earlier = "an earlier export" if (target / "export.json").exists() else "something"
        raise LakeError(f"{target}: there is {earlier} in it. Delete it, or name a folder that is new or empty.")
    if target.is_mount():
        raise LakeError(f"{target}: is a mount point, which nothing can be renamed to. Name a folder inside it.")


def _lock(handle: int, draft: Path, target: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking it, another export may have finished and renamed it.
        same = os.path.samestat(os.fstat(handle), draft.stat())
    except OSError:
        same = False
    if not same:
        raise LakeError(f"{target}: another export is writing to it. Wait for it to end, or name another folder.")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _rename(draft: Path, target: Path) -> None:
    try:
        # Takes the place of an empty folder in one step, and fails if it has got something in it.
        draft.rename(target)
    except OSError as error:
        raise LakeError(
            f"{target}: the export cannot take its place ({error.strerror}). Name a folder that is new or empty."
        ) from error
