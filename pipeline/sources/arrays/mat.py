"""MATLAB 5 files (.mat), as notMNIST and SVHN are published: an array of images and one of labels.

The last axis counts pictures: images are (height, width, n) or (height, width, channels, n), labels (n, 1) or (1, n).
See `named` for which arrays they are, and `stored` for what they hold. Labels stay the numbers that they are: SVHN's
"10" is the digit 0.

Values stream out of the file; MATLAB 7.3 writes another format, HDF5, which is not read.

The MATLAB 5 format (.mat of MATLAB 5 to 7.2), from a stream: SciPy's reader wants a whole array in memory.

A file is a header of 128 bytes and elements: a tag of type and size, and data. A variable is an element of elements:
flags, dimensions, name, values; it may be one zlib stream. Values lie in Fortran order, so that the last axis of an
array can be cut into runs. MATLAB stores whole numbers of a double array in the smallest type that holds them.

References:
    MAT-File Format, The MathWorks, chapter 1, "Level 5 MAT-File Format".
"""

import math
import struct
import zlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Survey
from pipeline.sources.arrays.array_names import choose_images, choose_labels, splits_of_arrays, unread_arrays
from pipeline.sources.arrays.array_values import Stored, Values, shards, title_of
from pipeline.sources.arrays.npz import Readable, take
from pipeline.sources.source import DAMAGED, Source, files_fingerprint, one_line, opened

NEWER = 0x0200  # version of a file that is HDF5 behind its first 512 bytes
_VERSION = 0x0100
_ORDERS = {b"IM": "<", b"MI": ">"}
_HEADER = 128

_MATRIX, _COMPRESSED = 14, 15
# Types of elements, and classes of arrays, that hold plain numbers.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHERS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", 17: "object"}
_OPAQUE = 17
_COMPLEX, _LOGICAL = 0x0800, 0x0200
# No real variable has more dimensions than fit, or a longer name.
_LONGEST = 256
_PIECE = 2**16


class Variable(NamedTuple):
    """A variable of a file.

    Attributes:
        name: its name.
        shape: its dimensions as MATLAB counts them; empty for some objects.
        dtype: type of its values in MATLAB, native order; bool if logical, object where they are no real numbers.
        kind: what MATLAB calls that.
        start: where its element begins in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: str
    start: int


def read_order(head: bytes) -> str:
    """Tell the byte order from a file's first 128 bytes, "<" or ">"; empty if it is not of MATLAB 5 or later."""
    return _ORDERS.get(head[126:128], "") if head.startswith(b"MATLAB ") else ""


def read_version(head: bytes) -> int:
    """Tell the version of a file that has a byte order: NEWER for the HDF5 of MATLAB 7.3."""
    return int(struct.unpack(f"{read_order(head)}H", head[124:126])[0])


def list_variables(stream: IO[bytes]) -> list[Variable]:
    """List the variables of a file.

    Args:
        stream: the file, at its start; it must be able to seek.

    Raises:
        ValueError: the file is damaged, cut short, or no MATLAB 5 file; or what the stream raises.
    """
    order = _order(stream)
    found, start = list[Variable](), _HEADER
    while tag := stream.read(8):
        kind, size = struct.unpack(f"{order}II", tag.ljust(8, b"\0"))
        if len(tag) != 8 or kind not in (_MATRIX, _COMPRESSED) or not size:  # noqa: PLR2004 - bytes of a tag
            raise ValueError(f"no variable at byte {start}")
        found.append(_head(_body(stream, order, kind, size), order, start))
        start += 8 + size
        stream.seek(start - 1)
        if not stream.read(1):
            raise ValueError(f"cut short inside variable '{found[-1].name}'")
    return found


def read_values(stream: IO[bytes], variable: Variable, items: int) -> Iterator[NDArray[Any]]:
    """Stream the values of a variable with real numbers, in runs of so many values, in Fortran order.

    Args:
        stream: the file, at its start; it must be able to seek.
        variable: as listed.
        items: values a run.

    Yields:
        (items,) of the type that they are stored in, which may be smaller than the variable's; the last may be shorter.

    Raises:
        ValueError: the variable is damaged or cut short; or what the stream raises.
    """
    order = _order(stream)
    stream.seek(variable.start)
    outer, length = struct.unpack(f"{order}II", take(stream, 8))
    body = _body(stream, order, outer, length)
    _head(body, order, variable.start)  # which reads past it
    kind, size, small = _tag(body, order)
    dtype = np.dtype(f"{order}{_TYPES.get(kind, 'V')}")
    count = math.prod(variable.shape)
    if dtype.kind == "V" or size != count * dtype.itemsize:
        raise ValueError(f"variable '{variable.name}' has {size} bytes of type {kind} for {count} values")
    for start in range(0, count, items):
        part = min(items, count - start) * dtype.itemsize
        data = take(body, part) if small is None else small[start * dtype.itemsize :][:part]
        yield np.frombuffer(data, dtype)
    if isinstance(body, _Inflated):
        body.check_end()
    elif stream.tell() > variable.start + 8 + length:
        raise ValueError(f"the values of '{variable.name}' go on behind its end")


def _order(stream: IO[bytes]) -> str:
    head = bytes(take(stream, _HEADER))
    order = read_order(head)
    if not order or read_version(head) != _VERSION:
        raise ValueError("its header is of another version")
    return order


def _body(stream: IO[bytes], order: str, kind: int, size: int) -> Readable:
    """Open what is in a variable's element, unpacked."""
    if kind == _MATRIX:
        return stream
    body = _Inflated(stream, size)
    if _tag(body, order)[0] != _MATRIX:
        raise ValueError("a compressed element that is no variable")
    return body


