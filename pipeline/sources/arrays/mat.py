"""Read MATLAB 5 files (.mat), as notMNIST and SVHN are published: an array of images and one of labels, streamed.

The last axis counts images: images are (height, width, n) or (height, width, channels, n), labels (n, 1) or (1, n).
`array_selection` chooses the arrays; `array_shards` converts their values. Labels stay the numbers in the file: SVHN's
"10" is the digit 0. MATLAB 7.3 writes HDF5, which is not read. See docs/decisions/0024-array-readers.md for why the
reader is our own.

A file is a header of 128 bytes and elements; an element is a tag of type and size, and data. A variable is an element
of elements: flags, dimensions, name, values. It may be one zlib stream. Values are in Fortran order, so that the last
axis can be cut into batches. MATLAB stores whole numbers of a double array in the smallest type that holds them.

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

from pipeline.errors import SourceError, one_line
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Survey
from pipeline.sources.arrays.array_selection import choose_images, choose_labels, splits_of_arrays, unread_arrays
from pipeline.sources.arrays.array_shards import (
    Array,
    ByteStream,
    StoredArray,
    array_shards,
    describe_array,
    read_exactly,
)
from pipeline.sources.source import DAMAGED, Source, files_fingerprint, opened

_HEADER_BYTES = 128
_VERSION = 0x0100
_HDF5_VERSION = 0x0200  # MATLAB 7.3: HDF5 follows the first 512 bytes
_BYTE_ORDERS = {b"IM": "<", b"MI": ">"}

_MATRIX, _COMPRESSED = 14, 15
# Types of elements, and classes of arrays, that hold plain numbers.
_ELEMENT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHER_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", 17: "object"}
_OPAQUE = 17
_COMPLEX, _LOGICAL = 0x0800, 0x0200
# Flags, dimensions and names of real variables are shorter, in bytes.
_MAX_FIELD_BYTES = 256
_CHUNK_BYTES = 2**16


class _Variable(NamedTuple):
    """A variable of a file.

    Attributes:
        name: its name.
        shape: its dimensions in MATLAB's order; empty for some objects.
        dtype: type of its values in MATLAB, native byte order; bool if logical, object if they are not real numbers.
        kind: MATLAB's name of the type.
        start: position of its element in the file, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: str
    start: int


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a file of MATLAB 5 or later by its header; see `FormModule`."""
    return not path.is_dir() and _byte_order(head) != ""


def survey(source: Source) -> Survey:
    """Fingerprint the file by size and time, and the chosen arrays by name; see `FormModule`."""
    return Survey(digest_of([files_fingerprint(source, source.path), source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield shards of consecutive images while the arrays stream; see `FormModule`."""
    fingerprint = survey(source).fingerprint
    arrays = _arrays_in(source)
    images = choose_images(source, arrays)
    yield from array_shards(source, fingerprint, images, choose_labels(source, arrays, images), wanted)


def splits_within(source: Source) -> list[str]:
    """List the splits in the names of the file's arrays; see `FormModule`."""
    return [] if source.part.images is not None else splits_of_arrays(_arrays_in(source))


def note(source: Source) -> str:
    """Say which arrays of the file are not read; see `FormModule`."""
    return "" if source.part.images is not None else unread_arrays(_arrays_in(source))


def _arrays_in(source: Source) -> list[StoredArray]:
    with _open_file(source) as stream:
        return [_stored_array(source, variable) for variable in _list_variables(stream)]


def _stored_array(source: Source, variable: _Variable) -> StoredArray:
    """Describe a variable with its last axis first; a vector has only one axis."""
    sides = variable.shape
    # Every MATLAB array has at least two dimensions.
    is_vector = len(sides) == 2 and 1 in sides  # noqa: PLR2004
    shape = (math.prod(sides),) if is_vector else (*sides[-1:], *sides[:-1])
    description = describe_array(variable.name, sides, variable.kind)
    read_batches = partial(_read_batches, source, variable, shape)
    return StoredArray(source.path, variable.name, shape, variable.dtype, description, read_batches)


