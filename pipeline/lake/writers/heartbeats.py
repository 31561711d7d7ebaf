"""Heartbeats of writers: they separate the files of running builds from the orphan files of dead ones.

In a folder a heartbeat is a file in `.writers` that its writer keeps locked: the operating system releases the lock
when the writer dies. In a bucket it is an object that its writer rewrites regularly; an old one, by the bucket's own
clock, belongs to a dead writer.

Orphan files are files of tables that a failed or killed writer wrote and never committed.
"""

import os
import re
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import schemas
from pipeline import storage
from pipeline.errors import BusyLakeError, ImagelakeError, LakeError, StorageError
from pipeline.lake.delta_log import DeltaLog
from pipeline.lake.parquet_writer import WRITER_LETTERS, Writer
from pipeline.lake.writers.lock import hold_lock, make_folder, write_errors
from pipeline.storage.atomic import try_lock

# The names that `Writer` gives. No other file is touched: it does not belong to the lake.
_PART = r"([0-9a-f]{32}|[0-9a-f]{64})\.parquet"
# Delta writes a commit or checkpoint under such a name and then renames it.
_UNFINISHED = re.compile(r".*(#\d+|\.tmp)")


def delete_orphan_files(place: str, writers: Collection[str] | None = None, *, locked: bool = True) -> list[str]:
    """Delete files of tables that no commit has ever named.

    A file that any commit has added stays, whatever later commits say of it: an older release may read it.

    Args:
        place: the lake's place.
        writers: names of the writers whose files are deleted; None for all.
        locked: whether the caller holds the lock: then unfinished commits are deleted too.

    Returns:
        Deleted files, relative to the lake's place, sorted.

    Raises:
        LakeError: a table's log cannot be read; nothing of that table was deleted.
    """
    gone = []
    for log in (DeltaLog(place, table) for table in schemas.TABLES):
        gone += [f"{log.table}/{path}" for path in _orphans(log, writers)]
        gone += unfinished_commits(log) if locked else []
    storage.delete(f"{place}/{path}" for path in gone)
    return sorted(gone)


def unfinished_commits(log: DeltaLog) -> list[str]:
    """List the files of commits that were never finished, relative to the lake's place. No reader needs them."""
    if storage.is_bucket(log.place):
        return []
    names = storage.list_files(log.folder)
    return [f"{log.table}/_delta_log/{name}" for name in names if _UNFINISHED.fullmatch(name)]


def _orphans(log: DeltaLog, writers: Collection[str] | None) -> Iterator[str]:
    partition_by = schemas.TABLES[log.table].partition_by
    pattern = re.compile("/".join([*(f"{key}=[^/]*" for key in partition_by), _PART]))
    files = storage.list_files(f"{log.place}/{log.table}")
    found = [(path, name) for path in files if (name := pattern.fullmatch(path))]
    written = [path for path, name in found if writers is None or name[1][:WRITER_LETTERS] in writers]
    if written and (committed := log.files_ever_added()) is not None:
        yield from (path for path in written if path not in committed)


_FOLDER = ".writers"
_NAME = re.compile(f"[0-9a-f]{{{WRITER_LETTERS}}}")
# In a bucket: seconds between two heartbeats, and after which a writer without one is dead.
_BEAT_SECONDS, _DEAD_SECONDS = 30.0, 900.0


@contextmanager
def registered(place: str) -> Iterator[Writer]:
    """Register a writer of a lake, so that no other process deletes its files before they are committed.

    First the orphan files of dead writers are deleted. If the work inside fails, its own files are deleted too. If a
    bucket did not answer, a failed commit may still take effect: then the heartbeat is kept, and a later build, which
    finds it old, deletes the files that no commit names by then.

    Args:
        place: the lake's place; a folder is created if it is missing.

    Yields:
        The writer.

    Raises:
        LakeError: the place cannot be written to.
        DiskFullError: no space is left.
        StorageError: the bucket does not answer.
    """
    make_folder(place)
    _delete_files_of_dead_writers(place)
    writer = Writer(place, uuid.uuid4().hex[:WRITER_LETTERS])
    beating = _bucket_heartbeat if storage.is_bucket(place) else _folder_heartbeat
    with beating(writer) as stays:
        try:
            yield writer
        except (Exception, KeyboardInterrupt) as error:
            stays.set()
            # Where this fails too, the first error is the useful one, and the next build deletes the files.
            with suppress(OSError, ImagelakeError):
                if not (storage.is_bucket(place) and isinstance(error, StorageError)):
                    _delete_files_of(writer)
                    stays.clear()
            raise


