"""IDX files, packed or not: MNIST and its kin.

EMNIST's files hold every picture column by column. They are read so where the recipe says `transposed = true`, and
where it does not say but the file's name begins with `emnist-`. EMNIST's labels stay the numbers in its files; its
mapping to characters is not read.

Labels are found by name (see `idxnames`), or named by the recipe's `labels`; `labels = ""` says that there are none.
They are whole numbers of any type, one a picture, or one-hot rows. QMNIST's labels are rows of eight int32, of which
the first is the class. Any other array of rows is an error.
"""

import math
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.encoded import Encoded, Pixels, Survey
from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.recipe.naming import SPLITS
from pipeline.sources.idxformat import HEAD, UBYTE, Header, check_end, read_header, take
from pipeline.sources.idxnames import images_in, labels_of, other_labels, words_of
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    IMAGES_PER_SHARD,
    Source,
    files_fingerprint,
    one_line,
    opened,
    shard_key,
)
from pipeline.sources.stored import label_texts

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
