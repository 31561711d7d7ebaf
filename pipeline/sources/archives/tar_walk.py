"""The members of a tar archive, at the speed of what unpacks it.

The plain headers of regular files, nearly all there are in archives of images, are read here by the thousand: a loop
goes from size to size, and numpy checks what it met. Every other header (folders, links, long names, sparse files, odd
numbers) is left to the standard library's `tarfile`, the judge of what a header says. Both find the same:
tests/sources/test_tar_walk.py.

A stream seen through a buffer that moves forward, in the positions of what is streamed.
"""

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.source import DAMAGED, readable_name

# Read at a time: large enough for the decompressor and the walk, small enough to stay in the processor's cache.
CHUNK = 2**20
# Read in pieces: where a stream is damaged, what is behind the last whole piece is lost.
_PIECE = 2**16
# What is skipped in a file that can be sought is not read where it is longer than this.
_WORTH_SEEKING = 2**20


class Window(io.RawIOBase):
    """The part of a stream that is in memory; also a file object that reads forward, for `tarfile`.

    Args:
        stream: a binary stream.
        check: called with the number of bytes read so far, each time more are read.
        longest: most bytes that `read` hands out at once: a header that lies must not take all memory.

    Attributes:
        data: bytes of the stream from `start` on.
        start: position of the first of them.
    """

    def __init__(self, stream: io.BufferedIOBase, check: Callable[[int], None], longest: int) -> None:
        self.data = b""
        self.start = 0
        self._stream, self._check, self._longest = stream, check, longest
        self._at = 0
        self._failure: Exception | None = None

    def reach(self, start: int, stop: int) -> bool:
        """Bring a range into memory, and let go of what is before it.

        Args:
            start: not before `self.start`.
            stop: behind the range's last byte.

        Returns:
            Whether the stream goes as far as `stop`.

        Raises:
            OSError: or any other of DAMAGED, where the stream is damaged before `stop`.
        """
        if start < self.start:
            raise ValueError(f"position {start} is gone: the window starts at {self.start}")
        if stop <= self.start + len(self.data):
            return True
        self._drop(start)
        pieces, held = [self.data], len(self.data)
        enough = max(stop - self.start, CHUNK)
        while held < enough and (piece := self._next(_PIECE)):
            pieces.append(piece)
            held += len(piece)
        self._check(self.start + held)
        self.data = b"".join(pieces)
        if self.start + held < stop and self._failure is not None:
            raise self._failure
        return self.start + held >= stop

    def _next(self, size: int) -> bytes:
        """Read on; nothing at the stream's end. A damaged stream is at its end until somebody asks for what is lost."""
        if self._failure is None:
            try:
                # Not `read`, which would lose what it has read where it trips.
                return self._stream.read1(size)
            except DAMAGED as error:
                self._failure = error
        return b""

    def _drop(self, start: int) -> None:
        gap = start - self.start - len(self.data)
        if gap <= 0:
            self.data = self.data[start - self.start :]
            self.start = start
            return
        self.start, self.data = self.start + len(self.data), b""
        if gap > _WORTH_SEEKING and isinstance(self._stream, io.BufferedReader) and self._stream.seekable():
            # Behind the end of a file nothing is found, as behind the end of a stream.
            self._stream.seek(gap, io.SEEK_CUR)
            self.start = start
            return
        while self.start < start and (piece := self._next(min(_PIECE, start - self.start))):
            self.start += len(piece)
            self._check(self.start)
        # Where the stream ended before, nothing more will come.
        self.start = start

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be sought, forward."""
        return True

    def tell(self) -> int:
        """Position of the next `read`."""
        return self._at

    def seek(self, at: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next `read`, from the start of the stream."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        """Read from the position; fewer bytes only where the stream ends.

        Raises:
            OSError: more is asked for than is read at once.
        """
        if not 0 <= size <= self._longest:
            raise OSError(f"a header of {size} bytes")
        self.reach(self._at, self._at + size)
        begin = self._at - self.start
        found = self.data[begin : begin + size]
        self._at += len(found)
        return found


_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_PAX = ord("x")
# What the eleven octal digits of a size are worth.
_PLACES = 8.0 ** np.arange(10, -1, -1)
# A PAX header that says only when a file was touched, as tar and Python write one before every file.
_TIMES = re.compile(rb"(\d+) [mac]time=-?[0-9.]+\n")
# The usual form of the checksum: six octal digits and a NUL.
_SUM_DIGITS = np.arange(15, -1, -3, dtype=np.uint32)


FOLDER, HARD_LINK = "folder", "hard link"


class Header(NamedTuple):
    """A member by itself.

    Attributes:
        name: as the archive spells it; bytes that are no UTF-8 are surrogate escapes, as in a run.
        size: bytes of content.
        content: position of its first byte of content.
        following: position of the next header.
        kind: empty for a regular file; FOLDER; HARD_LINK; else what it is instead.
        target: what a hard link leads to, as the archive spells it.
    """

    name: str
    size: int
    content: int
    following: int
    kind: str
    target: str = ""


class Run(NamedTuple):
    """Regular files that follow one another: name, bytes of content and position of the first of them."""

    names: list[str]
    sizes: list[int]
    contents: list[int]


def walk(window: Window, *, content: bool) -> Iterator[Run | Header]:
    """Go from header to header, from the window's start to the archive's end mark.

    Args:
        window: the archive.
        content: whether the content of a run is in the window when the run is handed out; that of a single header is
            to be fetched by whoever wants it.

    Raises:
        tarfile.TarError: a header is broken or missing, or the archive goes on behind its end mark.
    """
    at = 0
    shared: dict[str, str] = {}
    while True:
        if not window.reach(at, at + _BLOCK):
            found = "truncated header" if window.data else "empty header"
            raise tarfile.ReadError(f"{found} where the next file or the end mark should be")
        run, following = _run(window, at, content=content)
        if run.names:
            yield run
        elif following == at:
            begin = at - window.start
            if window.data[begin : begin + _BLOCK] == _ZEROS:
                break
            header = _special(window, at, shared)
            following = header.following
            yield header
        at = following
    _check_rest(window, at)


def _run(window: Window, at: int, *, content: bool) -> tuple[Run, int]:
    """Read the plain headers from a position on, as far as they are in the window.

    Returns:
        The run, empty where the first header is not plain, and the position behind it.
    """
    data, start = window.data, window.start
    if start % _BLOCK:
        return Run([], [], []), at
    blocks = np.frombuffer(data, np.uint8, len(data) // _BLOCK * _BLOCK).reshape(-1, _BLOCK)
    first = (at - start) // _BLOCK
    met, sizes, following = _chain(blocks[first:], len(data) - first * _BLOCK if content else None)
    if not met:
        return Run([], [], []), at
    headers = blocks[first:][met]
    good = _whole(headers)
    if not good.all():
        keep = int(good.argmin())
        following, headers, sizes, met = met[keep], headers[:keep], sizes[:keep], met[:keep]
    files = headers[:, 156] != _PAX
    if len(files) and not files[-1]:  # the PAX header of a file that is not of the run
        following = met[-1]
    contents = at + (np.array(met)[files] + 1) * _BLOCK
    return Run(_names(headers[files]), sizes[files].tolist(), contents.tolist()), at + following * _BLOCK


def _chain(blocks: NDArray[np.uint8], end: int | None) -> tuple[list[int], NDArray[np.int64], int]:
    """Go from size to size: the headers met and their sizes, and the block behind the last.

    Every block is read as if it were a header, all at once, so that a step is no more than a look into a list. Stops
    before the first header that is neither a regular file's nor a PAX header of times.

    Args:
        blocks: (n, 512) uint8, the first of them a header.
        end: where content has to end; None where it may lie anywhere.
    """
    digits = blocks[:, 124:135] - np.uint8(ord("0"))
    numbers = digits.max(axis=1) < 8  # noqa: PLR2004 - octal; what is below "0" wraps around to more
    # Exact: eleven octal digits are far below 2**53.
    sizes = (digits.astype(np.float64) @ _PLACES).astype(np.int64)
    here = np.arange(len(blocks))
    if end is not None:
        numbers &= (here + 1) * _BLOCK + sizes <= end
    kinds = blocks[:, 156]
    plain = (numbers & ((kinds == ord("0")) | (kinds == 0))).tolist()
    times = (numbers & (kinds == _PAX)).tolist()
    behind = (here + 1 + (sizes + _BLOCK - 1) // _BLOCK).tolist()
    met: list[int] = []
    at = 0
    while at < len(blocks) and (plain[at] or (times[at] and _only_times(blocks[at + 1 :], sizes[at]))):
        met.append(at)
        at = behind[at]
    return met, sizes[met], at


def _only_times(blocks: NDArray[np.uint8], length: int) -> bool:
    records = blocks[: -(-length // _BLOCK)].tobytes()[:length]
    found = list(_TIMES.finditer(records))
    return sum(len(m[0]) for m in found) == length > 0 and all(int(m[1]) == len(m[0]) for m in found)


def _whole(headers: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which headers have the right checksum, and nothing in their name or size that only tarfile understands."""
    field = headers[:, 148:156]
    # The checksum adds all bytes, its own eight as spaces.
    added = headers.sum(axis=1, dtype=np.uint32) - field.sum(axis=1, dtype=np.uint32) + np.uint32(8 * ord(" "))
    digits = ((added[:, None] >> _SUM_DIGITS) & 7) + ord("0")
    right = (digits == field[:, :6]).all(axis=1) & (field[:, 6] == 0)
    ended = (headers[:, 135] == 0) | (headers[:, 135] == ord(" "))
    # In a header that is not POSIX's the prefix may be something else.
    posix = (headers[:, 257:263] == np.frombuffer(b"ustar\0", np.uint8)).all(axis=1)
    last = np.count_nonzero(headers[:, :100], axis=1) - 1
    folder = headers[np.arange(len(headers)), last] == ord("/")
    good: NDArray[np.bool_] = right & ended & ~folder & ((headers[:, 345] == 0) | posix)
    return good


