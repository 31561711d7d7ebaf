"""IDX files, packed or not: MNIST and its kin.

EMNIST's files hold every picture column by column. They are read so where the recipe says `transposed = true`, and
where it does not say but the file's name begins with `emnist-`. EMNIST's labels stay the numbers in its files; its
mapping to characters is not read.

Labels are found by name (see `idxnames`), or named by the recipe's `labels`; `labels = ""` says that there are none.
They are whole numbers of any type, one a picture, or one-hot rows. QMNIST's labels are rows of eight int32, of which
the first is the class. Any other array of rows is an error.

The IDX format: arrays of numbers behind a header that says their type and shape.

References:
    The format is described on the page of the MNIST database (LeCun, Cortes, Burges): two zero bytes, the type code,
    the number of dimensions, then big-endian uint32 sizes and the data.

The names of IDX files: which hold images, which labels, and which of them belong together.

Names are read word by word, in any case: `train-images-idx3-ubyte`, `train-images.idx3-ubyte.gz`, `train_images.idx3`,
`t10k-images.gz` and `x_train.idx` are images. Their labels have the same name but for `labels` or `y` in the place of
that word, and for the words of the format: `qmnist-train-labels-idx2-int` belongs to `qmnist-train-images-idx3-ubyte`.

Kaggle unpacks a file `NAME` as `NAME/NAME`: such a file counts as if it lay in the folder above.
"""

import math
import re
import struct
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.recipe.naming import SPLITS
from pipeline.shard import Encoded, Pixels, Survey
from pipeline.sources.arrays.array_values import label_texts
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    beginning,
    files_fingerprint,
    is_picture_name,
    one_line,
    opened,
    shard_key,
)

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


_IMAGES = frozenset(["images", "image", "imgs", "img", "pictures", "x"])
_LABELS = frozenset(["labels", "label", "lbls", "targets", "target", "y"])
_FORMAT = re.compile(r"idx\d?|u?byte|uint8|int8|short|int|float|double")
# A name that says its format is believed; of any other the first bytes must be an IDX file's.
_SURE = re.compile(r"images[-._]?idx[34]|labels[-._]?idx[12]", re.IGNORECASE)
_PACKED = (".gz", ".xz", ".bz2")
_ROLES = ("train", "training", "t10k", "test", "testing", "valid", "val", "validation")
# Files of a folder that are looked into for labels that no name tells.
_MOST_LOOKED_INTO = 1_000


def words_of(file: Path) -> list[str]:
    """Cut a file's name into its words, without the ending of its compression."""
    return [word for word in re.split(r"[-_. ]+", unpacked_name(file).lower()) if word]


def unpacked_name(file: Path) -> str:
    """Name a file without the ending of its compression."""
    ending = file.suffix.lower()
    return file.name[: -len(ending)] if ending in _PACKED else file.name


def images_in(folder: Path) -> list[Path]:
    """Find the images files of a folder, by name; one file packed and unpacked is one file.

    Raises:
        OSError: the folder cannot be listed.
    """
    return _found(folder, _IMAGES, b"\3\4")


