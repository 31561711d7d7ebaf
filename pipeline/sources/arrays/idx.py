"""Read IDX files, compressed or not: MNIST, EMNIST, QMNIST and others like them.

Names decide which files belong together, word by word and in any case: `train-images-idx3-ubyte`,
`train-images.idx3-ubyte.gz`, `train_images.idx3`, `t10k-images.gz` and `x_train.idx` hold images. Their labels have the
same name with `labels` or `y` for that word; words of the format do not count, so `qmnist-train-labels-idx2-int`
belongs to `qmnist-train-images-idx3-ubyte`. The recipe's `labels` names another file; `labels = ""` means no labels.
Kaggle unpacks a file `NAME` as `NAME/NAME`: such a file counts as if it were in the folder above.

Labels are whole numbers of any type, one for each image, or one-hot rows. QMNIST's labels are rows of eight int32, of
which the first is the class. Any other array of rows is an error.

EMNIST's files hold every image column by column. Images are read so if the recipe sets `transposed = true`, or if it
does not set the key and the file's name begins with `emnist-`. EMNIST's labels stay the numbers in its files.

An IDX file is an array of numbers behind a header: two zero bytes, the type code, the number of dimensions, then
big-endian uint32 sizes and the data.

References:
    The MNIST database of handwritten digits, LeCun, Cortes, Burges: "file formats".
"""

import math
import re
import struct
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from pipeline.errors import SourceError, one_line
from pipeline.hashing import digest_of
from pipeline.recipe.naming import SPLITS
from pipeline.shard import Encoded, Pixels, Survey
from pipeline.sources.arrays.array_shards import label_texts, read_exactly
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    beginning,
    files_fingerprint,
    is_picture_name,
    opened,
    shard_key,
)

