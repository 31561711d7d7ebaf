"""The lock of a lake: one writer commits at a time. Readers take no lock, and decoding needs none.

In a folder the lock is on the file `.lock`; the operating system releases it when its holder dies. In a bucket the lock
is an object that its holder rewrites every few seconds: see `bucket_lock`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import storage
from pipeline.errors import BusyLakeError, DiskFullError, LakeError
from pipeline.lake.writers.bucket_lock import hold_bucket_lock
from pipeline.storage.locks import try_lock

# Seconds between two attempts to take the lock.
_RETRY_SECONDS = 0.2


@contextmanager
def hold_lock(place: str, on_wait: Callable[[], None] | None = None) -> Iterator[Callable[[], None]]:
    """Hold the lock of a lake.

    Args:
        place: the lake's place.
        on_wait: called once where another writer holds the lock, which is then waited for; None for not to wait.

    Yields:
        A function that raises LakeError where the lock is lost, which only happens in a bucket.

    Raises:
        BusyLakeError: another writer holds the lock, and `on_wait` is None.
        LakeError: the place cannot be written to.
        StorageError: the bucket does not answer.
    """
    hold = hold_bucket_lock if storage.is_bucket(place) else _hold_folder_lock
    waited = False
    while True:
        with hold(place) as check:
            if check is not None:
                yield check
                return
        if on_wait is None:
            raise BusyLakeError(f"{place}: another build is writing to this lake. Wait for it to end, then run again.")
        if not waited:
            on_wait()
            waited = True
        time.sleep(_RETRY_SECONDS)


def make_folder(place: str) -> None:
    """Create the folder of a lake, unless it lies in a bucket.

    Raises:
        DiskFullError: no space is left.
        LakeError: it cannot be written to.
    """
    if storage.is_bucket(place):
        return
    with write_errors(place):
        Path(place).mkdir(parents=True, exist_ok=True)
        os.close(os.open(Path(place) / ".lock", os.O_RDWR | os.O_CREAT, 0o644))


@contextmanager
def write_errors(place: str) -> Iterator[None]:
    """Turn an error of the operating system into one that says what to do.

    Raises:
        DiskFullError: no space is left.
        LakeError: the place cannot be written to.
    """
    try:
        with storage.disk_full_errors(place):
            yield
    except DiskFullError:
        raise
    except OSError as error:
        raise LakeError(f"{place}: cannot be written to ({error.strerror}). Give lake.root another folder.") from error


@contextmanager
def _hold_folder_lock(place: str) -> Iterator[Callable[[], None] | None]:
    """Take the lock of a folder; yields None where another process holds it."""
    make_folder(place)
    file = Path(place) / ".lock"
    handle = os.open(file, os.O_RDWR)
    try:
        yield (lambda: None) if try_lock(handle, file) else None
    finally:
        os.close(handle)