def _read_batches(source: Source, variable: _Variable, shape: tuple[int, ...], rows: int) -> Iterator[Array]:
    axes = range(len(shape) - 1, 0, -1)
    with _open_file(source) as stream:
        for flat in _read_values(stream, variable, rows * math.prod(shape[1:])):
            yield flat.reshape(-1, *reversed(shape[1:])).transpose(0, *axes)


@contextmanager
def _open_file(source: Source) -> Iterator[IO[bytes]]:
    """Open the file; errors while it is read become SourceError with its name."""
    try:
        with opened(source, source.path) as stream:
            _refuse_hdf5(source, stream.read(_HEADER_BYTES))
            stream.seek(0)
            yield stream
    except SourceError:  # a ValueError too
        raise
    except (ValueError, struct.error, *DAMAGED) as error:
        raise SourceError(
            f"{source.title}: {source.path} is damaged, cut short or not a MATLAB 5 file ({one_line(error)}). "
            "Fetch it again."
        ) from error


def _refuse_hdf5(source: Source, head: bytes) -> None:
    if _byte_order(head) and _version(head) == _HDF5_VERSION:
        raise SourceError(
            f"{source.title}: {source.path} is a MATLAB 7.3 file (HDF5), which cannot be read. Save it with "
            "save(..., '-v7') in MATLAB or scipy.io.savemat in Python."
        )


def _list_variables(stream: IO[bytes]) -> list[_Variable]:
    """List the variables of a file. The stream is at its start and can seek."""
    order = _read_file_header(stream)
    found, start = list[_Variable](), _HEADER_BYTES
    while tag := stream.read(8):
        kind, size = struct.unpack(f"{order}II", tag.ljust(8, b"\0"))
        if len(tag) != 8 or kind not in (_MATRIX, _COMPRESSED) or not size:  # noqa: PLR2004 - bytes of a tag
            raise ValueError(f"no variable at byte {start}")
        found.append(_read_variable_header(_open_variable(stream, order, kind, size), order, start))
        start += 8 + size
        stream.seek(start - 1)
        if not stream.read(1):
            raise ValueError(f"cut short inside variable '{found[-1].name}'")
    return found


def _read_values(stream: IO[bytes], variable: _Variable, count_per_batch: int) -> Iterator[Array]:
    """Stream the values of a variable of real numbers, in Fortran order.

    Args:
        stream: the file, at its start; it can seek.
        variable: one of `_list_variables`.
        count_per_batch: number of values in a batch.

    Yields:
        (count_per_batch,) of the stored type, which may be smaller than the variable's. The last may be shorter.
    """
    order = _read_file_header(stream)
    stream.seek(variable.start)
    outer, length = struct.unpack(f"{order}II", read_exactly(stream, 8))
    body = _open_variable(stream, order, outer, length)
    _read_variable_header(body, order, variable.start)  # skips to the values
    kind, size, small = _read_tag(body, order)
    dtype = np.dtype(f"{order}{_ELEMENT_TYPES.get(kind, 'V')}")
    count = math.prod(variable.shape)
    if dtype.kind == "V" or size != count * dtype.itemsize:
        raise ValueError(f"variable '{variable.name}' has {size} bytes of type {kind} for {count} values")
    for start in range(0, count, count_per_batch):
        part = min(count_per_batch, count - start) * dtype.itemsize
        data = read_exactly(body, part) if small is None else small[start * dtype.itemsize :][:part]
        yield np.frombuffer(data, dtype)
    if isinstance(body, _ZlibStream):
        body.check_end()
    elif stream.tell() > variable.start + 8 + length:
        raise ValueError(f"the values of '{variable.name}' continue past the end of the variable")


def _byte_order(head: bytes) -> str:
    """Return "<" or ">" from the first 128 bytes of a file; "" if it is not a file of MATLAB 5 or later."""
    return _BYTE_ORDERS.get(head[126:128], "") if head.startswith(b"MATLAB ") else ""


