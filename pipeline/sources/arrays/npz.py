"""Read NumPy's .npz and .npy: an array of images and one of labels, streamed in batches of rows.

`array_selection` chooses the arrays of a .npz; `array_shards` converts their values. A .npy is one array of images.
The recipe's `labels` names an array of the file, or another .npy or .npz in its folder that holds one array. Without
it, `find_companions` finds the labels of a .npy: `y_train.npy` for `x_train.npy`.

Nothing is ever unpickled. An array in Fortran order is read whole, and refused if it is larger than 1 GiB.

Files in the folder of a .npy belong to its images if their names say so: labels, class names, the rest of an export.
`train_labels.npy` or `y_train.npy` has the labels of `train_images.npy` or `x_train.npy`: it is called like labels, and
the split and the other words of the two names agree. Labels without a split in their name come next. In a folder
without other arrays, `labels.npy` has the labels of `digits.npy`. Class names are in `classes.npy`, `label_names.npy`
and the like (see `array_selection.choose_class_names`).
"""

import io
import lzma
import math
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from pipeline.errors import SourceError, one_line
from pipeline.hashing import digest_of
from pipeline.shard import Encoded, Survey
from pipeline.sources.arrays.array_selection import (
    IMAGE_WORDS,
    choose_class_names,
    choose_images,
    choose_labels,
    split_and_other_words,
    splits_of_arrays,
    subject_of_class_names,
    subject_of_labels,
    unread_arrays,
)
from pipeline.sources.arrays.array_shards import (
    Array,
    StoredArray,
    array_shards,
    describe_array,
    describe_arrays,
    read_exactly,
)
from pipeline.sources.source import Source, files_fingerprint, opened, readable_name

_NPY = re.compile(r"\.npy(\.(gz|bz2|xz))?$", re.IGNORECASE)
_NPZ = ".npz"
# Other kinds of files that may hold the labels of an array. They are reported, not read.
_UNREAD_ENDINGS = (".csv", ".tsv", ".txt", ".json", ".mat", ".parquet", ".pkl", ".pickle", ".pt", ".h5")
# An export has these files with every ROLE_images.npy.
_EXPORT_IMAGES = "_images.npy"
_EXPORT_COMPANIONS = ("_labels.npy", "_ids.npy", "_index.parquet")


class Companions(NamedTuple):
    """The files that belong to an array of images.

    Attributes:
        labels: arrays that are called like its labels.
        unread: files that are called like its labels but cannot be read, such as `labels.csv`.
        class_names: arrays that are called like names of classes.
    """

    labels: list[Path]
    unread: list[Path]
    class_names: list[Path]


def find_companions(source: Source) -> Companions:
    """Find the files that belong to the images of a .npy, by their names.

    Raises:
        SourceError: the folder cannot be listed.
    """
    split, words = split_and_other_words(_stem(source.path.name))
    subject = "_".join(word for word in words.split("_") if word not in IMAGE_WORDS)
    names = _names_in_folder(source)
    arrays = [name for name in names if _is_array(name)]
    words_by_array = {name: split_and_other_words(_stem(name))[1] for name in arrays}
    only_images = not source.prefix and all(
        subject_of_labels(words_by_array[name]) is not None or name.endswith("_ids.npy") for name in arrays
    )
    labels = _labels_among(arrays, split, subject) or (_labels_among(arrays, split, "") if only_images else [])
    folder = source.path.parent
    return Companions(
        labels=[folder / name for name in labels],
        unread=[folder / name for name in _labels_among([n for n in names if not _is_array(n)], split, subject)],
        class_names=[
            folder / name
            for name in arrays
            if name not in labels and subject_of_class_names(words_by_array[name]) is not None
        ],
    )


def is_npy(name: str) -> bool:
    """Return whether a name is that of a .npy file, compressed or not."""
    return _NPY.search(name) is not None


