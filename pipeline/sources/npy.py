"""The .npy format, from a stream: NumPy's own reader wants a file to seek in, or the whole array at once.

References:
    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import ast
import math
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
# An array in Fortran order has the values of one picture spread over all of it: it is read whole, up to this size.
FORTRAN_BYTES = 2**30

# By version: bytes of the header's length, encoding of the header.
_VERSIONS = {(1, 0): (2, "latin-1"), (2, 0): (4, "latin-1"), (3, 0): (4, "utf-8")}
# As NumPy has it: what is longer may take long to parse, and holds no plain array.
_LONGEST = 10_000
_PLAIN = re.compile(r"[<>|=]?[biufcSU]\d{1,6}")
_PYTHON_2 = re.compile(r"(?<=\d)L(?=[,) ])")
_PIECE = 2**20
_BAD_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)


class Readable(Protocol):
    """What can be read in pieces."""

    def read(self, size: int, /) -> bytes:
        """Read so many bytes, or fewer where there are no more for now; none at the end."""
        ...


class Header(NamedTuple):
    """What a .npy file says of its array.

    Attributes:
        shape: its shape.
        fortran: whether its first axis runs fastest.
        dtype: type of its values; object for whatever is neither number nor text.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def scattered(self) -> bool:
        """Whether the values of one row lie far apart."""
        return self.fortran and sum(side != 1 for side in self.shape) > 1


def read_header(stream: IO[bytes]) -> Header:
    """Read a header; the stream then stands at the first value.

    Raises:
        ValueError: the stream holds no .npy file, or what it raises itself.
    """
    if take(stream, len(MAGIC)) != MAGIC:
        raise ValueError("no .npy file: its first bytes are others")
    major, minor = take(stream, 2)
    if (major, minor) not in _VERSIONS:
        raise ValueError(f"version {major}.{minor} of the format is not known")
    width, encoding = _VERSIONS[major, minor]
    length = int.from_bytes(take(stream, width), "little")
    if length > _LONGEST:
        raise ValueError(f"a header of {length} bytes")
    text = take(stream, length).decode(encoding).strip()
    try:
        return _parse(ast.literal_eval(_PYTHON_2.sub("", text)))
    except _BAD_LITERAL as error:
        raise ValueError(f"a header that makes no sense: {text[:60]!r}") from error


def read_runs(stream: IO[bytes], header: Header, rows: int) -> Iterator[NDArray[Any]]:
    """Stream an array whose header was just read, in runs of rows.

    An array that is `scattered` is read whole.

    Raises:
        ValueError: the array is cut short, or goes on behind its last value; or what the stream raises.
    """
    count, *rest = header.shape
    width = math.prod(rest) * header.dtype.itemsize
    starts = range(0, count, rows)
    if header.scattered:
        flat = np.frombuffer(take(stream, count * width), header.dtype)
        yield from (flat.reshape(header.shape, order="F")[start : start + rows] for start in starts)
    else:
        for size in (min(rows, count - start) for start in starts):
            yield np.frombuffer(take(stream, size * width), header.dtype).reshape(size, *rest)
    # The read behind the last byte is also what checks a checksum.
    if stream.read(1):
        raise ValueError(f"it goes on behind its {count} rows")


def take(stream: Readable, size: int) -> bytearray:
    """Read so many bytes.

    Raises:
        ValueError: there are fewer; or what the stream raises.
    """
    data = bytearray()
    # In pieces: a header that lies would have all that it promises set aside at once.
    while len(data) < size and (piece := stream.read(min(size - len(data), _PIECE))):
        data += piece
    if len(data) != size:
        raise ValueError(f"cut short: {size} bytes expected, {len(data)} found")
    return data


def _parse(told: dict[str, Any]) -> Header:
    if not isinstance(told, dict) or told.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("it says other things than descr, fortran_order and shape")
    shape, descr, fortran = told["shape"], told["descr"], told["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("it has no shape")
    plain = isinstance(descr, str) and _PLAIN.fullmatch(descr)
    return Header(shape, bool(fortran), np.dtype(descr if plain else object))
