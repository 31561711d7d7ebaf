"""Who is at work in a lake: every build leaves a mark, so that what the dead left is told from what is being made.

In a folder a mark is a file that its writer has locked: the system lets go when it dies. In a bucket it is an object
that is written again every so often, and old where its writer is dead, by the bucket's own clock.
"""

import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from pipeline import storage
from pipeline.errors import BusyLakeError, ImagelakeError, LakeError, StorageError
from pipeline.lake.parquet_writer import WRITER_LETTERS, writer, writing_as
from pipeline.lake.writers.lock import made_folder, refusal_named, writing
from pipeline.lake.writers.orphan_files import delete_leftovers

_MARKS = ".writers"
# What the name of a mark begins with until it is locked.
_DRAFT = "."
# In a bucket: seconds between two signs of life, and after how many without one a writer is dead.
_BEATS, _DEAD = 30.0, 900.0


@contextmanager
def registered(root: str) -> Iterator[str]:
    """Be known as a writer of a lake: nobody else deletes the files that are written inside.

    What the work inside wrote and did not commit is deleted where it fails; so is what killed builds left before it.
    Where a bucket did not answer, a commit that failed here may yet take effect there: then the mark stays, and
    whoever finds it old deletes what no commit names by then.

    Args:
        root: the lake's place; a folder is made if it is missing.

    Yields:
        The writer's name.

    Raises:
        LakeError: the place cannot be written to.
        DiskFullError: no space is left.
        StorageError: the bucket does not answer.
    """
    made_folder(root)
    _sweep(root)
    name = uuid.uuid4().hex[:WRITER_LETTERS]
    marked = _beating_mark if storage.is_bucket(root) else _locked_mark
    with marked(root, name) as stays, writing_as(name):
        try:
            yield name
        except (Exception, KeyboardInterrupt) as error:
            stays.set()
            # Where this fails too, the first error says more, and who finds the mark deletes the files.
            with suppress(OSError, ImagelakeError):
                if not (storage.is_bucket(root) and isinstance(error, StorageError)):
                    _clear(root, name)
                    stays.clear()
            raise


def still_registered(root: str) -> None:
    """Make sure, under the lock, that nobody took this writer for dead and deleted its files.

    Raises:
        LakeError: somebody did.
    """
    name = writer()
    if name and name not in _marks(root):
        raise LakeError(
            f"{root}: this build was silent for so long that another took it for dead and deleted its files. Nothing "
            "was committed; build again."
        )


def living(root: str) -> set[str]:
    """Name the writers that are at work now, or may be; asked under the lock."""
    return {name for name in _marks(root) if not _dead(root, name)}


def _clear(root: str, name: str) -> None:
    try:
        with writing(root):
            delete_leftovers(root, {name})
    except BusyLakeError:
        delete_leftovers(root, {name}, locked=False)


def _sweep(root: str) -> None:
    """Delete what dead writers left, unless somebody is committing just now: then the next build does it."""
    if not _marks(root, drafts=True):
        return
    with suppress(BusyLakeError), writing(root):
        dead = {name for name in _marks(root, drafts=True) if _dead(root, name)}
        # Whose mark is a draft has written nothing, and may go on just now.
        if gone := {name for name in dead if not name.startswith(_DRAFT)}:
            delete_leftovers(root, gone)
        storage.delete(f"{root}/{_MARKS}/{name}" for name in dead)


def _marks(root: str, *, drafts: bool = False) -> set[str]:
    if storage.is_bucket(root):
        return set(storage.below(f"{root}/{_MARKS}"))
    folder = Path(root) / _MARKS
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if drafts or not name.startswith(_DRAFT)}


def _dead(root: str, name: str) -> bool:
    """Tell whether a writer died. Asked under the lock, which in a bucket was just written and so tells the time."""
    file = f"{root}/{_MARKS}/{name}"
    if storage.is_bucket(root):
        found, lock = storage.look(file), storage.look(f"{root}/.lock")
        return bool(found and lock and lock.time - found.time > timedelta(seconds=_DEAD))
    try:
        handle = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(handle)


@contextmanager
def _locked_mark(root: str, name: str) -> Iterator[threading.Event]:
    """Mark a writer of a folder; yields what to set for the mark to stay."""
    file, stays = Path(root) / _MARKS / name, threading.Event()
    with refusal_named(root):
        file.parent.mkdir(exist_ok=True)
        handle = _made_and_locked(file)
    try:
        yield stays
    finally:
        if not stays.is_set():
            file.unlink(missing_ok=True)
        os.close(handle)


def _made_and_locked(file: Path) -> int:
    """Make a mark that is locked before it has its name: whoever sees it sees that its writer lives."""
    draft = file.with_name(f"{_DRAFT}{file.name}")
    while True:
        handle = os.open(draft, os.O_RDWR | os.O_CREAT, 0o644)
        # Before it is locked, another build may take it for one that a killed writer left, and delete it.
        with suppress(FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX)
            draft.rename(file)
            return handle
        os.close(handle)


@contextmanager
def _beating_mark(root: str, name: str) -> Iterator[threading.Event]:
    """Mark a writer of a bucket; yields what to set for the mark to stay."""
    file, over, stays = f"{root}/{_MARKS}/{name}", threading.Event(), threading.Event()
    mark = storage.write_if(file, uuid.uuid4().bytes, None)

    def beat() -> None:
        nonlocal mark
        while mark is not None and not over.wait(_BEATS):
            # Not if it is gone: then the files that it stands for may be too. Where it is only another than it was, the
            # answer to the writing before was lost.
            with suppress(StorageError):
                mark = storage.write_if(file, uuid.uuid4().bytes, mark.tag) or storage.look(file)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield stays
    finally:
        over.set()
        heart.join()
        # Where this fails, another build finds it old and deletes it.
        with suppress(StorageError):
            if not stays.is_set():
                storage.delete([file])
