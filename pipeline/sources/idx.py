"""IDX files, gzipped or not: MNIST and its kin.

References:
    The format is described on the page of the MNIST database (LeCun, Cortes, Burges): two zero bytes, the type code,
    the number of dimensions, then big-endian uint32 sizes and the data.
"""

import math
import re
import struct
import zlib
from collections.abc import Iterator, Set
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pipeline.encoded import Encoded, Pixels, Survey
from pipeline.errors import SourceError
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    IMAGES_PER_SHARD,
    Source,
    files_fingerprint,
    opened,
    shard_key,
)

_UBYTE = 0x08
_IMAGES_NAME = re.compile(r"images([-.])idx[34]")


def survey(source: Source) -> Survey:
    """Fingerprint both files by size and time; see `pipeline.sources`."""
    labels = labels_file(source)
    return Survey(files_fingerprint(source, source.path, *([labels] if labels else [])))


def read(source: Source, wanted: Set[str] | None = None) -> Iterator[Encoded]:
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
        if not 0 < row <= BYTES_PER_SHARD or (len(shape) == 3 and shape[2] not in (1, 3)):
            raise SourceError(
                f"{source.title}: {source.path} says its images are {shape}: it is damaged, or no images."
            )
        step = min(IMAGES_PER_SHARD, BYTES_PER_SHARD // row)
        for number, start in enumerate(range(0, count, step)):
            rows = min(step, count - start)
            array = _take(source, source.path, stream, rows * row).reshape(rows, *shape, *([1] * (3 - len(shape))))
            key = shard_key(source, number)
            if wanted is None or key in wanted:
                yield _encode(key, fingerprint, start, array, labels)
        if stream.read(1):
            raise SourceError(f"{source.title}: {source.path} goes on behind its {count} images: it is damaged.")


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


def _read_labels(source: Source) -> NDArray[np.uint8] | None:
    file = labels_file(source)
    if file is None:
        return None
    with opened(source, file) as stream:
        (count,) = _header(source, file, stream, dimensions=(1,))
        return _take(source, file, stream, count)


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
        raise SourceError(
            f"{source.title}: {file} is no IDX file of unsigned bytes with {' or '.join(map(str, dimensions))} dimensions "
            f"(type {kind:#04x}, {rank} dimensions). Check that images and labels are not swapped."
        )
    return struct.unpack(f">{rank}I", _take(source, file, stream, 4 * rank).tobytes())


def _take(source: Source, file: Path, stream: IO[bytes], size: int) -> NDArray[np.uint8]:
    try:
        data = stream.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{source.title}: {file} is damaged or cut short ({error}). Fetch it again.") from error
    if len(data) != size:
        raise SourceError(
            f"{source.title}: {file} is cut short: {size} bytes expected, {len(data)} found. Fetch it again."
        )
    return np.frombuffer(data, dtype=np.uint8)