def check_registered(writer: Writer) -> None:
    """Check, under the lock, that no other build presumed this writer dead and deleted its files.

    Raises:
        LakeError: another build did.
    """
    if writer.name not in _heartbeats(writer.place):
        raise LakeError(
            f"{writer.place}: this build sent no heartbeat for so long that another build deleted its files. "
            "Nothing was committed; build again."
        )


def living_writers(place: str) -> set[str]:
    """List the names of writers that are running. The caller holds the lock."""
    with ExitStack() as held:
        return {name for name in _heartbeats(place) if not _is_dead(place, name, held)}


def _delete_files_of(writer: Writer) -> None:
    try:
        with hold_lock(writer.place):
            delete_orphan_files(writer.place, {writer.name})
    except BusyLakeError:
        delete_orphan_files(writer.place, {writer.name}, locked=False)


def _delete_files_of_dead_writers(place: str) -> None:
    """Delete orphan files and heartbeats of dead writers, unless another writer holds the lock."""
    if not _heartbeats(place):
        return
    with suppress(BusyLakeError), hold_lock(place), ExitStack() as held:
        dead = {name for name in _heartbeats(place) if _is_dead(place, name, held)}
        if dead:
            delete_orphan_files(place, dead)
        if os.name == "nt":
            # Windows deletes no open file: not that of a writer that has just opened it, nor ours.
            held.close()
        # Elsewhere the lock is held until the file is gone, so that no writer locks it in between.
        with suppress(PermissionError):
            storage.delete(f"{place}/{_FOLDER}/{name}" for name in dead)


def _heartbeats(place: str) -> set[str]:
    """List the names of writers that have a heartbeat. Other things in the folder are not touched."""
    if storage.is_bucket(place):
        return {name for name in storage.list_files(f"{place}/{_FOLDER}") if _NAME.fullmatch(name)}
    try:
        with os.scandir(f"{place}/{_FOLDER}") as found:
            return {
                entry.name for entry in found if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            }
    except FileNotFoundError:
        return set()


def _is_dead(place: str, name: str, held: ExitStack) -> bool:
    """Find out whether a writer is dead. In a folder its heartbeat is locked then, until `held` is closed."""
    file = f"{place}/{_FOLDER}/{name}"
    if storage.is_bucket(place):
        # The lock was written just now: its time is the time of the bucket's clock.
        found, lock = storage.head(file), storage.head(f"{place}/.lock")
        return bool(found and lock and lock.time - found.time > timedelta(seconds=_DEAD_SECONDS))
    try:
        handle = os.open(file, os.O_RDWR)
    except (FileNotFoundError, PermissionError):
        # The writer has ended, or belongs to another user and may be alive.
        return False
    held.callback(os.close, handle)
    return try_lock(handle, file)


@contextmanager
def _folder_heartbeat(writer: Writer) -> Iterator[threading.Event]:
    """Keep a heartbeat in a folder. Yields an event; where it is set, the heartbeat stays."""
    file, stays = Path(writer.place) / _FOLDER / writer.name, threading.Event()
    with write_errors(writer.place):
        file.parent.mkdir(exist_ok=True)
        handle = _make_locked(file)
    try:
        yield stays
    finally:
        if os.name == "nt":
            os.close(handle)
        if not stays.is_set():
            file.unlink(missing_ok=True)
        if os.name != "nt":
            os.close(handle)


def _make_locked(file: Path) -> int:
    """Create and lock a file. Before it is locked, another build may presume its writer dead and delete it: retry."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(FileNotFoundError):
            if try_lock(handle, file) and os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        os.close(handle)
        time.sleep(0.01)


@contextmanager
def _bucket_heartbeat(writer: Writer) -> Iterator[threading.Event]:
    """Keep a heartbeat in a bucket. Yields an event; where it is set, the heartbeat stays."""
    file, over, stays = f"{writer.place}/{_FOLDER}/{writer.name}", threading.Event(), threading.Event()
    written = storage.write_if_unchanged(file, uuid.uuid4().bytes, None)

    def beat() -> None:
        nonlocal written
        while written is not None and not over.wait(_BEAT_SECONDS):
            # Not where it is gone: then the files of this writer may be gone too. Where it only has another tag, the
            # reply to the write before was lost.
            with suppress(StorageError):
                written = storage.write_if_unchanged(file, uuid.uuid4().bytes, written.tag) or storage.head(file)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield stays
    finally:
        over.set()
        thread.join()
        # Where this fails, another build finds it old and deletes it.
        with suppress(StorageError):
            if not stays.is_set():
                storage.delete([file])
