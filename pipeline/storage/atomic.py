"""Write a folder or a file that appears complete or not at all, and lock open files.

The work goes to a draft beside the target, under a name that starts with a dot. A rename puts it in place.

Locks work on every operating system. The system releases a lock when its process ends, however it ends.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import portalocker

from pipeline.errors import DiskFullError, LakeError, LimitError
from pipeline.limits import raise_limit
from pipeline.storage import objects


def try_lock(handle: int, name: object) -> bool:
    """Lock an open file, if no other process or handle has locked it. Closing the handle releases the lock.

    Args:
        handle: of a file that is open for writing.
        name: of the file, for errors.

    Returns:
        Whether it is locked now.

    Raises:
        LakeError: the file system has no locks.
    """
    try:
        portalocker.lock(handle, portalocker.LOCK_EX | portalocker.LOCK_NB)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise LakeError(
            f"{name}: the file system has no locks ({error}), so that two builds could write at once. Use a folder of "
            "another file system, or a bucket."
        ) from error
    return True


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a draft folder that becomes `target` when the block succeeds, and is deleted when it fails.

    The draft of a killed process has the same name; it is found and deleted.

    Args:
        target: absolute; does not exist, or is an empty folder.

    Yields:
        The empty folder `.NAME.export` beside the target.

    Raises:
        LakeError: the target is not empty, cannot be created, or another process is writing to it.
    """
    check_free(target)
    draft = target.with_name(f".{target.name}.export")
    with _locked(target):
        try:
            draft.mkdir(exist_ok=True)
            _empty(draft)
        except OSError as error:
            raise _not_writable(target, error) from error
        try:
            yield draft
            _rename(draft, target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def check_free(target: Path) -> None:
    """Check that a folder can be created at `target`.

    Raises:
        LakeError: it is a file, a folder that is not empty, or a mount point.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise LakeError(f"{target}: is a file. Name a folder, one that is new or empty.")
    if any(target.iterdir()):
        content = "an earlier export" if (target / "export.json").exists() else "files"
        raise LakeError(f"{target}: already contains {content}. Delete it, or name a folder that is new or empty.")
    if target.is_mount():
        raise LakeError(f"{target}: is a mount point, which cannot be replaced. Name a folder inside it.")


@contextmanager
def atomic_file(file: str | Path, description: str, *, outside_lakes: bool = False) -> Iterator[Path]:
    """Yield the path of a draft that replaces `file` when the block succeeds, and is deleted when it fails.

    Args:
        file: the target; an existing regular file is replaced.
        description: what the file is, such as "the report", for errors.
        outside_lakes: refuse any file in the folder of a lake, not only files in its tables.

    Yields:
        A path beside `file` that does not exist yet.

    Raises:
        LakeError: the file cannot be written there.
        DiskFullError: no space is left.
    """
    if objects.is_bucket(str(file)):
        raise LakeError(f"{file}: {description} cannot be written to a bucket. Name a file on this machine.")
    path = Path(file)
    _check_file(path, description, outside_lakes=outside_lakes)
    # Always the same name: a draft that a killed process left is overwritten.
    draft = path.parent / f".{path.name}.draft"
    try:
        with disk_full_errors(str(path.parent)):
            draft.unlink(missing_ok=True)
            try:
                yield draft
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    except DiskFullError as error:
        raise DiskFullError(
            f"{file}: no space is left on the disk for {description}. Free some space, or name another file."
        ) from error
    except LimitError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise LakeError(f"{file}: {description} cannot be written there ({reason}). Name another file.") from error


def write_durably(name: str, content: bytes, place: str) -> None:
    """Write a new file or object. When this returns, it survives a crash of the machine; it never appears in part.

    Args:
        name: in a folder that is created if it is missing, or a place in a bucket.
        content: all of it.
        place: the lake's place, for the message where the disk is full.

    Raises:
        LakeError: the file cannot be written there.
        DiskFullError: no space is left.
        StorageError: the bucket does not answer, or refuses.
    """
    if objects.is_bucket(name):
        objects.write(name, content)
        return
    path = Path(name)
    # A killed process leaves a draft, which nobody reads.
    draft = path.with_name(f".{path.name}.draft")
    try:
        with disk_full_errors(place):
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _sync_folder(path.parent.parent)
            try:
                with draft.open("xb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                draft.rename(path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)
    except (DiskFullError, LimitError):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise LakeError(f"{name}: cannot be written ({reason}). Check the permissions of the folder.") from error


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk. Windows cannot, and does so itself."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_full_errors(place: str) -> Iterator[None]:
    """Raise DiskFullError for every error that a full disk causes, in whatever library.

    Args:
        place: what is written to, for the message.

    Raises:
        DiskFullError: no space is left, or a quota is used up.
        LimitError: a limit of the system was reached, such as the size of a file.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or "os error 28" in str(error):
            raise DiskFullError(
                f"no space is left on the disk of {place}. The lake is unchanged; free some space and build again."
            ) from error
        raise_limit(error)
        raise


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold a lock file beside the target. It is deleted in the end; one that a killed process left is reused."""
    file = target.with_name(f".{target.name}.export.lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _not_writable(target, error) from error
    try:
        if not (try_lock(handle, file) and _is_same_file(handle, file)):
            raise LakeError(f"{target}: another export is writing to it. Wait for it to end, or name another folder.")
        try:
            yield
        finally:
            # The lock is held until the file is gone, so that nobody else locks it in between. Windows cannot delete an
            # open file; there, it is deleted below.
            with suppress(OSError):
                file.unlink()
    finally:
        os.close(handle)
        if os.name == "nt":
            # Fails where another process has it open, which then deletes it.
            with suppress(OSError):
                file.unlink()


def _is_same_file(handle: int, file: Path) -> bool:
    """Whether the file is still there: an export that ended after it was opened here has deleted it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), file.stat())
    return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _rename(draft: Path, target: Path) -> None:
    try:
        if os.name == "nt" and target.exists():
            target.rmdir()
        # On other systems, this replaces an empty folder in one step. It fails if the folder is not empty.
        draft.rename(target)
    except OSError as error:
        raise LakeError(
            f"{target}: the export cannot be moved there ({error.strerror}). Name a folder that is new or empty."
        ) from error


def _not_writable(target: Path, error: OSError) -> LakeError:
    return LakeError(f"{target}: cannot be written to ({error.strerror}). Name another folder.")


def _check_file(path: Path, description: str, *, outside_lakes: bool) -> None:
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or pipe"
        raise LakeError(f"{path}: is a {kind}, so {description} cannot be written there. Name another file.")
    folder = path.parent.resolve()
    for above in (folder, *folder.parents):
        if (above / "_delta_log").is_dir():
            raise LakeError(f"{path}: lies in {above}, a table of a lake. Name a file outside of it.")
        if (above / "releases" / "_delta_log").is_dir() and (outside_lakes or path.name.startswith(".")):
            raise LakeError(f"{path}: lies in the lake {above}. Name a file outside of it.")