_UBYTE = np.dtype(np.uint8)
_TYPES: dict[int, np.dtype[Any]] = {
    0x08: _UBYTE,
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MAGIC = re.compile(rb"\0\0[\x08\x09\x0b-\x0e][\1-\4]")
_IMAGE_DIMENSIONS, _LABEL_DIMENSIONS = (3, 4), (1, 2, 3)
# Columns of QMNIST's labels: class, NIST series, writer, digit of the writer, NIST class, digit of NIST, two unused.
_QMNIST_COLUMNS, _QMNIST_TYPE = 8, np.dtype(">i4")

_IMAGE_WORDS = frozenset(["images", "image", "imgs", "img", "pictures", "x"])
_LABEL_WORDS = frozenset(["labels", "label", "lbls", "targets", "target", "y"])
_SPLIT_WORDS = ("train", "training", "t10k", "test", "testing", "valid", "val", "validation")
_FORMAT_WORD = re.compile(r"idx\d?|u?byte|uint8|int8|short|int|float|double")
# A file with such a name is accepted as it is. Any other file must begin like an IDX file.
_IDX_NAME = re.compile(r"images[-._]?idx[34]|labels[-._]?idx[12]", re.IGNORECASE)
_COMPRESSED_ENDINGS = (".gz", ".xz", ".bz2")
# At most so many files of a folder are opened to look for labels.
_MAX_FILES_OPENED = 1_000


class _Header(NamedTuple):
    """The header of an IDX file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def recognises(path: Path, head: bytes) -> bool:
    """Recognise an IDX file, or a folder with images files; see `FormModule`."""
    return bool(image_files(path)) if path.is_dir() else _MAGIC.match(head) is not None


def survey(source: Source) -> Survey:
    """Fingerprint images and labels by size and time; see `FormModule`."""
    labels = labels_file(source)
    files = files_fingerprint(source, source.path, *([labels] if labels else []))
    return Survey(digest_of([files, "transposed"]) if _is_transposed(source) else files)


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield shards of consecutive images while the file streams; see `FormModule`."""
    fingerprint = survey(source).fingerprint
    labels = _read_labels(source)
    with opened(source, source.path) as stream, _as_source_errors(source, source.path):
        count, *shape = _check_images(source, _read_header(source, source.path, stream), labels)
        row_bytes = math.prod(shape)
        step = min(IMAGES_PER_SHARD, BYTES_PER_SHARD // row_bytes)
        for number, start in enumerate(range(0, count, step)):
            rows = min(step, count - start)
            array = np.frombuffer(read_exactly(stream, rows * row_bytes), _UBYTE)
            array = array.reshape(rows, *shape, *([1] * (3 - len(shape))))
            key = shard_key(source, number)
            if wanted is None or key in wanted:
                yield Encoded(
                    shard=key,
                    fingerprint=fingerprint,
                    paths=tuple(map(str, range(start, start + rows))),
                    labels=labels[start : start + rows] if labels is not None else (None,) * rows,
                    contents=Pixels(np.ascontiguousarray(array.swapaxes(1, 2)) if _is_transposed(source) else array),
                )
        _check_end(stream, count)


def image_files(folder: Path) -> list[tuple[str, Path]]:
    """List the images files of a folder.

    Returns:
        (split, file), in the order of the names. The split is one of the usual words in the name, else its first word.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = []
    for file in _find_files(folder, _IMAGE_WORDS, _IMAGE_DIMENSIONS):
        words = _words_of(file)
        found.append((next((SPLITS[word] for word in words if word in SPLITS), words[0]), file))
    return found


def companions(source: Source) -> list[Path]:
    """List the files beside an images file that are read with it: its labels file, if any."""
    labels = labels_file(source)
    return [labels] if labels is not None else []


def labels_file(source: Source) -> Path | None:
    """Find the labels of an images file: the recipe's `labels`, or a file beside it with a matching name.

    Returns:
        The file, which may not exist if the recipe names it; None if there are no labels.

    Raises:
        SourceError: the folder cannot be listed, or it is not clear which file holds the labels.
    """
    if source.part.labels is not None:
        return source.path.parent / source.part.labels if source.part.labels else None
    try:
        found = _matching_labels(source.path)
        candidates = found or _possible_labels(source.path)
    except OSError as error:
        raise SourceError(
            f"{source.title}: cannot list {source.path.parent} ({one_line(error)}). Check the folder."
        ) from error
    # MNIST's own name for labels comes first.
    mnist_names = [file for file in found if re.search("labels.idx1", file.name, re.IGNORECASE)]
    best = mnist_names if len(mnist_names) == 1 else found
    if len(best) == 1 or not candidates:
        return best[0] if best else None
    names = ", ".join(file.name for file in candidates[:5])
    raise SourceError(
        f"{source.title}: it is not clear which file holds the labels of {source.path.name}. Its folder has: {names}. "
        'Name an IDX file with labels = "..." in the recipe, or set labels = "" for no labels.'
    )


def _is_transposed(source: Source) -> bool:
    """Return whether images are stored column by column: the recipe sets `transposed`, or the name is EMNIST's."""
    transposed = source.part.transposed
    return source.path.name.lower().startswith("emnist-") if transposed is None else transposed


def _check_images(source: Source, header: _Header, labels: tuple[str | None, ...] | None) -> tuple[int, ...]:
    """Return the shape of the images, (n, height, width) or (n, height, width, channels)."""
    if len(header.shape) not in _IMAGE_DIMENSIONS:
        raise SourceError(
            f"{source.title}: {source.path} has {len(header.shape)} dimensions. Images have 3 or 4. Check that images "
            "and labels are not swapped."
        )
    if header.dtype != _UBYTE:
        raise SourceError(
            f"{source.title}: the images of {source.path} are {header.dtype.name}, so the values of black and white "
            "are unknown. Save them as unsigned bytes (type 0x08), 0 to 255."
        )
    count, *shape = header.shape
    if labels is not None and len(labels) != count:
        raise SourceError(f"{source.title}: {count} images but {len(labels)} labels. Check that the files match.")
    if not count:
        raise SourceError(f"{source.title}: {source.path} holds no images. Check that it is the right file.")
    if not 0 < math.prod(shape) <= BYTES_PER_SHARD or shape[2:] not in ([], [1], [3]):
        raise SourceError(
            f"{source.title}: the shape of one image of {source.path} is {shape}: the file is damaged, or does not "
            "hold images. Check that it is the right file."
        )
    return header.shape


def _read_labels(source: Source) -> tuple[str | None, ...] | None:
    file = labels_file(source)
    if file is None:
        return None
    with opened(source, file) as stream, _as_source_errors(source, file):
        header = _read_header(source, file, stream)
        if len(header.shape) in _IMAGE_DIMENSIONS and math.prod(header.shape[1:]) > 1:
            raise SourceError(
                f"{source.title}: {file} should hold the labels, but holds images. Check that images and labels are "
                "not swapped."
            )
        data = read_exactly(stream, math.prod(header.shape) * header.dtype.itemsize)
        values = np.frombuffer(data, header.dtype).reshape(header.shape)
        _check_end(stream, header.shape[0])
    texts = label_texts(values)
    if texts is None and values.shape[1:] == (_QMNIST_COLUMNS,) and values.dtype == _QMNIST_TYPE:
        texts = label_texts(values[:, 0])
    if texts is None:
        raise SourceError(
            f"{source.title}: {file} holds {header.shape} values of type {header.dtype.name}. Labels are one whole "
            "number for each image, one-hot rows, or QMNIST's rows of eight int32. Save the column with the class in a "
            'file of its own, or set labels = "" for no labels.'
        )
    return texts


@contextmanager
def _as_source_errors(source: Source, file: Path) -> Iterator[None]:
    """Raise errors of a damaged file as SourceError with its name."""
    try:
        yield
    except SourceError:  # a ValueError too
        raise
    except (ValueError, *DAMAGED) as error:
        raise SourceError(
            f"{source.title}: {file} is damaged or cut short ({one_line(error)}). Fetch it again."
        ) from error


def _read_header(source: Source, file: Path, stream: IO[bytes]) -> _Header:
    """Read the header of a file; the stream is then at the first value."""
    zero, kind, dimensions = struct.unpack(">HBB", read_exactly(stream, 4))
    if zero or kind not in _TYPES or not dimensions:
        raise SourceError(
            f"{source.title}: {file} is not an IDX file (its first bytes give type {kind:#04x} and {dimensions} "
            "dimensions). Check that it is the right file."
        )
    return _Header(_TYPES[kind], struct.unpack(f">{dimensions}I", read_exactly(stream, 4 * dimensions)))


def _check_end(stream: IO[bytes], count: int) -> None:
    """Check that nothing follows the last entry; this also verifies the checksum of a compressed file."""
    if stream.read(1):
        raise ValueError(f"more bytes follow its {count} entries")


def _matching_labels(images: Path) -> list[Path]:
    """List the labels files whose name matches an images file; several differ only in the words of the format."""
    for folder in _folders_of(images):
        labels = _find_files(folder, _LABEL_WORDS, _LABEL_DIMENSIONS)
        if found := [file for file in labels if _shared_words(file) == _shared_words(images)]:
            return found
    return []


def _possible_labels(images: Path) -> list[Path]:
    """List what may be the labels of an images file that has no matching labels.

    These are files, in any format, that are called labels and belong to no other images file. If there are none, these
    are IDX files of labels with any name.
    """
    return [file for folder in _folders_of(images) for file in _possible_labels_in(folder, images)]


def _possible_labels_in(folder: Path, images: Path) -> list[Path]:
    taken = {_shared_words(file) for _, file in image_files(folder)} - {_shared_words(images)}
    files = sorted(file for file in folder.iterdir() if not is_picture_name(file.name) and file.is_file())
    named = [file for file in files if _LABEL_WORDS.intersection(_words_of(file)) and _shared_words(file) not in taken]
    others = (file for file in files if not _LABEL_WORDS.intersection(_words_of(file)) and file != images)
    return named or [file for file in islice(others, _MAX_FILES_OPENED) if _is_idx(file, (1, 2))]


def _folders_of(file: Path) -> list[Path]:
    """List the folders that may hold the files that belong to one: for `NAME/NAME` also the one above."""
    return [file.parent, *([file.parent.parent] if file.parent.name == file.name else [])]


def _find_files(folder: Path, kinds: frozenset[str], dimensions: tuple[int, ...]) -> list[Path]:
    """List the files of images, or of labels, in a folder; a file that is also there compressed is listed once."""
    files: dict[str, Path] = {}
    nested: dict[str, Path] = {}
    usable = [
        entry for entry in folder.iterdir() if not is_picture_name(entry.name) and _is_of_kind(_words_of(entry), kinds)
    ]
    # A file that is not compressed comes before the same file compressed.
    for entry in sorted(usable, key=lambda entry: (_uncompressed_name(entry), len(entry.name))):
        is_folder = entry.is_dir()
        file = entry / entry.name if is_folder else entry
        if file.is_file() and (_IDX_NAME.search(file.name) or _is_idx(file, dimensions)):
            (nested if is_folder else files).setdefault(_uncompressed_name(entry), file)
    words = {tuple(_words_of(file)) for file in files.values()}
    files |= {name: file for name, file in nested.items() if tuple(_words_of(file)) not in words}
    return [files[name] for name in sorted(files)]


def _is_of_kind(words: list[str], kinds: frozenset[str]) -> bool:
    """Return whether a word of a name is one of `kinds` and the last word is one that IDX files have."""
    last = words[-1] if words else ""
    is_usual = last in _IMAGE_WORDS or last in _LABEL_WORDS or last in _SPLIT_WORDS or _FORMAT_WORD.fullmatch(last)
    return not kinds.isdisjoint(words) and bool(is_usual)


def _shared_words(file: Path) -> tuple[str, ...]:
    """Return the words that the names of images and of their labels share."""
    roles = _IMAGE_WORDS | _LABEL_WORDS
    return tuple(word for word in _words_of(file) if word not in roles and not _FORMAT_WORD.fullmatch(word))


def _words_of(file: Path) -> list[str]:
    return [word for word in re.split(r"[-_. ]+", _uncompressed_name(file).lower()) if word]


def _uncompressed_name(file: Path) -> str:
    ending = file.suffix.lower()
    return file.name[: -len(ending)] if ending in _COMPRESSED_ENDINGS else file.name


def _is_idx(file: Path, dimensions: tuple[int, ...]) -> bool:
    try:
        head = beginning(file, 4)
    except OSError:
        return False
    return _MAGIC.match(head) is not None and head[3] in dimensions