def _names(headers: NDArray[np.uint8]) -> list[str]:
    names: list[bytes] = np.ascontiguousarray(headers[:, :100]).view("S100").ravel().tolist()
    for row in np.flatnonzero(headers[:, 345]).tolist():
        names[row] = headers[row, 345:500].tobytes().partition(b"\0")[0] + b"/" + names[row]
    joined = b"\n".join(names)
    if b"\0" in joined:
        names = [name.partition(b"\0")[0] for name in names]
        joined = b"\n".join(names)
    try:
        text = joined.decode().split("\n")
    except UnicodeDecodeError:
        text = []
    # Where a name is no UTF-8, or holds a line feed, each for itself.
    return text if len(text) == len(names) else [name.decode("utf-8", "surrogateescape") for name in names]


def _special(window: Window, at: int, shared: dict[str, str]) -> Header:
    """Have tarfile read a member, with all headers that belong to it.

    Args:
        window: the archive.
        at: position of its first header.
        shared: PAX records that hold for all members to come; added to.
    """
    window.seek(at)
    reader: Any = tarfile.TarFile
    archive = reader(fileobj=window, mode="r", tarinfo=_StrictHeader, errors="surrogateescape", pax_headers=shared)
    info = archive.firstmember
    if archive.offset <= at or info.size < 0:
        raise tarfile.ReadError(f"the member at byte {at} has a size below nothing")
    kind, target = _kind(info), info.linkname
    return Header(info.name, info.size, info.offset_data, archive.offset, kind, target if kind == HARD_LINK else "")


class _StrictHeader(tarfile.TarInfo):
    """A header that must be there: tarfile takes a missing or broken one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _BAD_HEADER as error:
            raise _READ_ERROR(f"{error} where the next file or the end mark should be") from error


# The argument of `fromtarfile` is called like the module.
_BAD_HEADER, _READ_ERROR = tarfile.HeaderError, tarfile.ReadError


def _kind(info: tarfile.TarInfo) -> str:
    if info.isdir():
        return FOLDER
    if info.islnk():
        return HARD_LINK
    if info.issym():
        return symbolic_link(readable_name(info.linkname))
    if info.issparse():
        return "a sparse file: unpack the archive and name the folder"
    return "" if info.isreg() else "a device or pipe in the archive"


def symbolic_link(target: str) -> str:
    """Say why a symbolic link of an archive is not read."""
    return f"a symbolic link to {target}: links of an archive are not followed"


def _check_rest(window: Window, at: int) -> None:
    """Read what follows the end mark: padding, and the checksum of a compressed archive."""
    while window.reach(at, at + 1):
        rest = window.data[at - window.start :]
        if rest.strip(b"\0"):
            raise tarfile.ReadError("it goes on behind its end mark: two archives in one file?")
        at += len(rest)