def _head(body: Readable, order: str, start: int) -> Variable:
    """Read flags, dimensions and name; the values come next."""
    flags = struct.unpack(f"{order}I", _data(body, order)[:4].ljust(4, b"\0"))[0]
    number = flags & 0xFF
    if number == _OPAQUE:
        return Variable("?", (), np.dtype(object), _OTHERS[number], start)
    sides = np.frombuffer(_data(body, order), f"{order}i4")
    name = _data(body, order).decode("latin-1")
    if (sides < 0).any():
        raise ValueError(f"variable '{name}' has dimensions {sides.tolist()}")
    dtype = np.dtype(_CLASSES.get(number, object))
    kind = _OTHERS.get(number, dtype.name)
    if flags & _LOGICAL:
        dtype, kind = np.dtype(bool), "logical"
    if flags & _COMPLEX:
        dtype, kind = np.dtype(object), "complex"
    return Variable(name, tuple(sides.tolist()), dtype, kind, start)


def _tag(body: Readable, order: str) -> tuple[int, int, bytes | None]:
    """Read type and size of an element; also its data, if they are so few that they lie in the tag."""
    tag = bytes(take(body, 8))
    kind, size = struct.unpack(f"{order}II", tag)
    if not kind >> 16:
        return kind, size, None
    kind, size = kind & 0xFFFF, kind >> 16
    if size > 4:  # noqa: PLR2004 - bytes of a tag behind type and size
        raise ValueError(f"{size} bytes in a tag that has room for 4")
    return kind, size, tag[4 : 4 + size]


def _data(body: Readable, order: str) -> bytes:
    _, size, small = _tag(body, order)
    if small is not None:
        return small
    if size > _LONGEST:
        raise ValueError(f"flags, dimensions or a name of {size} bytes")
    return bytes(take(body, size + -size % 8)[:size])


class _Inflated:
    """A zlib stream of known size, unpacked as it is read."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left, self._zlib = stream, size, zlib.decompressobj()

    # How many bytes are unpacked is bounded by what is asked for, whatever the stream promises.
    def read(self, size: int, /) -> bytes:
        data = bytearray()
        while len(data) < size and not self._zlib.eof:
            packed = self._zlib.unconsumed_tail or self._stream.read(min(self._left, _PIECE))
            self._left -= 0 if self._zlib.unconsumed_tail else len(packed)
            piece = self._zlib.decompress(packed, size - len(data))
            if not packed and not piece:
                break
            data += piece
        return bytes(data)

    def check_end(self) -> None:
        """Read what pads the last element, and the checksum behind it.

        Raises:
            ValueError: more follows, or less.
        """
        if len(self.read(_PIECE)) >= 8 or not self._zlib.eof:  # noqa: PLR2004 - elements are padded to 8 bytes
            raise ValueError("a compressed variable that does not end with its values")


def recognises(path: Path, head: bytes) -> bool:
    """Tell a file of MATLAB 5 or later by its header; see `pipeline.sources`."""
    return not path.is_dir() and read_order(head) != ""


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time, and which arrays are meant; see `pipeline.sources`."""
    return Survey(digest_of([files_fingerprint(source, source.path), source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the arrays into runs of pictures while they stream past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    arrays = _arrays(source)
    images = choose_images(source, arrays)
    yield from shards(source, fingerprint, images, choose_labels(source, arrays, images), wanted)


def splits_within(source: Source) -> list[str]:
    """Tell the splits of the file's arrays; see `pipeline.sources.forms`."""
    return [] if source.part.images is not None else splits_of_arrays(_arrays(source))


def note(source: Source) -> str:
    """Say what of the file is not read; see `pipeline.sources.forms`."""
    return "" if source.part.images is not None else unread_arrays(_arrays(source))


def _arrays(source: Source) -> list[Stored]:
    with _open(source) as stream:
        return [_stored(source, variable) for variable in list_variables(stream)]


def _stored(source: Source, variable: Variable) -> Stored:
    """See a variable with its last axis in front; of a vector, that is its only one."""
    sides = variable.shape
    # Everything in MATLAB has two dimensions.
    shape = (math.prod(sides),) if len(sides) == 2 and 1 in sides else (*sides[-1:], *sides[:-1])  # noqa: PLR2004
    title = title_of(variable.name, sides, variable.kind)
    return Stored(source.path, variable.name, shape, variable.dtype, title, partial(_runs, source, variable, shape))


def _runs(source: Source, variable: Variable, shape: tuple[int, ...], rows: int) -> Iterator[Values]:
    axes = range(len(shape) - 1, 0, -1)
    with _open(source) as stream:
        for flat in read_values(stream, variable, rows * math.prod(shape[1:])):
            yield flat.reshape(-1, *reversed(shape[1:])).transpose(0, *axes)


@contextmanager
def _open(source: Source) -> Iterator[IO[bytes]]:
    """Open the file, and say of it what is found wrong on the way."""
    try:
        with opened(source, source.path) as stream:
            _check_version(source, stream.read(_HEADER))
            stream.seek(0)
            yield stream
    except SourceError:  # which is a ValueError too
        raise
    except (ValueError, struct.error, *DAMAGED) as error:
        raise SourceError(
            f"{source.title}: {source.path} is damaged, cut short or no MATLAB 5 file ({one_line(error)}). "
            "Fetch it again."
        ) from error


def _check_version(source: Source, head: bytes) -> None:
    if read_order(head) and read_version(head) == NEWER:
        raise SourceError(
            f"{source.title}: {source.path} is of MATLAB 7.3 (HDF5), which is not read. Save it with "
            "save(..., '-v7') in MATLAB or scipy.io.savemat in Python."
        )
