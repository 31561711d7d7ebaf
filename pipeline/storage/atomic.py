"""A folder that is there whole or not at all: it is written beside its place and renamed into it.

One file that a command writes for a person: there whole or not at all, and never in place of a lake's own.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DiskFullError, LakeError
from pipeline.storage import objects


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


@contextmanager
def writing_whole(file: str | Path, what: str, *, outside_lakes: bool = False) -> Iterator[Path]:
    """Give a file to write to, which takes the place of `file` when the work inside ends well, and goes when it fails.

    Args:
        file: where to; a regular file that is there is replaced.
        what: what it is, such as "the report", for errors.
        outside_lakes: refuse the folder of a lake as a whole, not only its tables.

    Yields:
        A path beside `file` that does not exist yet.

    Raises:
        LakeError: the file cannot be written there.
        DiskFullError: no space is left.
    """
    if objects.is_bucket(str(file)):
        raise LakeError(f"{file}: {what} is written to a file of this machine, not to a bucket. Name another file.")
    path = Path(file)
    _check(path, what, outside_lakes=outside_lakes)
    # The same name every time: what a killed process left is overwritten by the next, and not added to.
    draft = path.parent / f".{path.name}.draft"
    try:
        with full_disk_named(str(path.parent)):
            draft.unlink(missing_ok=True)
            try:
                yield draft
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    except DiskFullError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise LakeError(f"{file}: {what} cannot be written there ({why}). Name another file.") from error


def _check(path: Path, what: str, *, outside_lakes: bool) -> None:
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or pipe"
        raise LakeError(f"{path}: is a {kind}, so {what} cannot be written there. Name another file.")
    folder = path.parent.resolve()
    for above in (folder, *folder.parents):
        if (above / "_delta_log").is_dir():
            raise LakeError(f"{path}: lies in {above}, a table of a lake. Name a file outside of it.")
        if (above / "releases" / "_delta_log").is_dir() and (outside_lakes or path.name.startswith(".")):
            raise LakeError(f"{path}: lies in the lake {above}. Name a file outside of it.")


@contextmanager
def full_disk_named(root: str) -> Iterator[None]:
    """Turn a full disk, wherever it shows, into an error that says what to do.

    Raises:
        DiskFullError: no space is left, or a quota is used up.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or "os error 28" in str(error):
            raise DiskFullError(
                f"no space is left on the disk of {root}. The lake reads as before; free some space and build again."
            ) from error
        raise
