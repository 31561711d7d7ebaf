"""Decode shards to rows of the tables `images`, `originals` and `rejects`, in the order of the source.

Small PNGs are decoded many at a time, other images one by one: with a fast decoder if possible, else with Pillow.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import FileIO
from itertools import chain, pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_columns import to_binary, to_bytes, to_numbers, to_strings, to_table
from pipeline.decode.facts import Facts, facts_of
from pipeline.decode.fast_decoders import FastDecoder, fast_decoder
from pipeline.decode.large_pictures import in_turn
from pipeline.decode.picture import Rejected, convert, decode, strict_pillow
from pipeline.decode.small_pngs import decode_small_pngs, shape_of, small_png_header
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


class Run(NamedTuple):
    """Decoded images of one shape that follow one another in the shard, but for rejects. Most runs are of one image.

    Attributes:
        positions: of the images in the shard, ascending.
        file_sizes: bytes of each file.
        pixels: (n, height, width, channels) uint8.
        digests: of each file.
        files: each file, or the pixels as they came where they were converted, or its stored original.
        converted: how many were converted between colour and gray.
    """

    positions: Sequence[int]
    file_sizes: Sequence[int]
    pixels: NDArray[np.uint8]
    digests: Sequence[bytes]
    files: Sequence[bytes | NDArray[np.uint8] | StoredOriginal]
    converted: int = 0

    def split(self, count: int) -> tuple["Run", "Run"]:
        """Split off the first images of a run of several, none of which was converted."""
        positions, file_sizes, pixels, digests, files, _ = self
        first, others = (
            Run(positions[part], file_sizes[part], pixels[part], digests[part], files[part])
            for part in (slice(count), slice(count, None))
        )
        return first, others


# By position in a shard, its image if the lake has it; None if the file must be decoded.
FindStored: TypeAlias = Callable[[int], StoredImage | None]
_Loaded: TypeAlias = bytes | StoredImage | Reject
# Files that are read before they are decoded: their number, and their bytes.
_BLOCK_FILES, _BLOCK_BYTES = 4096, 2**22


def decode_images(shard: Encoded, spec: DecodePart, stored: FindStored | None = None) -> Iterator[Run | Reject]:
    """Decode the files of a shard. Consume the iterator inside `strict_pillow()`.

    Args:
        shard: whose contents are not `Deferred`.
        spec: the recipe's `[decode]`.
        stored: returns images of files on disk that need not be decoded.

    Yields:
        Images in the recipe's size and mode, in the order of the shard, and a reject for every other file.
    """
    contents = shard.contents
    if isinstance(contents, Deferred):
        raise TypeError("the contents of the shard are not made yet")
    if isinstance(contents, Pixels):
        yield from _convert_pixels(shard, contents.array, spec)
        return
    decode_fast = fast_decoder(spec)
    start = 0
    for block in _load_blocks(shard, contents, spec, stored):
        small = _decode_small(start, block, spec)
        others = sorted(set(range(start, start + len(block))).difference(small.positions))
        for position in others:
            found = _decode_one(shard, position, block[position - start], spec, decode_fast)
            if isinstance(found, Run):
                before, small = small.split(bisect_left(small.positions, position))
                yield from filter(_has_images, (before, found))
            else:
                yield found
        yield from filter(_has_images, [small])
        start += len(block)


def _has_images(run: Run) -> bool:
    return bool(run.positions)


def _load_blocks(
    shard: Encoded, contents: Blobs | Files, spec: DecodePart, stored: FindStored | None
) -> Iterator[Sequence[_Loaded]]:
    """Read the files of a shard, or find their stored images. At least one is held, and at most the limits above."""
    if isinstance(contents, Blobs):
        yield from (contents.data[start : start + _BLOCK_FILES] for start in range(0, len(shard.paths), _BLOCK_FILES))
        return
    block: list[_Loaded] = []
    held = 0
    for position in range(len(shard.paths)):
        found: _Loaded | None = stored(position) if stored else None
        if found is None:
            try:
                found = _read_file(contents, spec, position)
            except OSError as error:
                found = _unreadable(shard, position, error)
        block.append(found)
        held += found.pixels.nbytes if isinstance(found, StoredImage) else len(found)
        if len(block) >= _BLOCK_FILES or held >= _BLOCK_BYTES:
            yield block
            block, held = [], 0
    if block:
        yield block


def _decode_small(start: int, block: Sequence[_Loaded], spec: DecodePart) -> Run:
    """Decode the small PNGs of a block that have the size and mode of the first that needs no conversion."""
    files = [data if isinstance(data, bytes) and len(data) <= spec.max_bytes else b"" for data in block]
    headers = filter(None, map(small_png_header, files))
    header = next((header for header in headers if needs_no_conversion(shape_of(header), spec)), b"")
    which, pixels = decode_small_pngs(files, header) if header else ([], np.empty((0, 0, 0, 0), np.uint8))
    files = [files[index] for index in which]
    positions = [start + index for index in which]
    return Run(positions, list(map(len, files)), pixels, list(map(file_digest, files)), files)


def _decode_one(
    shard: Encoded, position: int, found: _Loaded, spec: DecodePart, decode_fast: FastDecoder
) -> Run | Reject:
    if isinstance(found, Reject):
        return found
    if isinstance(found, StoredImage):
        original = found.original or b""
        return Run((position,), (found.file_size,), found.pixels[None], (found.digest,), (original,))
    size = len(found)
    try:
        pixels, converted = decode_file(found, spec, decode_fast)
    except Rejected as rejected:
        return _reject(shard, position, size, rejected)
    except OSError as error:
        return _unreadable(shard, position, error)
    return Run((position,), (size,), pixels[None], (file_digest(found),), (found,), converted)


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


def _convert_pixels(shard: Encoded, array: NDArray[np.uint8], spec: DecodePart) -> Iterator[Run | Reject]:
    for position, pixels in enumerate(array):
        try:
            made, converted = convert(pixels, spec)
            digests = pixel_digests(pixels[None])
            yield Run((position,), (pixels.nbytes,), made[None], digests, (pixels,), converted)
        except Rejected as rejected:
            yield _reject(shard, position, pixels.nbytes, rejected)


def _read_file(contents: Files, spec: DecodePart, position: int) -> bytes:
    with FileIO(contents.names[position]) as stream:
        # The file may have grown since it was listed. One byte above the limit is enough to reject it.
        return stream.read(min(os.fstat(stream.fileno()).st_size, spec.max_bytes) + 1)


def _reject(shard: Encoded, position: int, size: int, rejected: Rejected) -> Reject:
    return Reject(shard.paths[position], shard.labels[position], rejected.reason, rejected.detail, size)


def _unreadable(shard: Encoded, position: int, error: OSError) -> Reject:
    raise_limit(error)
    return _reject(shard, position, 0, Rejected("unreadable", f"{error.strerror or error}"))


# Content of a row group of images or originals, in bytes: pixels, or encoded files. Polars and DuckDB decode whole row
# groups, and a worker holds one of each. Rows wait until they have a third more, so that none is left for a small row
# group at the end: all are of 8 to 32 MB, but for files of the lake that have less, and larger images.
_GROUP_BYTES = 24_000_000
# Change it when pixels can differ from those of earlier versions: every shard is then decoded again.
_VERSION = "pillow-2"

_Pixels = NDArray[np.uint8]


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


def _groups_of_images(found: Iterator[Run | Reject], spec: DecodePart) -> Iterator[_Group | list[_Original] | Reject]:
    images: list[Run] = []
    originals: list[_Original] = []
    more = True
    while more:
        rejects: list[Reject] = []
        more = _decode_some(found, spec, images, originals, rejects)
        yield from rejects
        for group in _full_groups(images, last=not more):
            by_shape: dict[tuple[int, ...], list[Run]] = {}
            for run in group:
                by_shape.setdefault(run.pixels.shape[1:], []).append(run)
            *others, last = map(_stack, by_shape.values())
            yield from (other._replace(ends_group=False) for other in others)
            yield last
        while count := _next_rows([len(original.data) for original in originals], last=not more):
            yield originals[:count]
            del originals[:count]


def _waiting_bytes() -> int:
    return _GROUP_BYTES * 4 // 3


def _decode_some(
    found: Iterator[Run | Reject],
    spec: DecodePart,
    images: list[Run],
    originals: list[_Original],
    rejects: list[Reject],
) -> bool:
    """Decode until there are pixels or encoded files of a row group. Returns whether there may be more images.

    Between two calls Pillow has the caller's settings.
    """
    pixels_left = _waiting_bytes() - sum(run.pixels.nbytes for run in images)
    bytes_left = _waiting_bytes() - sum(len(original.data) for original in originals)
    make_original = partial(_original, keep=spec.originals == "keep")
    with strict_pillow():
        for run in found:
            if isinstance(run, Reject):
                rejects.append(run)
                continue
            if spec.stores_originals:
                new = list(map(make_original, run.positions, run.digests, run.files))
                originals += new
                bytes_left -= sum(len(original.data) for original in new)
            # The encoded files are not held with the pixels.
            images.append(run._replace(files=()))
            pixels_left -= run.pixels.nbytes
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


def _full_groups(waiting: list[Run], *, last: bool) -> Iterator[list[Run]]:
    """Take the images of row groups from the beginning of a list."""
    while counts := [len(run.positions) for run in waiting]:
        count = _next_rows(np.repeat([run.pixels[0].nbytes for run in waiting], counts), last=last)
        if not count:
            return
        ends = np.cumsum(counts)
        whole = int(ends.searchsorted(count, "right"))
        group = waiting[:whole]
        del waiting[:whole]
        if left := count - sum(len(run.positions) for run in group):
            part, waiting[0] = waiting[0].split(left)
            group.append(part)
        yield group


def _next_rows(sizes: Sequence[int] | NDArray[np.int64], *, last: bool) -> int:
    """Return how many of the waiting rows, of some bytes each, are the next row group; 0 if more must come first.

    A row group has `_GROUP_BYTES` or less, but at least one row. Fewer rows than would make two wait, unless at the
    last.
    """
    ends = np.cumsum(sizes)
    if not len(ends) or ends[-1] < _waiting_bytes():
        return len(ends) if last else 0
    return max(1, int(ends.searchsorted(_GROUP_BYTES, "right")))


def _stack(runs: list[Run]) -> _Group:
    positions, file_sizes, pixels, digests, _, converted = zip(*runs, strict=True)
    stacked = np.concatenate(pixels) if len(runs) > 1 else runs[0].pixels
    join = chain.from_iterable
    return _Group(list(join(positions)), list(join(file_sizes)), stacked, list(join(digests)), sum(converted))


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
