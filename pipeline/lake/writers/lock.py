"""One writer at a time at a lake's tables. Readers take no lock, and decoding needs none: only commits do.

In a folder the system holds the lock and lets it go when its holder dies, however it dies. In a bucket it is an object
that its holder writes again and again (`lease`); there a holder that slept too long may find that another has come.
Either way, whoever holds the lock knows the version of every table it has seen, and stops where one has moved that it
did not move itself (`seen`).
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import storage
from pipeline.errors import BusyLakeError, DiskFullError, LakeError
from pipeline.lake.writers.bucket_lock import leased

# Seconds between two looks whether the lake is free.
_EVERY = 0.2
# The version of a table that is not there.
MISSING = -1


class _Hold(NamedTuple):
    """A lock that is held here.

    Attributes:
        root: the lake's place.
        versions: by table, the version that it has as far as the holder knows.
        kept: whatever else the holder knows of a table, by name: nobody else changes it.
        check: raises where the lock is lost.
    """

    root: str
    versions: dict[str, int]
    kept: dict[str, Any]
    check: Callable[[], None]


_hold: ContextVar[_Hold | None] = ContextVar("hold", default=None)


@contextmanager
def writing(root: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lake for writing; readers are never held up.

    Args:
        root: the lake's place.
        on_wait: called once where another writer holds the lake, and then waited for; None for not to wait.

    Raises:
        BusyLakeError: another build or vacuum holds it, and nobody wants to wait.
        LakeError: the place cannot be written to.
        StorageError: the bucket does not answer.
    """
    take = leased if storage.is_bucket(root) else _locked
    told = False
    while True:
        with take(root) as check:
            if check is not None:
                before = _hold.set(_Hold(root, {}, {}, check))
                try:
                    yield
                finally:
                    _hold.reset(before)
                return
        if on_wait is None:
            raise BusyLakeError(f"{root}: another build is writing to this lake. Wait for it to end, then run again.")
        if not told:
            on_wait()
            told = True
        time.sleep(_EVERY)


def seen(root: str, table: str, version: int, *, made: bool = False) -> None:
    """Note the newest version of a table that was seen under the lock, or made.

    Args:
        root: the lake's place.
        table: name of the table.
        version: its newest version; `MISSING` where there is no such table.
        made: whether the holder of the lock made it itself.

    Raises:
        LakeError: the lock is lost, or another writer went past it.
    """
    hold = _hold.get()
    if hold is None or hold.root != root:
        return
    hold.check()
    if not made and hold.versions.get(table, version) != version:
        raise LakeError(
            f"{root}/{table}: another writer changed the table while this build held the lake. Nothing of this build "
            "is visible; build again."
        )
    hold.versions[table] = version


def kept(root: str) -> dict[str, Any] | None:
    """What the holder of the lock keeps for itself until it lets go; nothing where the lock is not held here."""
    hold = _hold.get()
    return hold.kept if hold is not None and hold.root == root else None


def made_folder(root: str) -> None:
    """Make the folder of a lake, if it is to be one.

    Raises:
        DiskFullError: no space is left.
        LakeError: it cannot be written to.
    """
    if storage.is_bucket(root):
        return
    with refusal_named(root):
        Path(root).mkdir(parents=True, exist_ok=True)
        os.close(os.open(Path(root) / ".lock", os.O_RDWR | os.O_CREAT, 0o644))


@contextmanager
def refusal_named(root: str) -> Iterator[None]:
    """Turn what a folder refuses into an error that says what to do.

    Raises:
        DiskFullError: no space is left.
        LakeError: it cannot be written to.
    """
    try:
        with storage.full_disk_named(root):
            yield
    except DiskFullError:
        raise
    except OSError as error:
        raise LakeError(f"{root}: cannot be written to ({error.strerror}). Give lake.root another folder.") from error


@contextmanager
def _locked(root: str) -> Iterator[Callable[[], None] | None]:
    """Take the lock on a folder; nothing where another has it."""
    made_folder(root)
    handle = os.open(Path(root) / ".lock", os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lambda: None
    finally:
        os.close(handle)
