"""Read the headers of a tar archive as fast as it is decompressed.

Plain headers of regular files, which are nearly all headers in archives of images, are read in runs of thousands: a
loop follows their sizes, and NumPy checks them together. All other headers (folders, links, long names, sparse files,
unusual numbers) are read by the standard library's `tarfile`. tests/sources/archives/test_tar_walk.py compares both.
"""

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.source import DAMAGED, readable_name

# Bytes read at a time: large enough for the decompressor, small enough for the processor's cache.
CHUNK = 2**20
# Bytes of one read: if a stream is damaged, the bytes after the last complete read are lost.
_READ_BYTES = 2**16
# Longer gaps in a seekable file are skipped by seeking, not by reading.
_SEEK_BYTES = 2**20


class StreamBuffer(io.RawIOBase):
    """A moving part of a stream in memory; also a file object for `tarfile` that only reads forward.

    Args:
        stream: a binary stream.
        check: called with the number of bytes read so far, after every read.
        max_read: most bytes of one `read`: a wrong size in a header must not take all memory.

    Attributes:
        data: bytes of the stream from `start` on.
        start: position of the first byte of `data`.
    """

    def __init__(self, stream: io.BufferedIOBase, check: Callable[[int], None], max_read: int) -> None:
        self.data = b""
        self.start = 0
        self._stream, self._check, self._max_read = stream, check, max_read
        self._position = 0
        self._failure: Exception | None = None

    def load(self, start: int, stop: int) -> bool:
        """Load a range into memory, and drop the bytes before it.

        Args:
            start: not before `self.start`.
            stop: position after the last byte of the range.

        Returns:
            Whether the stream reaches `stop`.

        Raises:
            OSError: or another of DAMAGED: the stream is damaged before `stop`.
        """
        if start < self.start:
            raise ValueError(f"position {start} is no longer in the buffer, which starts at {self.start}")
        if stop <= self.start + len(self.data):
            return True
        self._drop(start)
        pieces, held = [self.data], len(self.data)
        enough = max(stop - self.start, CHUNK)
        while held < enough and (piece := self._read(_READ_BYTES)):
            pieces.append(piece)
            held += len(piece)
        self._check(self.start + held)
        self.data = b"".join(pieces)
        if self.start + held < stop and self._failure is not None:
            raise self._failure
        return self.start + held >= stop

    def _read(self, size: int) -> bytes:
        """Read more bytes; none at the end of the stream. `load` raises the error of a damaged stream if needed."""
        if self._failure is None:
            try:
                # Not `read`, which loses the bytes before the damage.
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
        if gap > _SEEK_BYTES and isinstance(self._stream, io.BufferedReader) and self._stream.seekable():
            # Reading after the end of a file returns nothing, as with a stream.
            self._stream.seek(gap, io.SEEK_CUR)
            self.start = start
            return
        while self.start < start and (piece := self._read(min(_READ_BYTES, start - self.start))):
            self.start += len(piece)
            self._check(self.start)
        # If the stream has ended, later reads return nothing.
        self.start = start

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: seeking forward works."""
        return True

    def tell(self) -> int:
        """Return the position of the next `read`."""
        return self._position

    def seek(self, at: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next `read`, from the start of the stream."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        self._position = at
        return at

    def read(self, size: int = -1) -> bytes:
        """Read from the position; fewer bytes only at the end of the stream.

        Raises:
            OSError: `size` is larger than `max_read`.
        """
        if not 0 <= size <= self._max_read:
            raise OSError(f"a header of {size} bytes")
        self.load(self._position, self._position + size)
        begin = self._position - self.start
        found = self.data[begin : begin + size]
        self._position += len(found)
        return found


_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_PAX = ord("x")
# Values of the eleven octal digits of a size.
_OCTAL_WEIGHTS = 8.0 ** np.arange(10, -1, -1)
# A PAX record of a time; some tools write a PAX header with only times before every file.
_TIME_RECORD = re.compile(rb"(\d+) [mac]time=-?[0-9.]+\n")
# The usual form of the checksum: six octal digits and a NUL.
_CHECKSUM_SHIFTS = np.arange(15, -1, -3, dtype=np.uint32)


FOLDER, HARD_LINK = "folder", "hard link"


class Header(NamedTuple):
    """A single member.

    Attributes:
        name: as in the archive; bytes that are not UTF-8 are surrogate escapes.
        size: bytes of content.
        content: position of the first byte of content.
        next_header: position of the next header.
        kind: empty for a regular file; FOLDER; HARD_LINK; else a description for a reject.
        target: name of the target of a hard link, as in the archive.
    """

    name: str
    size: int
    content: int
    next_header: int
    kind: str
    target: str = ""


class Run(NamedTuple):
    """Consecutive regular files: name, bytes of content, and position of the first byte of content of each."""

    names: list[str]
    sizes: list[int]
    contents: list[int]


def walk_headers(buffer: StreamBuffer, *, content: bool) -> Iterator[Run | Header]:
    """Yield the headers of an archive, from the start of the buffer to the end mark.

    Args:
        buffer: the archive.
        content: whether the content of a run is in the buffer when the run is yielded. The content of a single header
            is loaded by the caller.

    Raises:
        tarfile.TarError: a header is damaged or missing, or the archive continues after its end mark.
    """
    at = 0
    global_records: dict[str, str] = {}
    while True:
        if not buffer.load(at, at + _BLOCK):
            found = "truncated header" if buffer.data else "empty header"
            raise tarfile.ReadError(f"{found} where the next file or the end mark should be")
        run, next_header = _read_run(buffer, at, content=content)
        if run.names:
            yield run
        elif next_header == at:
            begin = at - buffer.start
            if buffer.data[begin : begin + _BLOCK] == _ZEROS:
                break
            header = _read_with_tarfile(buffer, at, global_records)
            next_header = header.next_header
            yield header
        at = next_header
    _check_end(buffer, at)


def _read_run(buffer: StreamBuffer, at: int, *, content: bool) -> tuple[Run, int]:
    """Read the plain headers in the buffer, from a position on.

    Returns:
        The run, empty if the first header is not plain, and the position after it.
    """
    data, start = buffer.data, buffer.start
    if start % _BLOCK:
        return Run([], [], []), at
    blocks = np.frombuffer(data, np.uint8, len(data) // _BLOCK * _BLOCK).reshape(-1, _BLOCK)
    first = (at - start) // _BLOCK
    met, sizes, next_header = _follow_sizes(blocks[first:], len(data) - first * _BLOCK if content else None)
    if not met:
        return Run([], [], []), at
    headers = blocks[first:][met]
    good = _are_valid(headers)
    if not good.all():
        keep = int(good.argmin())
        next_header, headers, sizes, met = met[keep], headers[:keep], sizes[:keep], met[:keep]
    files = headers[:, 156] != _PAX
    if len(files) and not files[-1]:  # the PAX header of a file that is not in the run
        next_header = met[-1]
    contents = at + (np.array(met)[files] + 1) * _BLOCK
    return Run(_decode_names(headers[files]), sizes[files].tolist(), contents.tolist()), at + next_header * _BLOCK


def _follow_sizes(blocks: NDArray[np.uint8], end: int | None) -> tuple[list[int], NDArray[np.int64], int]:
    """Follow the sizes from header to header.

    All blocks are parsed as headers at once, so that each step is a look-up in a list. The walk stops before the first
    header that is neither of a regular file nor a PAX header with only times.

    Args:
        blocks: (n, 512) uint8; the first block is a header.
        end: bytes within which content must end; None for no limit.

    Returns:
        Indices of the header blocks, their sizes, and the index of the block after the last file.
    """
    digits = blocks[:, 124:135] - np.uint8(ord("0"))
    numbers = digits.max(axis=1) < 8  # noqa: PLR2004 - octal; what is below "0" wraps around to more
    # Exact: eleven octal digits are far below 2**53.
    sizes = (digits.astype(np.float64) @ _OCTAL_WEIGHTS).astype(np.int64)
    here = np.arange(len(blocks))
    if end is not None:
        numbers &= (here + 1) * _BLOCK + sizes <= end
    kinds = blocks[:, 156]
    plain = (numbers & ((kinds == ord("0")) | (kinds == 0))).tolist()
    times = (numbers & (kinds == _PAX)).tolist()
    behind = (here + 1 + (sizes + _BLOCK - 1) // _BLOCK).tolist()
    met: list[int] = []
    at = 0
    while at < len(blocks) and (plain[at] or (times[at] and _has_only_times(blocks[at + 1 :], sizes[at]))):
        met.append(at)
        at = behind[at]
    return met, sizes[met], at


def _has_only_times(blocks: NDArray[np.uint8], length: int) -> bool:
    records = blocks[: -(-length // _BLOCK)].tobytes()[:length]
    found = list(_TIME_RECORD.finditer(records))
    return sum(len(m[0]) for m in found) == length > 0 and all(int(m[1]) == len(m[0]) for m in found)


def _are_valid(headers: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which headers have a right checksum, and no name or size that only tarfile can read."""
    field = headers[:, 148:156]
    # The checksum is the sum of all bytes, with its own eight bytes as spaces.
    added = headers.sum(axis=1, dtype=np.uint32) - field.sum(axis=1, dtype=np.uint32) + np.uint32(8 * ord(" "))
    digits = ((added[:, None] >> _CHECKSUM_SHIFTS) & 7) + ord("0")
    right = (digits == field[:, :6]).all(axis=1) & (field[:, 6] == 0)
    ended = (headers[:, 135] == 0) | (headers[:, 135] == ord(" "))
    # Only POSIX headers have a prefix of the name.
    posix = (headers[:, 257:263] == np.frombuffer(b"ustar\0", np.uint8)).all(axis=1)
    last = np.count_nonzero(headers[:, :100], axis=1) - 1
    folder = headers[np.arange(len(headers)), last] == ord("/")
    good: NDArray[np.bool_] = right & ended & ~folder & ((headers[:, 345] == 0) | posix)
    return good


