"""IDX files, gzipped or not: MNIST and its kin.

EMNIST's files hold every picture column by column. They are read so where the recipe says `transposed = true`, and
where it does not say but the file's name begins with `emnist-`. EMNIST's labels stay the numbers in its files; its
mapping to characters is not read.

References:
    The format is described on the page of the MNIST database (LeCun, Cortes, Burges): two zero bytes, the type code,
    the number of dimensions, then big-endian uint32 sizes and the data.
"""

import math
import re
import struct
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pipeline.encoded import Encoded, Pixels, Survey
from pipeline.errors import SourceError
from pipeline.hashing import digest_of
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    files_fingerprint,
    one_line,
    opened,
    shard_key,
)

_UBYTE = 0x08
_PIECE = 2**20
_IMAGES_NAME = re.compile(r"images([-.])idx[34]")
# Types and ranks that this reader does not take are still IDX: its message says more than "of no form".
_HEAD = re.compile(rb"\0\0[\x08\x09\x0b-\x0e][\1-\4]")
# Words in the usual names of images files, and the split that each stands for.
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}


def recognises(path: Path, head: bytes) -> bool:
    """Tell an IDX file, or a folder of them; see `pipeline.sources`."""
    return bool(image_files(path)) if path.is_dir() else _HEAD.match(head) is not None


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
        count, *shape = _header(source, source.path, stream, dimensions=(3, 4))
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
            array = _take(source, source.path, stream, rows * row).reshape(rows, *shape, *([1] * (3 - len(shape))))
            key = shard_key(source, number)
            if is_transposed(source):
                array = np.ascontiguousarray(array.swapaxes(1, 2))
            if wanted is None or key in wanted:
                yield _encode(key, fingerprint, start, array, labels)
        _check_end(source, source.path, stream, count)


def image_files(folder: Path) -> list[tuple[str, Path]]:
    """Find the images files of a folder.

    Returns:
        (split, file), in the order of the names. The split is told by the usual words, or is the name's first part.
    """
    files = {file.name: file for file in folder.iterdir() if _IMAGES_NAME.search(file.name)}
    # One file packed and unpacked is one file.
    names = [name for name in sorted(files) if name.removesuffix(".gz") == name or name[:-3] not in files]
    words = {name: re.split("[-_.]", name) for name in names}
    return [(next((_SPLITS[w] for w in words[name] if w in _SPLITS), words[name][0]), files[name]) for name in names]


def labels_file(source: Source) -> Path | None:
    """Find the labels of an images file: the recipe's `labels`, or the usual name beside it."""
    if source.part.labels is not None:
        return source.path.parent / source.part.labels
    name = _IMAGES_NAME.sub(r"labels\1idx1", source.path.name)
    beside = [
        source.path.with_name(name),
        source.path.with_name(name + ".gz"),
        source.path.with_name(name.removesuffix(".gz")),
    ]
    return next((file for file in beside if name != source.path.name and file.exists()), None)


def is_transposed(source: Source) -> bool:
    """Tell whether pictures lie column by column: the recipe says so, or else the name is one of EMNIST's."""
    said = source.part.transposed
    return source.path.name.lower().startswith("emnist-") if said is None else said


def _read_labels(source: Source) -> NDArray[np.uint8] | None:
    file = labels_file(source)
    if file is None:
        return None
    with opened(source, file) as stream:
        (count,) = _header(source, file, stream, dimensions=(1,))
        labels = _take(source, file, stream, count)
        _check_end(source, file, stream, count)
        return labels


def _encode(
    key: str, fingerprint: str, start: int, array: NDArray[np.uint8], labels: NDArray[np.uint8] | None
) -> Encoded:
    stop = start + len(array)
    return Encoded(
        shard=key,
        fingerprint=fingerprint,
        paths=tuple(map(str, range(start, stop))),
        labels=tuple(map(str, labels[start:stop].tolist())) if labels is not None else (None,) * len(array),
        contents=Pixels(array),
    )


def _header(source: Source, file: Path, stream: IO[bytes], *, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    zero, kind, rank = struct.unpack(">HBB", _take(source, file, stream, 4).tobytes())
    if zero or kind != _UBYTE or rank not in dimensions:
        wanted = " or ".join(map(str, dimensions))
        raise SourceError(
            f"{source.title}: {file} is no IDX file of unsigned bytes with {wanted} dimensions (type {kind:#04x}, "
            f"{rank} dimensions). Check that images and labels are not swapped."
        )
    return struct.unpack(f">{rank}I", _take(source, file, stream, 4 * rank).tobytes())


def _take(source: Source, file: Path, stream: IO[bytes], size: int) -> NDArray[np.uint8]:
    data = bytearray()
    # In pieces: a header that lies would have all that it promises set aside at once.
    while len(data) < size and (piece := _read(source, file, stream, min(size - len(data), _PIECE))):
        data += piece
    if len(data) != size:
        raise SourceError(
            f"{source.title}: {file} is cut short: {size} bytes expected, {len(data)} found. Fetch it again."
        )
    return np.frombuffer(data, dtype=np.uint8)


def _check_end(source: Source, file: Path, stream: IO[bytes], count: int) -> None:
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
