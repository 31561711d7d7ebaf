"""Decode shards to rows of the tables `images`, `originals` and `rejects`, in the order of the source.

Images are decoded one by one: with a fast decoder if possible, else with Pillow.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import FileIO
from itertools import pairwise
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_columns import to_binary, to_bytes, to_numbers, to_strings, to_table
from pipeline.decode.facts import Facts, facts_of
from pipeline.decode.fast_decoders import FastDecoder, fast_decoder
from pipeline.decode.large_pictures import in_turn
from pipeline.decode.picture import Rejected, convert, decode, strict_pillow
from pipeline.hashing import (
    content_hashes,
    digest_of,
    file_digest,
    image_ids,
    pixel_digests,
    pixel_sums,
    with_shape,
)
from pipeline.limits import raise_limit
from pipeline.recipe import DecodePart
from pipeline.shard import Blobs, Deferred, Encoded, Files, Pixels, Reject
from schemas.images import PIXELS


class StoredOriginal(NamedTuple):
    """An original that the lake has: its facts and, if the lake keeps them, its bytes."""

    facts: Facts
    data: bytes


class StoredImage(NamedTuple):
    """An image that the lake has, made from an unchanged file with the same settings.

    Attributes:
        file_size: bytes of the file.
        pixels: (height, width, channels) uint8.
        digest: of the file.
        original: its original; None if the lake has none.
    """

    file_size: int
    pixels: NDArray[np.uint8]
    digest: bytes
    original: StoredOriginal | None


# Position in the shard, size of the file in bytes, (height, width, channels) uint8, whether colour or gray was
# converted, the digest of the file, and the file itself, or the pixels as they came where they were converted, or its
# stored original. A plain tuple, because creating millions of named tuples is slow.
DecodedImage: TypeAlias = tuple[int, int, NDArray[np.uint8], bool, bytes, bytes | NDArray[np.uint8] | StoredOriginal]
# By position in a shard, its image if the lake has it; None if the file must be decoded.
FindStored: TypeAlias = Callable[[int], StoredImage | None]


def decode_images(
    shard: Encoded, spec: DecodePart, stored: FindStored | None = None
) -> Iterator[DecodedImage | Reject]:
    """Decode the files of a shard, in order. Consume the iterator inside `strict_pillow()`.

    Args:
        shard: whose contents are not `Deferred`.
        spec: the recipe's `[decode]`.
        stored: returns images that need not be decoded.

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
    for position in range(len(shard.paths)):
        size = 0
        if stored is not None and (found := stored(position)) is not None:
            yield position, found.file_size, found.pixels, False, found.digest, found.original or b""
            continue
        try:
            data = load(position)
            size = len(data)
            pixels, converted = decode_file(data, spec, decode_fast)
            yield position, size, pixels, converted, file_digest(data), data
        except Rejected as rejected:
            yield _reject(shard, position, size, rejected)
        except OSError as error:
            raise_limit(error)
            yield _reject(shard, position, 0, Rejected("unreadable", f"{error.strerror or error}"))


def decode_file(data: bytes, spec: DecodePart, decode_fast: FastDecoder) -> tuple[NDArray[np.uint8], bool]:
    """Decode a file to the recipe's size and mode; see `picture.decode`.

    Args:
        data: the encoded file.
        spec: the recipe's `[decode]`, with its mode set.
        decode_fast: made by `fast_decoder` for the same settings.
    """
    with in_turn(data, spec):
        fast = decode_fast(data)
        if fast is None:
            return decode(data, spec)
        pixels, native = fast
        return (pixels, False) if needs_no_conversion(pixels.shape, spec) else convert(pixels, spec, native)


def needs_no_conversion(shape: tuple[int, ...], spec: DecodePart) -> bool:
    """Return whether an image of shape (height, width, channels) has the recipe's size and mode."""
    height, width, channels = shape
    right_size = spec.size in (None, (height, width)) and (spec.longest is None or max(height, width) <= spec.longest)
    return right_size and height * width <= spec.max_pixels and channels == spec.channels


def _convert_pixels(shard: Encoded, array: NDArray[np.uint8], spec: DecodePart) -> Iterator[DecodedImage | Reject]:
    for position, pixels in enumerate(array):
        try:
            yield position, pixels.nbytes, *convert(pixels, spec), *pixel_digests(pixels[None]), pixels
        except Rejected as rejected:
            yield _reject(shard, position, pixels.nbytes, rejected)


def _read_file(contents: Files, spec: DecodePart, position: int) -> bytes:
    with FileIO(contents.names[position]) as stream:
        # The file may have grown since it was listed. One byte above the limit is enough to reject it.
        return stream.read(min(os.fstat(stream.fileno()).st_size, spec.max_bytes) + 1)


