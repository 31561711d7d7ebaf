"""The lock of a lake in a bucket: an object that its holder writes again every few seconds, if nobody else did.

Who finds it unchanged for longer than a lease lasts takes it over; nobody's clock is compared with another's. A holder
that could not write it for half as long does not commit any more.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline import storage
from pipeline.errors import LakeError, StorageError
from pipeline.storage import Found

# Seconds after which a holder that is silent is taken for dead, and between two signs of life.
LASTS, _BEATS = 60.0, 10.0

# A clock that goes on while the machine sleeps, where the system has one: the lease goes on too.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# What was seen of locks that others hold: by place, the tag, and when it was first seen.
_watched: dict[str, tuple[str, float]] = {}


@contextmanager
def leased(root: str) -> Iterator[Callable[[], None] | None]:
    """Take the lock of a lake in a bucket.

    Yields:
        A function that raises LakeError where the lock is lost; nothing where another has it.

    Raises:
        StorageError: the bucket does not answer.
    """
    lease = _taken(f"{root}/.lock")
    if lease is None:
        yield None
        return
    with lease.beating():
        yield lease.check


class Lease:
    """A lock that is held.

    Args:
        name: of the object.
        tag: what it had when this holder wrote it.
        holder: a name that nobody else has.
        began: when that was, or a little before.
    """

    def __init__(self, name: str, tag: str, holder: str, began: float) -> None:
        self._name, self._tag, self._holder = name, tag, holder
        self._count, self._heard = 0, began
        self._lost = False
        self._over = threading.Event()

    def check(self) -> None:
        """Raise where the lock is not held for certain.

        Raises:
            LakeError: naming the lake.
        """
        if self._lost or now() - self._heard > LASTS / 2:
            raise LakeError(
                f"{self._name}: the lock of the lake is lost, as the bucket could not be written for too long, or this "
                "process slept. Nothing of this build is visible; build again."
            )

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life until this is over, and let go then."""
        heart = threading.Thread(target=self._beat, daemon=True)
        heart.start()
        try:
            yield
        finally:
            self._over.set()
            heart.join()
            # Where this fails, who comes next waits until the lease is over.
            with suppress(StorageError):
                if not self._lost:
                    storage.write_if(self._name, _content("", self._count), self._tag)

    def _beat(self) -> None:
        while not self._over.wait(_BEATS):
            self._count += 1
            with suppress(StorageError):
                self._sign()
            if self._lost:
                return

    def _sign(self) -> None:
        began = now()
        found = storage.write_if(self._name, _content(self._holder, self._count), self._tag)
        if found is not None and now() - began < LASTS / 2:
            self._tag, self._heard = found.tag, began
        elif mine := self._mine():
            # An answer was lost before, or came late. The next sign of life counts.
            self._tag = mine.tag
        else:
            self._lost = True

    def _mine(self) -> Found | None:
        """Look at the object; nothing where it was not this holder that wrote it last."""
        found = storage.look(self._name)
        return found if found is not None and _holder(self._name) == self._holder else None


def now() -> float:
    """Tell the seconds by which leases are measured."""
    return time.clock_gettime(_CLOCK)


def _taken(name: str) -> Lease | None:
    holder = uuid.uuid4().hex
    found = storage.look(name)
    if found is not None and not _is_free(name, found.tag):
        return None
    began = now()
    taken = storage.write_if(name, _content(holder, 0), found.tag if found else None)
    _watched.pop(name, None)
    # Where it took so long, somebody else may have taken it over since: then it is waited for like any other.
    return Lease(name, taken.tag, holder, began) if taken and now() - began < LASTS / 2 else None


def _is_free(name: str, tag: str) -> bool:
    known, since = _watched.setdefault(name, (tag, now()))
    if known != tag:
        _watched[name] = (tag, now())
    elif now() - since > LASTS:
        return True
    return _holder(name) == ""


def _holder(name: str) -> str | None:
    """Read who holds the lock: empty for nobody; None where that cannot be told."""
    try:
        return str(json.loads(storage.read(name))["holder"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _content(holder: str, count: int) -> bytes:
    """What the lock says: who holds it, if anybody, and a number that makes each writing another."""
    return json.dumps({"holder": holder, "count": count, "nonce": uuid.uuid4().hex}).encode()