def labels_of(file: Path) -> list[Path]:
    """Find the labels files that belong to an images file: files whose names differ only in their format are several.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = (
        [labels for labels in _found(folder, _LABELS, b"\1\2\3") if _key(labels) == _key(file)]
        for folder in _folders_of(file)
    )
    return next(filter(None, found), [])


def other_labels(file: Path) -> list[Path]:
    """Find what may be the labels of an images file for which `labels_of` finds none.

    Returns:
        Files beside it that are called labels and belong to no other images file, in any format, and IDX files of
        labels with any name.

    Raises:
        OSError: the folder cannot be listed.
    """
    return [other for folder in _folders_of(file) for other in _others(folder, file)]


def _others(folder: Path, file: Path) -> list[Path]:
    taken = {_key(images) for images in images_in(folder)} - {_key(file)}
    files = sorted(other for other in folder.iterdir() if not is_picture_name(other.name) and other.is_file())
    named = [other for other in files if _LABELS.intersection(words_of(other)) and _key(other) not in taken]
    plain = (other for other in files if not _LABELS.intersection(words_of(other)) and other != file)
    return named or [other for other in islice(plain, _MOST_LOOKED_INTO) if _is_idx(other, b"\1\2")]


def _folders_of(file: Path) -> list[Path]:
    """List the folders in which the files that belong to one may lie: for `NAME/NAME` also the one above."""
    return [file.parent, *([file.parent.parent] if file.parent.name == file.name else [])]


def _found(folder: Path, kinds: frozenset[str], ranks: bytes) -> list[Path]:
    files: dict[str, Path] = {}
    nested: dict[str, Path] = {}
    usable = [
        entry for entry in folder.iterdir() if not is_picture_name(entry.name) and _may_be(words_of(entry), kinds)
    ]
    # A file that is not packed comes before the same file packed.
    for entry in sorted(usable, key=lambda entry: (unpacked_name(entry), len(entry.name))):
        inside = entry.is_dir()
        file = entry / entry.name if inside else entry
        if file.is_file() and (_SURE.search(file.name) or _is_idx(file, ranks)):
            (nested if inside else files).setdefault(unpacked_name(entry), file)
    there = {tuple(words_of(file)) for file in files.values()}
    files |= {name: file for name, file in nested.items() if tuple(words_of(file)) not in there}
    return [files[name] for name in sorted(files)]


def _may_be(words: list[str], kinds: Iterable[str]) -> bool:
    """Tell by words whether a file may hold images or labels: one says so, and the last is none of another format."""
    last = words[-1:]
    return not set(words).isdisjoint(kinds) and any(
        word in _IMAGES or word in _LABELS or word in _ROLES or _FORMAT.fullmatch(word) for word in last
    )


def _key(file: Path) -> tuple[str, ...]:
    """Tell what the names of images and their labels share."""
    return tuple(word for word in words_of(file) if word not in _IMAGES | _LABELS and not _FORMAT.fullmatch(word))


def _is_idx(file: Path, ranks: bytes) -> bool:
    try:
        head = beginning(file, 4)
    except OSError:
        return False
    return HEAD.match(head) is not None and head[3] in ranks


_IMAGE_RANKS = (3, 4)
# Columns of QMNIST's labels: class, NIST series, writer, digit of the writer, NIST class, digit of NIST, two unused.
_QMNIST_COLUMNS, _QMNIST_TYPE = 8, np.dtype(">i4")


def recognises(path: Path, head: bytes) -> bool:
    """Tell an IDX file, or a folder of them; see `pipeline.sources`."""
    return bool(image_files(path)) if path.is_dir() else HEAD.match(head) is not None


def survey(source: Source) -> Survey:
    """Fingerprint both files by size and time; see `pipeline.sources`."""
    labels = labels_file(source)
    files = files_fingerprint(source, source.path, *([labels] if labels else []))
    return Survey(digest_of([files, "transposed"]) if is_transposed(source) else files)


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the file into runs of pictures while it streams past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    labels = _read_labels(source)
    with opened(source, source.path) as stream:
        count, *shape = _images_shape(source, read_header(source, source.path, stream))
        if labels is not None and len(labels) != count:
            raise SourceError(f"{source.title}: {count} images but {len(labels)} labels. Check that the files match.")
        if not count:
            raise SourceError(f"{source.title}: {source.path} holds no images.")
        row = math.prod(shape)
        if not 0 < row <= BYTES_PER_SHARD or shape[2:] not in ([], [1], [3]):
            raise SourceError(
                f"{source.title}: {source.path} says its images are {shape}: it is damaged, or no images."
            )
        step = min(IMAGES_PER_SHARD, BYTES_PER_SHARD // row)
        for number, start in enumerate(range(0, count, step)):
            rows = min(step, count - start)
            data = np.frombuffer(take(source, source.path, stream, rows * row), UBYTE)
            array = data.reshape(rows, *shape, *([1] * (3 - len(shape))))
            key = shard_key(source, number)
            if is_transposed(source):
                array = np.ascontiguousarray(array.swapaxes(1, 2))
            if wanted is None or key in wanted:
                yield _encode(key, fingerprint, start, array, labels)
        check_end(source, source.path, stream, count)


def image_files(folder: Path) -> list[tuple[str, Path]]:
    """Find the images files of a folder.

    Returns:
        (split, file), in the order of the names. The split is told by the usual words, or is the name's first part.
    """
    found = []
    for file in images_in(folder):
        words = words_of(file)
        found.append((next((SPLITS[word] for word in words if word in SPLITS), words[0]), file))
    return found


def labels_file(source: Source) -> Path | None:
    """Find the labels of an images file: the recipe's `labels`, or the usual name beside it.

    Raises:
        SourceError: there is no such file, but others that may hold the labels.
    """
    if source.part.labels is not None:
        return source.path.parent / source.part.labels if source.part.labels else None
    try:
        found = labels_of(source.path)
        others = found or other_labels(source.path)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot list {source.path.parent} ({one_line(error)}).") from error
    # MNIST's own name for labels, where others lie beside it.
    own = [file for file in found if re.search("labels.idx1", file.name, re.IGNORECASE)]
    best = own if len(own) == 1 else found
    if len(best) == 1 or not others:
        return best[0] if best else None
    names = ", ".join(file.name for file in others[:5])
    raise SourceError(
        f"{source.title}: the labels of {source.path.name} are not clear: beside it lies {names}. Name an IDX file "
        'with labels = "..." in the recipe, or say labels = "" for no labels.'
    )


def is_transposed(source: Source) -> bool:
    """Tell whether pictures lie column by column: the recipe says so, or else the name is one of EMNIST's."""
    said = source.part.transposed
    return source.path.name.lower().startswith("emnist-") if said is None else said