def export_companions(file: Path) -> list[Path]:
    """List the files that `imagelake export --to npy` wrote with an array of images; empty unless all are there."""
    role = file.name.removesuffix(_EXPORT_IMAGES)
    files = [file.with_name(f"{role}{ending}") for ending in _EXPORT_COMPANIONS] if role != file.name else []
    return files if all(found.is_file() for found in files) else []


def _names_in_folder(source: Source) -> list[str]:
    """List the other files of the folder that are arrays or may hold labels, sorted."""
    folder = source.path.parent
    try:
        with os.scandir(folder) as entries:
            usable = [
                entry for entry in entries if _is_array(entry.name) or entry.name.lower().endswith(_UNREAD_ENDINGS)
            ]
            return sorted(entry.name for entry in usable if entry.name != source.path.name and entry.is_file())
    except OSError as error:
        raise SourceError(f"{source.title}: cannot list {folder} ({error.strerror}). Check the folder.") from error


def _labels_among(names: list[str], split: str | None, subject: str) -> list[str]:
    """Choose the names of labels: with the split, else without one; names that may mean class names come last."""
    candidates = []
    for name in names:
        its_split, words = split_and_other_words(_stem(name))
        if subject_of_labels(words) == subject:
            candidates.append((name, its_split, subject_of_class_names(words) is None))
    for is_certain in (True, False):
        for wanted_split in dict.fromkeys((split, None)):
            found = [name for name, *rest in candidates if rest == [wanted_split, is_certain]]
            if found:
                return found
    return []


def _is_array(name: str) -> bool:
    return is_npy(name) or name.lower().endswith(_NPZ)


def _stem(name: str) -> str:
    return name.partition(".")[0]


# In Fortran order the values of one image are spread over the whole array: it is read whole, up to this size.
FORTRAN_BYTES = 2**30

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\3\4"
_MEMBER_ENDING = ".npy"
# NumPy's own limit. A longer header takes long to parse, and no array of numbers has one.
_MAX_HEADER_BYTES = 10_000
_PLAIN_KINDS = "biufcSU"  # numbers and text
_KIND_NAMES = {"O": "Python objects or records", "S": "text", "U": "text"}
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, IndexError, struct.error, OSError)


class _Header(NamedTuple):
    """The header of a .npy file.

    Attributes:
        shape: shape of the array.
        fortran_order: whether the first axis varies fastest.
        dtype: type of the values; object if they are neither numbers nor text.
    """

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    @property
    def is_scattered(self) -> bool:
        """Whether the values of one row are not adjacent."""
        return self.fortran_order and sum(side != 1 for side in self.shape) > 1


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a .npy by its first bytes and a .npz by the name of its first member; see `FormModule`."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    is_npz = head.startswith(_ZIP_MAGIC) and name.endswith(_MEMBER_ENDING.encode())
    return not path.is_dir() and (head.startswith(_NPY_MAGIC) or is_npz)


def survey(source: Source) -> Survey:
    """Fingerprint the files by size and time, and the chosen arrays by name; see `FormModule`."""
    files = files_fingerprint(source, source.path, *companions(source))
    return Survey(digest_of([files, source.part.images, source.part.labels]))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield shards of consecutive rows while the arrays stream; see `FormModule`."""
    fingerprint = survey(source).fingerprint
    arrays = _arrays_in(source, source.path)
    # The name of a single array does not matter.
    images = arrays[0] if len(arrays) == 1 and source.part.images is None else choose_images(source, arrays)
    found = _companions_by_name(source)
    labels = _choose_labels(source, arrays, images, found)
    other_arrays = [_only_array_or_none(source, file) for file in found.class_names]
    class_names = choose_class_names([*arrays, *filter(None, other_arrays)], images, labels)
    channels_last = _is_export(images, {array.name for array in arrays})
    yield from array_shards(
        source, fingerprint, images, labels, wanted, class_names=class_names, channels_last=channels_last
    )


def splits_within(source: Source) -> list[str]:
    """List the splits in the names of the file's arrays; see `FormModule`."""
    return [] if source.part.images is not None else splits_of_arrays(_arrays_in(source, source.path))