def _version(head: bytes) -> int:
    return int(struct.unpack(f"{_byte_order(head)}H", head[124:126])[0])


def _read_file_header(stream: IO[bytes]) -> str:
    """Read the first 128 bytes and return the byte order."""
    head = bytes(read_exactly(stream, _HEADER_BYTES))
    order = _byte_order(head)
    if not order or _version(head) != _VERSION:
        raise ValueError("its header has another version")
    return order


def _open_variable(stream: IO[bytes], order: str, kind: int, size: int) -> ByteStream:
    """Open the element of a variable, decompressed."""
    if kind == _MATRIX:
        return stream
    body = _ZlibStream(stream, size)
    if _read_tag(body, order)[0] != _MATRIX:
        raise ValueError("a compressed element that is not a variable")
    return body


def _read_variable_header(body: ByteStream, order: str, start: int) -> _Variable:
    """Read flags, dimensions and name; the values follow."""
    flags = struct.unpack(f"{order}I", _read_field(body, order)[:4].ljust(4, b"\0"))[0]
    number = flags & 0xFF
    if number == _OPAQUE:
        return _Variable("?", (), np.dtype(object), _OTHER_CLASSES[number], start)
    sides = np.frombuffer(_read_field(body, order), f"{order}i4")
    name = _read_field(body, order).decode("latin-1")
    if (sides < 0).any():
        raise ValueError(f"variable '{name}' has dimensions {sides.tolist()}")
    dtype = np.dtype(_CLASSES.get(number, object))
    kind = _OTHER_CLASSES.get(number, dtype.name)
    if flags & _LOGICAL:
        dtype, kind = np.dtype(bool), "logical"
    if flags & _COMPLEX:
        dtype, kind = np.dtype(object), "complex"
    return _Variable(name, tuple(sides.tolist()), dtype, kind, start)


def _read_tag(body: ByteStream, order: str) -> tuple[int, int, bytes | None]:
    """Read type and size of an element, and its data if the tag holds them (up to 4 bytes)."""
    tag = bytes(read_exactly(body, 8))
    kind, size = struct.unpack(f"{order}II", tag)
    if not kind >> 16:
        return kind, size, None
    kind, size = kind & 0xFFFF, kind >> 16
    if size > 4:  # noqa: PLR2004 - bytes of a tag behind type and size
        raise ValueError(f"{size} bytes in a tag that has room for 4")
    return kind, size, tag[4 : 4 + size]


def _read_field(body: ByteStream, order: str) -> bytes:
    """Read the data of a short element: flags, dimensions or a name."""
    _, size, small = _read_tag(body, order)
    if small is not None:
        return small
    if size > _MAX_FIELD_BYTES:
        raise ValueError(f"flags, dimensions or a name of {size} bytes")
    return bytes(read_exactly(body, size + -size % 8)[:size])


class _ZlibStream:
    """A zlib stream of known compressed size, decompressed while it is read."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left, self._zlib = stream, size, zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        """Decompress up to `size` bytes and not more, whatever the stream promises."""
        data = bytearray()
        while len(data) < size and not self._zlib.eof:
            compressed = self._zlib.unconsumed_tail or self._stream.read(min(self._left, _CHUNK_BYTES))
            self._left -= 0 if self._zlib.unconsumed_tail else len(compressed)
            chunk = self._zlib.decompress(compressed, size - len(data))
            if not compressed and not chunk:
                break
            data += chunk
        return bytes(data)

    def check_end(self) -> None:
        """Read the padding of the last element and the checksum behind it.

        Raises:
            ValueError: more data follow, or the stream is cut short.
        """
        if len(self.read(_CHUNK_BYTES)) >= 8 or not self._zlib.eof:  # noqa: PLR2004 - elements are padded to 8 bytes
            raise ValueError("a compressed variable that does not end with its values")