def _images_shape(source: Source, header: Header) -> tuple[int, ...]:
    if len(header.shape) not in _IMAGE_RANKS:
        raise SourceError(
            f"{source.title}: {source.path} holds no images, which have 3 or 4 dimensions, but {len(header.shape)}. "
            "Check that images and labels are not swapped."
        )
    if header.dtype != UBYTE:
        raise SourceError(
            f"{source.title}: the images of {source.path} are {header.dtype.name}: which value is black and which "
            "white is not known. Save them as unsigned bytes (type 0x08), 0 to 255."
        )
    return header.shape


def _read_labels(source: Source) -> tuple[str | None, ...] | None:
    file = labels_file(source)
    if file is None:
        return None
    with opened(source, file) as stream:
        header = read_header(source, file, stream)
        size = math.prod(header.shape) * header.dtype.itemsize
        if len(header.shape) in _IMAGE_RANKS and math.prod(header.shape[1:]) > 1:
            raise SourceError(
                f"{source.title}: {file} holds images where its labels are looked for. Check that images and labels "
                "are not swapped."
            )
        values = np.frombuffer(take(source, file, stream, size), header.dtype).reshape(header.shape)
        check_end(source, file, stream, header.shape[0])
    texts = label_texts(values)
    if texts is None and values.shape[1:] == (_QMNIST_COLUMNS,) and values.dtype == _QMNIST_TYPE:
        texts = label_texts(values[:, 0])
    if texts is None:
        raise SourceError(
            f"{source.title}: {file} holds {header.shape} values of type {header.dtype.name}, which are no labels that "
            "are read: one whole number an image, one-hot rows, or QMNIST's rows of eight int32. Save the column with "
            'the class by itself, or say labels = "" for no labels.'
        )
    return texts


def _encode(
    key: str, fingerprint: str, start: int, array: NDArray[np.uint8], labels: tuple[str | None, ...] | None
) -> Encoded:
    stop = start + len(array)
    return Encoded(
        shard=key,
        fingerprint=fingerprint,
        paths=tuple(map(str, range(start, stop))),
        labels=labels[start:stop] if labels is not None else (None,) * len(array),
        contents=Pixels(array),
    )