def _reject(shard: Encoded, position: int, size: int, rejected: Rejected) -> Reject:
    return Reject(shard.paths[position], shard.labels[position], rejected.reason, rejected.detail, size)


# Content of a row group of images or originals, in bytes: pixels, or encoded files. Polars and DuckDB decode whole row
# groups, and a worker holds one of each. Rows wait until they have a third more, so that none is left for a small row
# group at the end: all are of 8 to 32 MB, but for files of the lake that have less, and larger images.
_GROUP_BYTES = 24_000_000
# Change it when pixels can differ from those of earlier versions: every shard is then decoded again.
_VERSION = "pillow-2"

_Pixels = NDArray[np.uint8]
_Item = TypeVar("_Item")


class Decoded(NamedTuple):
    """Images of one shape.

    Attributes:
        images: rows of the images table, without its partition columns.
        pixels: the same pixels as (n, height, width, channels) uint8, sharing memory with `images`.
        positions: (n,) int64, of the images in the shard.
        converted: how many were converted between colour and gray: colour if the mode is L, gray if it is RGB.
        ends_group: whether a row group of the images table ends with them.
    """

    images: pa.Table
    pixels: _Pixels
    positions: NDArray[np.int64]
    converted: int = 0
    ends_group: bool = True


class Originals(NamedTuple):
    """Encoded files: `rows` of one row group of the originals table, without its partition columns."""

    rows: pa.Table


class _Group(NamedTuple):
    positions: Sequence[int]
    file_sizes: Sequence[int]
    pixels: _Pixels
    digests: Sequence[bytes]
    converted: int = 0
    ends_group: bool = True


class _Original(NamedTuple):
    position: int
    digest: bytes
    facts: Facts
    data: bytes


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


def decode_shard(  # noqa: PLR0913, PLR0917 - what the rows are made of
    shard: Encoded, dataset: str, split: str, spec: DecodePart, place: str = "", stored: FindStored | None = None
) -> Iterator[Decoded | Originals | Reject]:
    """Decode a shard.

    Streams: about 32 MB of pixels and 32 MB of encoded files are in memory at a time, besides the files that the source
    read. The order of the source is kept, except that images of several sizes are grouped by size within each 24 MB.

    Args:
        shard: the encoded shard.
        dataset: dataset name, part of every image_id.
        split: split name, part of every image_id.
        spec: the recipe's `[decode]`.
        place: where the source is, for the locations of originals; empty if its files have locations of their own.
        stored: returns images that need not be decoded.

    Yields:
        Images in groups of one shape, originals if the recipe stores them, and one reject for every other file.
    """
    yield from shard.rejects
    if isinstance(shard.contents, Deferred):
        shard = replace(shard, contents=shard.contents.make())
    array = shard.contents.array if isinstance(shard.contents, Pixels) else None
    if array is not None and needs_no_conversion(array.shape[1:], spec):
        groups: Iterator[_Group | list[_Original] | Reject] = _groups_of_pixels(array)
    else:
        groups = _groups_of_images(decode_images(shard, spec, stored), spec)
    for group in groups:
        if isinstance(group, Reject):
            yield group
        elif isinstance(group, _Group):
            yield _to_table(shard, dataset, split, group)
        else:
            yield Originals(_originals_table(shard, dataset, split, group, None if spec.originals == "keep" else place))


def rejects_table(rejects: Sequence[Reject], shard: str, dataset: str, split: str) -> pa.Table:
    """Return rejects as rows of the rejects table, in the order given."""
    rows = [{**item._asdict(), "shard": shard, "dataset": dataset, "split": split} for item in rejects]
    return to_table(rows, schemas.TABLES["rejects"].schema)


def _groups_of_images(
    found: Iterator[DecodedImage | Reject], spec: DecodePart
) -> Iterator[_Group | list[_Original] | Reject]:
    images: list[DecodedImage] = []
    originals: list[_Original] = []
    more = True
    while more:
        rejects: list[Reject] = []
        more = _decode_some(found, spec, images, originals, rejects)
        yield from rejects
        for group in _full_groups(images, _pixel_bytes, last=not more):
            by_shape: dict[tuple[int, ...], list[DecodedImage]] = {}
            for image in group:
                by_shape.setdefault(image[2].shape, []).append(image)
            *others, last = map(_stack, by_shape.values())
            yield from (other._replace(ends_group=False) for other in others)
            yield last
        yield from _full_groups(originals, _original_bytes, last=not more)


def _waiting_bytes() -> int:
    return _GROUP_BYTES * 4 // 3


def _pixel_bytes(image: DecodedImage) -> int:
    return image[2].nbytes