def note(source: Source) -> str:
    """Say which arrays of the file are not read; see `FormModule`."""
    return "" if source.part.images is not None else unread_arrays(_arrays_in(source, source.path))


def companions(source: Source) -> list[Path]:
    """List the other files that belong to a source: labels, class names, and the rest of an export.

    Returns:
        Files in the source's folder, sorted, each once.

    Raises:
        SourceError: the folder cannot be listed.
    """
    found, labels_file = _companions_by_name(source), _labels_file_of_recipe(source)
    labels = [labels_file] if labels_file else found.labels
    return sorted({*labels, *found.class_names, *export_companions(source.path)})


def _choose_labels(
    source: Source, arrays: list[StoredArray], images: StoredArray, found: Companions
) -> StoredArray | None:
    labels_file = _labels_file_of_recipe(source)
    if labels_file is None or source.part.labels in {array.name for array in arrays}:
        by_name = source.part.labels is None and is_npy(source.path.name)
        return _labels_of_companions(source, found) if by_name else choose_labels(source, arrays, images)
    if source.prefix:
        raise SourceError(
            f"{source.title}: labels names one file, {labels_file.name}, for every file of a pattern. Name each file "
            "in a [[source]] of its own."
        )
    return _only_array(source, labels_file)


def _labels_of_companions(source: Source, found: Companions) -> StoredArray | None:
    if len(found.labels) == 1:
        return _only_array(source, found.labels[0])
    if files := found.labels or found.unread:
        names = ", ".join(file.name for file in files)
        raise SourceError(
            f"{source.title}: {names} in the folder of {source.path} may hold its labels. Name a .npy, or a .npz of "
            'one array, with labels = "..." in the recipe, or set labels = "" for no labels.'
        )
    return None


def _companions_by_name(source: Source) -> Companions:
    # A downloaded file is alone in its folder of the cache.
    is_local_npy = is_npy(source.path.name) and "://" not in source.uri
    return find_companions(source) if is_local_npy and source.part.labels != "" else Companions([], [], [])


def _labels_file_of_recipe(source: Source) -> Path | None:
    """Find the file that the recipe's `labels` names; None if it does not name a file."""
    file = source.path.parent / (source.part.labels or "")
    return file if source.part.labels and file.is_file() else None


def _is_export(images: StoredArray, names: AbstractSet[str]) -> bool:
    """Recognise arrays that `imagelake export` wrote by the names of all of them."""
    if export_companions(images.file):
        return True
    role, _, what = images.name.rpartition("_")
    ids = {f"{role}_ids"} if what == "images" else set()
    return what in ("images", "dataset") and {f"{role}_labels", "classes", *ids} <= names


def _only_array(source: Source, file: Path) -> StoredArray:
    arrays = _arrays_in(source, file)
    if len(arrays) != 1:
        raise SourceError(
            f"{source.title}: {file} holds the labels, so it must hold one array. It has: {describe_arrays(arrays)}. "
            "Save the labels in a file of their own."
        )
    return arrays[0]


def _only_array_or_none(source: Source, file: Path) -> StoredArray | None:
    """Return the array of a file that holds one; None if it holds several or is damaged."""
    try:
        arrays = _arrays_in(source, file)
    except SourceError:
        return None
    return arrays[0] if len(arrays) == 1 else None


def _arrays_in(source: Source, file: Path) -> list[StoredArray]:
    """List the arrays of a .npy or .npz. Only headers are read."""
    with _open_array(source, file, None) as stream:
        is_npy_file = stream.read(len(_NPY_MAGIC)) == _NPY_MAGIC
    if is_npy_file:
        with _open_array(source, file, None) as stream:
            return [_stored_array(source, file, None, _read_header(stream))]
    with _as_source_errors(source, file, None), zipfile.ZipFile(file) as archive:
        members = [name for name in archive.namelist() if name.endswith(_MEMBER_ENDING)]
        if len(set(members)) < len(members):
            raise ValueError("two arrays have one name")
        return [
            _stored_array(source, file, member, _read_member_header(source, file, archive, member))
            for member in members
        ]


