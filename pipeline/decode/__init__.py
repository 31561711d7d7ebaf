"""Encoded batch -> images, rejects: canonical pixels as columns, in the order of the source."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_binary import to_binary
from pipeline.decode.files import Picture, fits, pictures
from pipeline.decode.picture import strict_pillow
from pipeline.hashing import content_hashes, digest_of, image_ids, pixel_sums
from pipeline.recipe import DecodePart
from pipeline.shard import Encoded, Made, Pixels, Refused

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
        converted: how many of them were of the other kind: colour where the mode is L, gray where it is RGB.
    """

    images: pa.Table
    pixels: _Pixels
    converted: int = 0


class _Group(NamedTuple):
    positions: Sequence[int]
    file_sizes: Sequence[int]
    pixels: _Pixels
    converted: int = 0


def decoder_name(spec: DecodePart) -> str:
    """Name the decoder and the settings that change what it makes, for the shards table.

    The settings are spelled as version 0.5 spelled them, so that its lakes are not decoded again: L and "reject" are
    left out, and "convert" is "resize".
    """
    settings = spec.model_dump(mode="json", exclude_defaults=True, exclude={"mode", "on_mismatch"})
    if spec.mode == "RGB":
        settings["mode"] = spec.mode
    if spec.converts:
        settings["on_mismatch"] = "resize"
    else:
        settings.pop("background", None)
        settings.pop("fit", None)
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
    whole = ready is not None and fits(ready.shape[1:], spec)
    groups = _ready(ready) if ready is not None and whole else _groups(pictures(shard, spec))
    for group in groups:
        yield group if isinstance(group, Refused) else _columns(shard, dataset, split, group)


def rejects_table(refused: Sequence[Refused], shard: str, dataset: str, split: str) -> pa.Table:
    """Write files that became no image as rows of the rejects table, in the order given."""
    rows = [{**item._asdict(), "shard": shard, "dataset": dataset, "split": split} for item in refused]
    return pa.Table.from_pylist(rows, schema=schemas.TABLES["rejects"].schema)


def _groups(found: Iterator[Picture | Refused]) -> Iterator[_Group | Refused]:
    while run := _run(found):
        yield from run


def _run(found: Iterator[Picture | Refused]) -> list[_Group | Refused]:
    """Decode until about a group is full. Pillow's settings are the caller's own again between two runs."""
    refused: list[Refused] = []
    taken: dict[tuple[int, ...], list[Picture]] = {}
    room = _GROUP_BYTES
    with strict_pillow():
        for picture in found:
            if isinstance(picture, Refused):
                refused.append(picture)
                continue
            pixels = picture[2]
            taken.setdefault(pixels.shape, []).append(picture)
            room -= pixels.nbytes
            if room <= 0:
                break
    return [*refused, *map(_stack, taken.values())]


def _stack(taken: list[Picture]) -> _Group:
    positions, file_sizes, pixels, converted = zip(*taken, strict=True)
    # Like np.stack, without its work in Python for every picture.
    stacked = np.concatenate(pixels).reshape(len(taken), *pixels[0].shape)
    return _Group(positions, file_sizes, stacked, sum(converted))


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
    return Decoded(pa.Table.from_arrays(columns, schema=schemas.TABLES["images"].file_schema), pixels, group.converted)