def _original_bytes(original: _Original) -> int:
    return len(original.data)


def _decode_some(
    found: Iterator[DecodedImage | Reject],
    spec: DecodePart,
    images: list[DecodedImage],
    originals: list[_Original],
    rejects: list[Reject],
) -> bool:
    """Decode until there are pixels or encoded files of a row group. Returns whether there may be more images.

    Between two calls Pillow has the caller's settings.
    """
    pixels_left = _waiting_bytes() - sum(map(_pixel_bytes, images))
    bytes_left = _waiting_bytes() - sum(map(_original_bytes, originals))
    with strict_pillow():
        for image in found:
            if isinstance(image, Reject):
                rejects.append(image)
                continue
            position, _, pixels, _, digest, data = image
            if spec.stores_originals:
                original = _original(position, digest, data, keep=spec.originals == "keep")
                originals.append(original)
                bytes_left -= len(original.data)
            # The encoded file is not held with the pixels.
            images.append((*image[:5], b""))
            pixels_left -= pixels.nbytes
            if pixels_left <= 0 or bytes_left <= 0:
                return True
    return False


def _original(position: int, digest: bytes, data: bytes | _Pixels | StoredOriginal, *, keep: bool) -> _Original:
    if isinstance(data, StoredOriginal):
        return _Original(position, digest, data.facts, data.data)
    if isinstance(data, bytes):
        return _Original(position, digest, facts_of(data), data if keep else b"")
    height, width, _ = data.shape
    as_bytes = with_shape(data.reshape(1, -1), data.shape).tobytes() if keep else b""
    return _Original(position, digest, Facts(PIXELS, height, width), as_bytes)


def _full_groups(waiting: list[_Item], size: Callable[[_Item], int], *, last: bool) -> Iterator[list[_Item]]:
    """Take the rows of row groups from the beginning of a list, and leave fewer than would make two; none at the last.

    A row group has `_GROUP_BYTES` or less, but at least one row.
    """
    while waiting:
        ends = np.cumsum([size(item) for item in waiting])
        if ends[-1] < _waiting_bytes() and not last:
            return
        stop = len(waiting) if ends[-1] < _waiting_bytes() else max(1, int(ends.searchsorted(_GROUP_BYTES, "right")))
        yield waiting[:stop]
        del waiting[:stop]


def _stack(images: list[DecodedImage]) -> _Group:
    positions, file_sizes, pixels, converted, digests, _ = zip(*images, strict=True)
    # Like np.stack, but without Python work for every image.
    stacked = np.concatenate(pixels).reshape(len(images), *pixels[0].shape)
    return _Group(positions, file_sizes, stacked, digests, sum(converted))


def _groups_of_pixels(array: _Pixels) -> Iterator[_Group]:
    """Cut pixels that need no conversion into groups of nearly equal size. They are views, not copies."""
    row = max(1, array[0].nbytes) if len(array) else 1
    count = min(-(-array.nbytes // _GROUP_BYTES), len(array))
    edges = np.linspace(0, len(array), count + 1).astype(int).tolist()
    for start, stop in pairwise(edges):
        part = array[start:stop]
        yield _Group(range(start, stop), [row] * len(part), part, pixel_digests(part))


def _originals_table(
    shard: Encoded, dataset: str, split: str, originals: Sequence[_Original], place: str | None
) -> pa.Table:
    """Make rows of originals: with their bytes, or, with the place of the source, their locations."""
    paths = [shard.paths[one.position] for one in originals]
    facts = [one.facts for one in originals]
    locations: list[str | None] = [None] * len(originals)
    if place:
        locations = [f"{place}#{path}" for path in paths]
    elif place is not None and isinstance(shard.contents, Files):
        names = [shard.contents.names[one.position] for one in originals]
        # Names that are not UTF-8 do not fit into a table.
        locations = [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in names]
    columns = [
        to_binary(image_ids(dataset, split, paths)),
        to_bytes([one.digest for one in originals]),
        to_strings([fact.format for fact in facts]),
        to_numbers(np.array([fact.height for fact in facts], np.int32)),
        to_numbers(np.array([fact.width for fact in facts], np.int32)),
        to_strings([fact.taken_at for fact in facts]),
        to_strings([fact.camera for fact in facts]),
        to_bytes([one.data if place is None else None for one in originals]),
        to_strings(locations),
    ]
    return pa.Table.from_arrays(columns, schema=schemas.TABLES["originals"].file_schema)


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
    rows = pa.Table.from_arrays(columns, schema=schemas.TABLES["images"].file_schema)
    return Decoded(rows, pixels, np.array(group.positions, np.int64), group.converted, group.ends_group)
