"""Decoded pixels of a feed on local disk, so that a role larger than its buffer is decoded once, not in every epoch.

The file has no name: the system frees it with the last process that has it open, however that process ends.
"""

import errno
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from functools import cached_property
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline import arguments
from pipeline.errors import FeedError
from pipeline.pixels import Located

SPILL_BYTES = 2**36
_DIGEST_BYTES = 8
# A system call reads or writes 2 GiB at most.
_CALL_BYTES = 2**30
_ON_DISK = "/var/tmp"  # noqa: S108 - the file in it has no name


class SpillFile:
    """A temporary file without a name, opened by the first use.

    It is on the disk of TMPDIR or, without that, of /var/tmp: /tmp is in memory on many systems. Workers of
    `multiprocessing` share the file that the process which starts them has open. Any other copy has a file of its own.

    Args:
        most_bytes: the file gets no larger, and takes at most half of the space that is free when it is opened.

    Raises:
        FeedError: `most_bytes` is negative.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = arguments.whole_number("spill_bytes", most_bytes)
        if self.most_bytes < 0:
            raise FeedError(f"spill_bytes is {self.most_bytes}; it must be 0 (no file) or more")
        self._opened: int | None = None

    def open(self) -> int | None:
        """Return the descriptor of the file; None without one: nothing is to be kept, or no folder can be written."""
        # Windows has no reads at an offset.
        if self._opened is None and self.most_bytes and hasattr(os, "preadv"):
            try:
                with tempfile.TemporaryFile(dir=disk_folder(), prefix="imagelake-spill-") as file:
                    self.most_bytes = min(self.most_bytes, shutil.disk_usage(file.fileno()).free // 2)
                    self._keep(os.dup(file.fileno()))
            except OSError:
                self.most_bytes = 0
        return self._opened

    def give_up(self) -> None:
        """Free the disk, and write no more. What other processes read then fails its digest."""
        self.most_bytes = 0
        if self._opened is not None:
            with suppress(OSError):
                os.truncate(self._opened, 0)

    def _keep(self, descriptor: int) -> None:
        self._opened = descriptor
        weakref.finalize(self, os.close, descriptor)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {"most_bytes": self.most_bytes, "shared": None}
        if self._opened is not None and get_spawning_popen() is not None:
            from multiprocessing.reduction import DupFd  # noqa: PLC0415 - Windows has none

            state["shared"] = DupFd(self._opened)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.most_bytes, self._opened = state["most_bytes"], None
        if state["shared"] is not None:
            self._keep(state["shared"].detach())


def disk_folder() -> str:
    named = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return _ON_DISK if not named and os.access(_ON_DISK, os.W_OK) else tempfile.gettempdir()


class SpilledGroups:
    """The images of a role in a spill file, by row group; see `pipeline.pixels.DecodedGroups`.

    The file has a digest of each row group's pixels, 0 if they are not there, and then the pixels in file order. Row
    groups that lie beyond the largest size are never written.

    Args:
        file: where to keep them.
        where: all images of the role, in file order.
    """

    def __init__(self, file: SpillFile, where: Located) -> None:
        self._file, self._where = file, where

    @cached_property
    def _edges(self) -> NDArray[np.int64]:
        """Return where each row group starts among the images, and where the last one ends."""
        return np.searchsorted(self._where.group, np.arange(len(self._where.groups) + 1))

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        """Return where each row group starts in the file, and where the last one ends."""
        ends = np.concatenate([[0], np.cumsum(self._where.sizes)])
        return len(self._where.groups) * _DIGEST_BYTES + ends[self._edges]

    def read(self, group: int, rows: NDArray[np.integer[Any]], out: NDArray[np.uint8]) -> bool:
        """Read the pixels of rows of a row group, ascending, one after the other; False if they are not there."""
        file = self._file.open()
        if file is None:
            return False
        first, last = self._edges[group : group + 2]
        start, stop = self._offsets[group : group + 2].tolist()
        whole = out if len(rows) == last - first else np.empty(stop - start, np.uint8)
        digest = np.zeros(1, np.uint64)
        try:
            _read(file, digest.view(np.uint8), group * _DIGEST_BYTES)
            if not digest[0]:
                return False
            _read(file, whole, start)
        except OSError:
            return False
        if _digest(whole) != digest[0]:
            return False
        if whole is not out:
            wanted = np.isin(self._where.row[first:last], rows)
            # Not np.compress: it would make an index of eight bytes for every byte.
            out[:] = whole[np.repeat(wanted, self._where.sizes[first:last])]
        return True

    def write(self, group: int, rows: NDArray[np.integer[Any]], pixels: NDArray[np.uint8]) -> None:
        """Keep the pixels of rows of a row group, ascending, if these are all its images and there is space."""
        file = self._file.open()
        first, last = self._edges[group : group + 2]
        start, stop = self._offsets[group : group + 2].tolist()
        if file is None or len(rows) < last - first or stop > self._file.most_bytes:
            return
        try:
            _write(file, pixels, start)
            _write(file, np.array([_digest(pixels)], np.uint64).view(np.uint8), group * _DIGEST_BYTES)
        except OSError:
            # The disk is full or broken: the feed goes on without it.
            self._file.give_up()


def _digest(pixels: NDArray[np.uint8]) -> int:
    return xxhash.xxh3_64_intdigest(pixels.data) or 1


def _read(file: int, out: NDArray[np.uint8], offset: int) -> None:
    done = 0
    while done < len(out):
        count = os.preadv(file, [out[done : done + _CALL_BYTES].data], offset + done)
        if not count:
            raise OSError(errno.ENODATA, "the spill file ends here")
        done += count


def _write(file: int, values: NDArray[np.uint8], offset: int) -> None:
    done = 0
    while done < len(values):
        done += os.pwrite(file, values[done : done + _CALL_BYTES].data, offset + done)
