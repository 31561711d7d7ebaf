"""Decode shards to rows of the tables `images` and `rejects`, in the order of the source.

Images are decoded one by one: with a fast decoder if possible, else with Pillow.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import FileIO
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_columns import to_binary, to_bytes, to_numbers, to_strings, to_table
from pipeline.decode.fast_decoders import fast_decoder
from pipeline.decode.picture import Rejected, convert, decode, strict_pillow
from pipeline.hashing import content_hashes, digest_of, file_digest, image_ids, pixel_digests, pixel_sums
from pipeline.limits import raise_limit
from pipeline.recipe import DecodePart
from pipeline.shard import Blobs, Deferred, Encoded, Files, Pixels, Reject

# Position in the shard, size of the file in bytes, (height, width, channels) uint8, whether colour or gray was
# converted, and the digest of the file. A plain tuple, because creating millions of named tuples is slow.
DecodedImage: TypeAlias = tuple[int, int, NDArray[np.uint8], bool, bytes]


def decode_images(shard: Encoded, spec: DecodePart) -> Iterator[DecodedImage | Reject]:
    """Decode the files of a shard, in order. Consume the iterator inside `strict_pillow()`.

    Args:
        shard: whose contents are not `Deferred`.
        spec: the recipe's `[decode]`.

    Yields:
        For every file the image, in the recipe's size and mode, or the reject.
    """
    contents = shard.contents
    if isinstance(contents, Deferred):
        raise TypeError("the contents of the shard are not made yet")
    if isinstance(contents, Pixels):
        yield from _convert_pixels(shard, contents.array, spec)
        return
    load = contents.data.__getitem__ if isinstance(contents, Blobs) else partial(_read_file, contents, spec)
    decode_fast = fast_decoder(spec)
    wanted_shape = None if spec.size is None else (*spec.size, spec.channels)
    for position in range(len(shard.paths)):
        size = 0
        try:
            data = load(position)
            size = len(data)
            fast = decode_fast(data)
            if fast is None:
                pixels, converted = decode(data, spec)
            elif fast[0].shape == wanted_shape or needs_no_conversion(fast[0].shape, spec):
                pixels, converted = fast[0], False
            else:
                pixels, converted = convert(fast[0], spec, fast[1])
            yield position, size, pixels, converted, file_digest(data)
        except Rejected as rejected:
            yield _reject(shard, position, size, rejected)
        except OSError as error:
            raise_limit(error)
            yield _reject(shard, position, 0, Rejected("unreadable", f"{error.strerror or error}"))


def needs_no_conversion(shape: tuple[int, ...], spec: DecodePart) -> bool:
    """Return whether an image of shape (height, width, channels) has the recipe's size and mode."""
    height, width, channels = shape
    right_size = spec.size in (None, (height, width)) and (spec.longest is None or max(height, width) <= spec.longest)
    return right_size and height * width <= spec.max_pixels and channels == spec.channels


def _convert_pixels(shard: Encoded, array: NDArray[np.uint8], spec: DecodePart) -> Iterator[DecodedImage | Reject]:
    for position, pixels in enumerate(array):
        try:
            yield position, pixels.nbytes, *convert(pixels, spec), *pixel_digests(pixels[None])
        except Rejected as rejected:
            yield _reject(shard, position, pixels.nbytes, rejected)


def _read_file(contents: Files, spec: DecodePart, position: int) -> bytes:
    with FileIO(contents.names[position]) as stream:
        # The file may have grown since it was listed. One byte above the limit is enough to reject it.
        return stream.read(min(os.fstat(stream.fileno()).st_size, spec.max_bytes) + 1)


def _reject(shard: Encoded, position: int, size: int, rejected: Rejected) -> Reject:
    return Reject(shard.paths[position], shard.labels[position], rejected.reason, rejected.detail, size)


# Pixels of one row group. Polars and DuckDB decode whole row groups, and a worker holds one at a time.
_GROUP_BYTES = 16 * 2**20
# Change it when pixels can differ from those of earlier versions: every shard is then decoded again.
_VERSION = "pillow-2"

_Pixels = NDArray[np.uint8]


class Decoded(NamedTuple):
    """Images of one shape.

    Attributes:
        images: rows of the images table, without its partition columns.
        pixels: the same pixels as (n, height, width, channels) uint8, sharing memory with `images`.
        converted: how many were converted between colour and gray: colour if the mode is L, gray if it is RGB.
    """

    images: pa.Table
    pixels: _Pixels
    converted: int = 0