def _decode_names(headers: NDArray[np.uint8]) -> list[str]:
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
    # Decode each by itself if one is not UTF-8 or contains a line feed.
    return text if len(text) == len(names) else [name.decode("utf-8", "surrogateescape") for name in names]


def _read_with_tarfile(buffer: StreamBuffer, at: int, global_records: dict[str, str]) -> Header:
    """Read a member, with all its headers, with tarfile.

    Args:
        buffer: the archive.
        at: position of its first header.
        global_records: PAX records for all following members; updated.
    """
    buffer.seek(at)
    reader: Any = tarfile.TarFile
    archive = reader(
        fileobj=buffer, mode="r", tarinfo=_StrictHeader, errors="surrogateescape", pax_headers=global_records
    )
    info = archive.firstmember
    if archive.offset <= at or info.size < 0:
        raise tarfile.ReadError(f"the member at byte {at} has a size below nothing")
    kind, target = _kind(info), info.linkname
    return Header(info.name, info.size, info.offset_data, archive.offset, kind, target if kind == HARD_LINK else "")


class _StrictHeader(tarfile.TarInfo):
    """A header that must exist: tarfile takes a missing or damaged one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _BAD_HEADER as error:
            raise _READ_ERROR(f"{error} where the next file or the end mark should be") from error

    def _proc_member(self, tarfile: tarfile.TarFile) -> Any:  # noqa: ANN401 - as in the standard library
        """Refuse a header that tarfile would read into memory and that no archive has: a path of many MiB."""
        if self.type in _EXTENSIONS and self.size > _MAX_EXTENSION:
            raise _READ_ERROR(f"a header of {self.size} bytes")
        return super()._proc_member(tarfile)  # type: ignore[misc] # the method that chooses how to read a header


# Headers that hold the path or other values of the next file, and the most bytes of one.
_EXTENSIONS = (b"L", b"K", b"x", b"g", b"X")
_MAX_EXTENSION = 2**20
# The argument of `fromtarfile` has the name of the module.
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
    """Return why a symbolic link of an archive is not read."""
    return f"a symbolic link to {target}: links of an archive are not followed"


def _check_end(buffer: StreamBuffer, at: int) -> None:
    """Check that only zeros follow the end mark; this also reads the checksum of a compressed archive."""
    while buffer.load(at, at + 1):
        rest = buffer.data[at - buffer.start :]
        if rest.strip(b"\0"):
            raise tarfile.ReadError("it continues after its end mark: two archives in one file?")
        at += len(rest)
