"""NumPy's .npz and .npy: an array of images and one of labels (see `named` and `stored` for which, and what they hold).

Nothing is ever unpickled. Arrays stream out of the archive in runs of rows; one in Fortran order is read whole, and
refused beyond 1 GiB. A .npy is one array of images.

The recipe's `labels` names an array of the file, or another .npy or .npz beside it that holds one array. Without it,
the labels of a .npy are those beside it (see `beside`): `y_train.npy` for `x_train.npy`. Numbers become the names of
their classes where an array has these (see `class_names`).

The .npy format, from a stream: NumPy's own reader wants a file to seek in, or the whole array at once.

References:
    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import ast
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Survey
from pipeline.sources.arrays.array_names import choose_images, choose_labels, splits_of_arrays, unread_arrays
from pipeline.sources.arrays.array_values import Stored, Values, listed, shards, title_of
from pipeline.sources.arrays.companions import Beside, choose_names, exported_with, is_npy, look_beside
from pipeline.sources.source import Source, files_fingerprint, one_line, opened, readable_name

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


_ZIP = b"PK\3\4"
_MEMBER = ".npy"
_KINDS = {"O": "Python objects or records", "S": "text", "U": "text"}
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, IndexError, struct.error, OSError)


def recognises(path: Path, head: bytes) -> bool:
    """Tell a .npy by its first bytes, a .npz by the name of its first member; see `pipeline.sources`."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return not path.is_dir() and (head.startswith(MAGIC) or (head.startswith(_ZIP) and name.endswith(b".npy")))