def _read_member_header(source: Source, file: Path, archive: zipfile.ZipFile, member: str) -> _Header:
    with _as_source_errors(source, file, member), archive.open(member) as stream:
        return _read_header(stream)


def _stored_array(source: Source, file: Path, member: str | None, header: _Header) -> StoredArray:
    name = file.name.split(".")[0] if member is None else member.removesuffix(_MEMBER_ENDING)
    description = describe_array(name, header.shape, _KIND_NAMES.get(header.dtype.kind, header.dtype.name))
    read_batches = partial(_read_batches, source, file, member, header)
    return StoredArray(file, name, header.shape, header.dtype, description, read_batches)


def _read_batches(source: Source, file: Path, member: str | None, header: _Header, rows: int) -> Iterator[Array]:
    """Stream an array in batches of rows; one that is scattered is read whole."""
    if header.is_scattered and math.prod(header.shape) * header.dtype.itemsize > FORTRAN_BYTES:
        raise SourceError(
            f"{source.title}: an array {header.shape} of {file} is in Fortran order and larger than 1 GiB. Arrays in "
            "Fortran order are read whole. Save np.ascontiguousarray of it."
        )
    with _open_array(source, file, member) as stream:
        _read_header(stream)
        count, *rest = header.shape
        width = math.prod(rest) * header.dtype.itemsize
        starts = range(0, count, rows)
        if header.is_scattered:
            flat = np.frombuffer(read_exactly(stream, count * width), header.dtype)
            yield from (flat.reshape(header.shape, order="F")[start : start + rows] for start in starts)
        else:
            for size in (min(rows, count - start) for start in starts):
                yield np.frombuffer(read_exactly(stream, size * width), header.dtype).reshape(size, *rest)
        # Reading past the last byte also verifies the checksum.
        if stream.read(1):
            raise ValueError(f"more bytes follow its {count} rows")


def _read_header(stream: IO[bytes]) -> _Header:
    """Read the header of a .npy; the stream is then at the first value."""
    version = npy_format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown version {version[0]}.{version[1]} of the format")
    length = read_exactly(stream, 2 if version == (1, 0) else 4)
    # NumPy checks the length only after it has read so many bytes, up to 4 GiB.
    size = int.from_bytes(length, "little")
    if size > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {size} bytes")
    header = io.BytesIO(length + read_exactly(stream, size))
    # 3.0 differs from 2.0 only in the encoding of field names, and arrays with fields are not read.
    parse = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns about headers that Python 2 wrote
            shape, fortran_order, dtype = parse(header)
    except Exception as error:
        raise ValueError(f"an invalid header: {bytes(header.getvalue()[len(length) :][:60])!r}") from error
    if min(shape, default=0) < 0:
        raise ValueError(f"an invalid header: shape {shape}")
    return _Header(shape, fortran_order, dtype if dtype.kind in _PLAIN_KINDS else np.dtype(object))


@contextmanager
def _open_array(source: Source, file: Path, member: str | None) -> Iterator[IO[bytes]]:
    with _as_source_errors(source, file, member):
        if member is None:
            with opened(source, file) as stream:
                yield stream
        else:
            with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
                yield stream


@contextmanager
def _as_source_errors(source: Source, file: Path, member: str | None) -> Iterator[None]:
    """Raise errors of NumPy and the standard library as SourceError with the names of file and array."""
    where = f"{source.title}: {file}" + (f", {' '.join(readable_name(member).split())}," if member else "")
    try:
        yield
    except SourceError:  # a ValueError too
        raise
    except _DAMAGED as error:
        raise SourceError(f"{where} is damaged or cut short ({one_line(error)}). Fetch it again.") from error
    except RuntimeError as error:  # zipfile: a password, or an unknown compression
        raise SourceError(f"{where} cannot be unpacked ({one_line(error)}). Save it again with np.savez.") from error
