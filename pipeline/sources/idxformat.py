"""The IDX format: arrays of numbers behind a header that says their type and shape.

References:
    The format is described on the page of the MNIST database (LeCun, Cortes, Burges): two zero bytes, the type code,
    the number of dimensions, then big-endian uint32 sizes and the data.
"""

import re
import struct
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from pipeline.errors import SourceError
from pipeline.sources.source import DAMAGED, Source, one_line

UBYTE = np.dtype(np.uint8)
# The first bytes of an IDX file.
HEAD = re.compile(rb"\0\0[\x08\x09\x0b-\x0e][\1-\4]")

_TYPES: dict[int, np.dtype[Any]] = {
    0x08: UBYTE,
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_PIECE = 2**20


class Header(NamedTuple):
    """What an IDX file says of its array: type and shape."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def read_header(source: Source, file: Path, stream: IO[bytes]) -> Header:
    """Read a header; the stream then stands at the first value.

    Raises:
        SourceError: the file is no IDX file, or is damaged.
    """
    zero, kind, rank = struct.unpack(">HBB", take(source, file, stream, 4))
    if zero or kind not in _TYPES or not rank:
        raise SourceError(
            f"{source.title}: {file} is no IDX file (its first bytes say type {kind:#04x}, {rank} dimensions). Check "
            "that it is the right one."
        )
    return Header(_TYPES[kind], struct.unpack(f">{rank}I", take(source, file, stream, 4 * rank)))


def take(source: Source, file: Path, stream: IO[bytes], size: int) -> bytearray:
    """Read so many bytes.

    Raises:
        SourceError: there are fewer, or the file is damaged.
    """
    data = bytearray()
    # In pieces: a header that lies would have all that it promises set aside at once.
    while len(data) < size and (piece := _read(source, file, stream, min(size - len(data), _PIECE))):
        data += piece
    if len(data) != size:
        raise SourceError(
            f"{source.title}: {file} is cut short: {size} bytes expected, {len(data)} found. Fetch it again."
        )
    return data


def check_end(source: Source, file: Path, stream: IO[bytes], count: int) -> None:
    """Check that nothing follows the last entry.

    Raises:
        SourceError: something does, or the file is damaged.
    """
    # The read behind the last byte is also what checks the checksum of a gzipped file.
    if _read(source, file, stream, 1):
        raise SourceError(f"{source.title}: {file} goes on behind its {count} entries: it is damaged. Fetch it again.")


def _read(source: Source, file: Path, stream: IO[bytes], size: int) -> bytes:
    try:
        return stream.read(size)
    except DAMAGED as error:
        raise SourceError(
            f"{source.title}: {file} is damaged or cut short ({one_line(error)}). Fetch it again."
        ) from error
