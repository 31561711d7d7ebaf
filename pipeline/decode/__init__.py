"""Encoded batch -> images, rejects: canonical pixels as columns, in the order of the source."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.decode.picture import Unfit, convert, decode, strict_pillow
from pipeline.encoded import Blobs, Contents, Encoded, Files, Made, Pixels, Refused
from pipeline.hashing import content_hashes, digest_of, image_ids, pixel_sums
from pipeline.recipe import DecodePart
from pipeline.rows import to_binary

# One row group: Polars and DuckDB decode whole groups, and a worker holds one at a time.
_GROUP_BYTES = 16 * 2**20
# Raise when pixels can come out differently than before: every shard is then decoded again.
_VERSION = "pillow-2"

_Pixels = NDArray[np.uint8]


class Decoded(NamedTuple):
    """Images of one shape.

    Attributes:
        images: rows of the images table, without its partition columns.
        pixels: the same pixels as (n, height, width, channels) uint8, sharing memory with `images`.
    """

    images: pa.Table
    pixels: _Pixels


class _Picture(NamedTuple):
    position: int
    file_size: int
    pixels: _Pixels


class _Group(NamedTuple):
    positions: Sequence[int]
    file_sizes: Sequence[int]
    pixels: _Pixels


def decoder_name(spec: DecodePart) -> str:
    """Name the decoder and the settings that change what it makes, for the shards table."""
    settings = spec.model_dump(mode="json", exclude_defaults=True)
    if spec.on_mismatch == "reject":
        settings.pop("background", None)
    return f"{_VERSION}:{digest_of(settings)[:16]}"


def decode_shard(shard: Encoded, dataset: str, split: str, spec: DecodePart) -> Iterator[Decoded | Refused]:
    """Decode a shard.

    Streams: about 16 MiB of pixels are held at a time. The order of the source is kept; images of several sizes are
    grouped by size within each such run.

    Args:
        shard: what the source handed out.
        dataset: dataset name, part of every image_id.
        split: split name, part of every image_id.
        spec: the recipe's `[decode]`.

    Yields:
        Images in groups of one shape, and every file that became none: together they account for each file once.
    """
    yield from shard.refused
    if isinstance(shard.contents, Made):
        shard = replace(shard, contents=shard.contents.make())
    ready = shard.contents.array if isinstance(shard.contents, Pixels) else None
    groups = _ready(ready) if ready is not None and _fits(ready, spec) else _groups(_pictures(shard, spec))
    for group in groups:
        yield group if isinstance(group, Refused) else _columns(shard, dataset, split, group)


def rejects_table(refused: Sequence[Refused], shard: str, dataset: str, split: str) -> pa.Table:
    """Write files that became no image as rows of the rejects table, in the order given."""
    rows = [{**item._asdict(), "shard": shard, "dataset": dataset, "split": split} for item in refused]
    return pa.Table.from_pylist(rows, schema=schemas.TABLES["rejects"].schema)


def _fits(array: _Pixels, spec: DecodePart) -> bool:
    _, height, width, channels = array.shape
    right_size = spec.size in (None, (height, width)) and height * width <= spec.max_pixels
    return right_size and channels == spec.channels


def _pictures(shard: Encoded, spec: DecodePart) -> Iterator[_Picture | Refused]:
    for position, (path, label) in enumerate(zip(shard.paths, shard.labels, strict=True)):
        size = 0
        try:
            content = _content(shard.contents, position, spec)
            size = len(content) if isinstance(content, bytes) else content.nbytes
            pixels = decode(content, spec) if isinstance(content, bytes) else convert(content, spec)
            yield _Picture(position, size, pixels)
        except Unfit as unfit:
            yield Refused(path, label, unfit.reason, unfit.detail, size)
        except OSError as error:
            yield Refused(path, label, "unreadable", f"{error.strerror or error}", 0)


def _content(contents: Contents, position: int, spec: DecodePart) -> bytes | _Pixels:
    match contents:
        case Pixels(array):
            picture: _Pixels = array[position]
            return picture
        case Blobs(data):
            return data[position]
        case Files(names):
            return _file(names[position], spec)
        case Made():
            raise AssertionError("made before it is decoded")


def _file(name: str, spec: DecodePart) -> bytes:
    with Path(name).open("rb") as stream:
        # The file may have grown since it was listed: one byte more than is allowed is enough to turn it away.
        return stream.read(min(os.fstat(stream.fileno()).st_size, spec.max_bytes) + 1)


def _groups(pictures: Iterator[_Picture | Refused]) -> Iterator[_Group | Refused]:
    while run := _run(pictures):
        yield from run


def _run(pictures: Iterator[_Picture | Refused]) -> list[_Group | Refused]:
    """Decode until about a group is full. Pillow's settings are the caller's own again between two runs."""
    refused: list[Refused] = []
    taken: dict[tuple[int, ...], list[_Picture]] = {}
    room = _GROUP_BYTES
    with strict_pillow():
        for picture in pictures:
            if isinstance(picture, Refused):
                refused.append(picture)
                continue
            taken.setdefault(picture.pixels.shape, []).append(picture)
            room -= picture.pixels.nbytes
            if room <= 0:
                break
    return [*refused, *map(_stack, taken.values())]


def _stack(pictures: list[_Picture]) -> _Group:
    positions, file_sizes, pixels = zip(*pictures, strict=True)
    return _Group(positions, file_sizes, np.stack(pixels))


def _ready(array: _Pixels) -> Iterator[_Group]:
    """Cut pixels that need no conversion into groups: views, not copies."""
    row = max(1, array[0].nbytes) if len(array) else 1
    step = max(1, _GROUP_BYTES // row)
    for start in range(0, len(array), step):
        part = array[start : start + step]
        yield _Group(range(start, start + len(part)), [row] * len(part), part)


def _columns(shard: Encoded, dataset: str, split: str, group: _Group) -> Decoded:
    pixels = group.pixels
    count, height, width, channels = pixels.shape
    paths = [shard.paths[position] for position in group.positions]
    columns = [
        to_binary(image_ids(dataset, split, paths)),
        pa.array(paths, pa.string()),
        pa.array([shard.labels[position] for position in group.positions], pa.string()),
        pa.array(np.full(count, height, np.int32)),
        pa.array(np.full(count, width, np.int32)),
        pa.array(np.full(count, channels, np.int16)),
        to_binary(pixels.reshape(count, -1)),
        to_binary(content_hashes(pixels)),
        *map(pa.array, pixel_sums(pixels)),
        pa.array(group.file_sizes, pa.int64()),
    ]
    return Decoded(pa.Table.from_arrays(columns, schema=schemas.TABLES["images"].file_schema), pixels)