def survey(source: Source) -> Survey:
    """Fingerprint the files by size and time, and which arrays are meant; see `pipeline.sources`."""
    files = files_fingerprint(source, source.path, *companions(source))
    return Survey(digest_of([files, source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the arrays into runs of pictures while they stream past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    arrays = _arrays(source, source.path)
    one = len(arrays) == 1 and source.part.images is None
    # Of a single array, the name says nothing that the recipe does not say better.
    images = arrays[0] if one else choose_images(source, arrays)
    beside = _look_beside(source)
    labels = _labels(source, arrays, images, beside)
    listed_names = [_stored_alone(source, file) for file in beside.names]
    names = choose_names([*arrays, *filter(None, listed_names)], images, labels)
    last = _is_exported(images, {array.name for array in arrays})
    yield from shards(source, fingerprint, images, labels, wanted, names=names, channels_last=last)


def splits_within(source: Source) -> list[str]:
    """Tell the splits of the file's arrays; see `pipeline.sources.forms`."""
    return [] if source.part.images is not None else splits_of_arrays(_arrays(source, source.path))


def note(source: Source) -> str:
    """Say what of the file is not read; see `pipeline.sources.forms`."""
    return "" if source.part.images is not None else unread_arrays(_arrays(source, source.path))


def companions(source: Source) -> list[Path]:
    """List the files beside a source that belong to it: labels, names of classes, and the rest of an export.

    Raises:
        SourceError: the folder cannot be listed.
    """
    beside, asked = _look_beside(source), _beside(source)
    labels = [asked] if asked else beside.labels
    return sorted({*labels, *beside.names, *exported_with(source.path)})


def _labels(source: Source, arrays: list[Stored], images: Stored, beside: Beside) -> Stored | None:
    asked = _beside(source)
    if asked is None or source.part.labels in {array.name for array in arrays}:
        alone = source.part.labels is None and is_npy(source.path.name)
        return _found_beside(source, beside) if alone else choose_labels(source, arrays, images)
    if source.prefix:
        raise SourceError(
            f"{source.title}: labels names one file, {asked.name}, for every file of a pattern. Name each file by a "
            "[[source]] of its own."
        )
    return _only(source, asked)


def _found_beside(source: Source, beside: Beside) -> Stored | None:
    """Find the labels of a .npy.

    Raises:
        SourceError: several files may hold them, or one of a kind that is not read, or one that holds several arrays.
    """
    if len(beside.labels) == 1:
        return _only(source, beside.labels[0])
    if files := beside.labels or beside.unread:
        names = ", ".join(file.name for file in files)
        raise SourceError(
            f"{source.title}: {names} beside {source.path} may hold its labels. Name a .npy, or a .npz of one array, "
            'with labels = "..." in the recipe, or none with labels = "".'
        )
    return None


def _look_beside(source: Source) -> Beside:
    # A file that was fetched is alone in its folder of the cache.
    usual = is_npy(source.path.name) and "://" not in source.uri and source.part.labels != ""
    return look_beside(source) if usual else Beside([], [], [])


def _stored_alone(source: Source, file: Path) -> Stored | None:
    """See the array of a file that holds one; None where it holds several, or is damaged."""
    try:
        arrays = _arrays(source, file)
    except SourceError:
        return None
    return arrays[0] if len(arrays) == 1 else None


def _is_exported(images: Stored, names: AbstractSet[str]) -> bool:
    """Tell arrays that `imagelake export` wrote by the names of all of them."""
    if exported_with(images.file):
        return True
    role, _, what = images.name.rpartition("_")
    ids = {f"{role}_ids"} if what == "images" else set()
    return what in ("images", "dataset") and {f"{role}_labels", "classes", *ids} <= names


def _beside(source: Source) -> Path | None:
    """Find the file that the recipe's `labels` may name."""
    file = source.path.parent / (source.part.labels or "")
    return file if source.part.labels and file.is_file() else None


def _only(source: Source, file: Path) -> Stored:
    arrays = _arrays(source, file)
    if len(arrays) != 1:
        raise SourceError(
            f"{source.title}: {file}, which has the labels, must hold one array. It has: {listed(arrays)}. Save the "
            "labels by themselves."
        )
    return arrays[0]


def _arrays(source: Source, file: Path) -> list[Stored]:
    """List the arrays of a .npy or .npz without reading one."""
    with _open(source, file, None) as stream:
        plain = stream.read(len(MAGIC)) == MAGIC
    if plain:
        with _open(source, file, None) as stream:
            return [_stored(source, file, None, read_header(stream))]
    with _naming(source, file, None), zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(_MEMBER)]
        if len(set(names)) < len(names):
            raise ValueError("two arrays have one name")
        return [_stored(source, file, name, _header(source, archive, name)) for name in names]


def _header(source: Source, archive: zipfile.ZipFile, name: str) -> Header:
    with _naming(source, Path(archive.filename or ""), name), archive.open(name) as stream:
        return read_header(stream)


def _stored(source: Source, file: Path, member: str | None, header: Header) -> Stored:
    name = file.name.split(".")[0] if member is None else member.removesuffix(_MEMBER)
    kind = _KINDS.get(header.dtype.kind, header.dtype.name)
    title = title_of(name, header.shape, kind)
    runs = partial(_runs, source, file, member, header)
    return Stored(file, name, header.shape, header.dtype, title, runs)


def _runs(source: Source, file: Path, member: str | None, header: Header, rows: int) -> Iterator[Values]:
    if header.scattered and math.prod(header.shape) * header.dtype.itemsize > FORTRAN_BYTES:
        raise SourceError(
            f"{source.title}: an array {header.shape} of {file} is in Fortran order, which is read "
            "whole, and larger than 1 GiB. Save np.ascontiguousarray of it."
        )
    with _open(source, file, member) as stream:
        read_header(stream)
        yield from read_runs(stream, header, rows)


@contextmanager
def _open(source: Source, file: Path, member: str | None) -> Iterator[IO[bytes]]:
    with _naming(source, file, member):
        if member is None:
            with opened(source, file) as stream:
                yield stream
        else:
            with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
                yield stream


@contextmanager
def _naming(source: Source, file: Path, member: str | None) -> Iterator[None]:
    """Say of which file and array it is what NumPy's formats and the standard library complain about."""
    where = f"{source.title}: {file}" + (f", {' '.join(readable_name(member).split())}," if member else "")
    try:
        yield
    except SourceError:  # which is a ValueError too
        raise
    except _BROKEN as error:
        raise SourceError(f"{where} is damaged or cut short ({one_line(error)}). Fetch it again.") from error
    except RuntimeError as error:  # what zipfile raises on a password, and on a compression that it does not know
        raise SourceError(f"{where} cannot be unpacked ({one_line(error)}). Save it anew with np.savez.") from error