class _Group(NamedTuple):
    positions: Sequence[int]
    file_sizes: Sequence[int]
    pixels: _Pixels
    digests: Sequence[bytes]
    converted: int = 0


def decoder_name(spec: DecodePart) -> str:
    """Name the decoder and a digest of the settings that change its output, for the shards table.

    The settings have the names of version 0.5, so that its lakes are not decoded again: L and "reject" are left out,
    and "convert" is "resize".
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


def decode_shard(shard: Encoded, dataset: str, split: str, spec: DecodePart) -> Iterator[Decoded | Reject]:
    """Decode a shard.

    Streams: about 16 MiB of pixels are in memory at a time. The order of the source is kept, except that images of
    several sizes are grouped by size within each 16 MiB.

    Args:
        shard: the encoded shard.
        dataset: dataset name, part of every image_id.
        split: split name, part of every image_id.
        spec: the recipe's `[decode]`.

    Yields:
        Images in groups of one shape, and one reject for every other file.
    """
    yield from shard.rejects
    if isinstance(shard.contents, Deferred):
        shard = replace(shard, contents=shard.contents.make())
    array = shard.contents.array if isinstance(shard.contents, Pixels) else None
    if array is not None and needs_no_conversion(array.shape[1:], spec):
        groups: Iterator[_Group | Reject] = _groups_of_pixels(array)
    else:
        groups = _groups_of_images(decode_images(shard, spec))
    for group in groups:
        yield group if isinstance(group, Reject) else _to_table(shard, dataset, split, group)


def rejects_table(rejects: Sequence[Reject], shard: str, dataset: str, split: str) -> pa.Table:
    """Return rejects as rows of the rejects table, in the order given."""
    rows = [{**item._asdict(), "shard": shard, "dataset": dataset, "split": split} for item in rejects]
    return to_table(rows, schemas.TABLES["rejects"].schema)


def _groups_of_images(found: Iterator[DecodedImage | Reject]) -> Iterator[_Group | Reject]:
    while groups := _decode_group(found):
        yield from groups


def _decode_group(found: Iterator[DecodedImage | Reject]) -> list[_Group | Reject]:
    """Decode until 16 MiB of pixels are there. Between two calls Pillow has the caller's settings."""
    rejects: list[Reject] = []
    by_shape: dict[tuple[int, ...], list[DecodedImage]] = {}
    bytes_left = _GROUP_BYTES
    with strict_pillow():
        for image in found:
            if isinstance(image, Reject):
                rejects.append(image)
                continue
            pixels = image[2]
            by_shape.setdefault(pixels.shape, []).append(image)
            bytes_left -= pixels.nbytes
            if bytes_left <= 0:
                break
    return [*rejects, *map(_stack, by_shape.values())]


def _stack(images: list[DecodedImage]) -> _Group:
    positions, file_sizes, pixels, converted, digests = zip(*images, strict=True)
    # Like np.stack, but without Python work for every image.
    stacked = np.concatenate(pixels).reshape(len(images), *pixels[0].shape)
    return _Group(positions, file_sizes, stacked, digests, sum(converted))


def _groups_of_pixels(array: _Pixels) -> Iterator[_Group]:
    """Cut pixels that need no conversion into groups. They are views, not copies."""
    row = max(1, array[0].nbytes) if len(array) else 1
    step = max(1, _GROUP_BYTES // row)
    for start in range(0, len(array), step):
        part = array[start : start + step]
        yield _Group(range(start, start + len(part)), [row] * len(part), part, pixel_digests(part))


def _to_table(shard: Encoded, dataset: str, split: str, group: _Group) -> Decoded:
    pixels = group.pixels
    count, height, width, channels = pixels.shape
    paths = [shard.paths[position] for position in group.positions]
    columns = [
        to_binary(image_ids(dataset, split, paths)),
        to_strings(paths),
        to_strings([shard.labels[position] for position in group.positions]),
        to_numbers(np.full(count, height, np.int32)),
        to_numbers(np.full(count, width, np.int32)),
        to_numbers(np.full(count, channels, np.int16)),
        to_binary(pixels.reshape(count, -1)),
        to_binary(content_hashes(pixels)),
        to_bytes(group.digests),
        *map(to_numbers, pixel_sums(pixels)),
        to_numbers(np.array(group.file_sizes, np.int64)),
    ]
    return Decoded(pa.Table.from_arrays(columns, schema=schemas.TABLES["images"].file_schema), pixels, group.converted)
