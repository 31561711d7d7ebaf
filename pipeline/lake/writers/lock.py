"""The lock of a lake: one writer commits at a time. Readers take no lock, and decoding needs none.

In a folder the lock is on the file `.lock`; the operating system releases it when its holder dies. In a bucket the lock
is an object that its holder rewrites every few seconds, with conditional writes. A writer that sees the object
unchanged for a whole lease takes the lock over. Only durations on one machine are measured, so clocks need not agree. A
holder that could not rewrite the object for half a lease commits nothing more.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import storage
from pipeline.errors import BusyLakeError, DiskFullError, LakeError, StorageError
from pipeline.os_errors import advice_for
from pipeline.storage import ObjectInfo
from pipeline.storage.atomic import try_lock

# Seconds after which a holder that wrote nothing is taken for dead, and between two writes of a holder.
LEASE_SECONDS, _RENEW_SECONDS = 60.0, 10.0

# A clock that runs on while the machine sleeps, where the system has one: leases run on too.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

# By lock that another writer holds: its tag, and when this process first saw that tag.
_seen: dict[str, tuple[str, float]] = {}


@contextmanager
def hold_bucket_lock(place: str) -> Iterator[Callable[[], None] | None]:
    """Take the lock of a lake in a bucket.

    Yields:
        A function that raises LakeError where the lock is lost; None where another writer holds it.

    Raises:
        StorageError: the bucket does not answer.
    """
    lease = _take(f"{place}/.lock")
    if lease is None:
        yield None
        return
    with lease.renewed():
        yield lease.check


class Lease:
    """A lock that is held.

    Args:
        name: name of the object.
        tag: its tag after this holder wrote it.
        holder: a name that no other holder has.
        began: when it was written, or a little before.
    """

    def __init__(self, name: str, tag: str, holder: str, began: float) -> None:
        self._name, self._tag, self._holder = name, tag, holder
        self._count, self._renewed_at = 0, began
        self._lost = False
        self._over = threading.Event()

    def check(self) -> None:
        """Raise where the lock may be lost.

        Raises:
            LakeError: naming the lake.
        """
        if self._lost or now() - self._renewed_at > LEASE_SECONDS / 2:
            raise LakeError(
                f"{self._name}: the lock of the lake is lost, as the bucket could not be written for too long, or this "
                "process slept. Nothing of this build is visible; build again."
            )

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease in a thread until the work inside ends, then release the lock."""
        thread = threading.Thread(target=self._renew_regularly, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            # Where this fails, the next writer waits until the lease ends.
            with suppress(StorageError):
                if not self._lost:
                    storage.write_if_unchanged(self._name, _content("", self._count), self._tag)

    def _renew_regularly(self) -> None:
        while not self._over.wait(_RENEW_SECONDS):
            self._count += 1
            with suppress(StorageError):
                self._renew()
            if self._lost:
                return

    def _renew(self) -> None:
        began = now()
        written = storage.write_if_unchanged(self._name, _content(self._holder, self._count), self._tag)
        if written is not None and now() - began < LEASE_SECONDS / 2:
            self._tag, self._renewed_at = written.tag, began
        elif own := self._own_object():
            # A reply was lost before, or came late. The next renewal counts.
            self._tag = own.tag
        else:
            self._lost = True

    def _own_object(self) -> ObjectInfo | None:
        """Look up the object; None where another holder wrote it last."""
        found = storage.head(self._name)
        return found if found is not None and _holder(self._name) == self._holder else None


def now() -> float:
    """Return the seconds by which leases are measured."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def _take(name: str) -> Lease | None:
    holder = uuid.uuid4().hex
    found = storage.head(name)
    if found is not None and not _is_free(name, found.tag):
        return None
    began = now()
    written = storage.write_if_unchanged(name, _content(holder, 0), found.tag if found else None)
    _seen.pop(name, None)
    # After half a lease another writer may have taken it over: then it is waited for like any other lock.
    return Lease(name, written.tag, holder, began) if written and now() - began < LEASE_SECONDS / 2 else None


def _is_free(name: str, tag: str) -> bool:
    known, since = _seen.setdefault(name, (tag, now()))
    if known != tag:
        _seen[name] = (tag, now())
    elif now() - since > LEASE_SECONDS:
        return True
    return _holder(name) == ""


def _holder(name: str) -> str | None:
    """Read the holder of a lock: empty where it is released; None where it cannot be read."""
    try:
        return str(json.loads(storage.read(name))["holder"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _content(holder: str, count: int) -> bytes:
    """Make the content of the object: its holder, and values that make every write a different one."""
    return json.dumps({"holder": holder, "count": count, "nonce": uuid.uuid4().hex}).encode()


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
        os.close(os.open(Path(place) / ".lock", os.O_RDWR | os.O_CREAT, 0o666))


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
        advice = advice_for(error)
        why = error.strerror if error.filename in (None, place) else f"{error.strerror}: {error.filename}"
        raise LakeError(
            f"{place}: cannot be written to ({why}). {f'{advice}, or give' if advice else 'Give'} lake.root another "
            "folder."
        ) from error


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
