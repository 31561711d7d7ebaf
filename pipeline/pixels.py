"""Find where the images of a split lie: which row group, which row. Joins ids; opens no pixel.

Read pixels of located images into one array: every pixel is copied once, from the decompressed page to its place.

Find and read images of several shapes: as `locate` and `gather` do for one, into one run of bytes.

How pixels become numbers to learn from.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage
from pipeline.arrow_binary import from_binary
from pipeline.errors import LakeError

_SHAPE = ["height", "width", "channels"]


class RowGroup(NamedTuple):
    """A row group: the smallest piece of a Parquet file that can be read by itself."""

    file: str
    number: int


@dataclass(frozen=True)
class Located:
    """Where wanted images lie.

    Attributes:
        groups: every row group of the images table, in the order of files.
        rows: (groups,) int64 how many rows each has, wanted or not.
        group: (n,) int32 position in `groups`, for each wanted image in the order asked for.
        row: (n,) int32 row inside that row group.
        shape: (height, width, channels) that all of them have.
    """

    groups: tuple[RowGroup, ...]
    rows: NDArray[np.int64]
    group: NDArray[np.int32]
    row: NDArray[np.int32]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.group)

    def take(self, positions: NDArray[np.int64]) -> "Located":
        """Keep some of the images, in the order given."""
        return replace(self, group=self.group[positions], row=self.row[positions])

    def file_order(self) -> NDArray[np.int64]:
        """Order the images as they lie on disk: (n,) positions, by row group and row."""
        return np.argsort(self.group.astype(np.int64) << 32 | self.row)


def locate(files: Sequence[str], image_ids: pl.Series) -> Located:
    """Find images by id.

    Args:
        files: Parquet files of the images table.
        image_ids: binary, unique, in the order wanted.

    Raises:
        LakeError: an id is in none of the files, or the images are not all of one shape.
    """
    if not files or image_ids.is_empty():
        none = np.empty(0, np.int32)
        return Located((), np.empty(0, np.int64), none, none, (0, 0, 0))
    scanned = storage.scan_parquet(files).select("image_id", *_SHAPE).collect()
    at = find(id_matrix(scanned["image_id"]), id_matrix(image_ids))
    if missing := np.count_nonzero(at < 0):
        raise LakeError(f"{missing} images of the split are not in the images table. Build again.")
    groups, rows = _row_groups(files)
    group = np.repeat(np.arange(len(rows), dtype=np.int32), rows)[at]
    row = (at - (np.cumsum(rows) - rows)[group]).astype(np.int32)
    return Located(groups, rows, group, row, _shape(scanned.select(_SHAPE), at))


def id_matrix(image_ids: pl.Series) -> NDArray[np.uint8]:
    """See ids as the rows of a matrix: (n, 16) uint8, read-only."""
    return from_binary(image_ids.to_arrow(compat_level=pl.CompatLevel.oldest()), 16)


def find(ids: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find wanted ids among all: (n,) positions, -1 where there is none.

    Ids are random, so that their first halves nearly always tell them apart: sorting these takes a third of the time of
    a hash join of whole ids.
    """
    halves, sought = (np.ascontiguousarray(matrix).view("<u8") for matrix in (ids, wanted))
    # Both are sorted: searching in ascending order stays in the cache.
    first, searched = (np.ascontiguousarray(half[:, 0]) for half in (halves, sought))
    order, by = np.argsort(first), np.argsort(searched)
    place = np.searchsorted(first[order], searched[by])
    at = np.empty(len(wanted), dtype=np.int64)
    at[by] = order[np.minimum(place, len(order) - 1)]
    odd = np.flatnonzero((halves[at] != sought).any(axis=1))
    if len(odd):
        left, right = (pl.DataFrame({"id": map(bytes, wanted[odd])}), pl.DataFrame({"id": map(bytes, ids)}))
        found = left.join(right.with_row_index("at"), on="id", how="left", maintain_order="left")["at"]
        at[odd] = found.cast(pl.Int64).fill_null(-1).to_numpy()
    return at


def _shape(every: pl.DataFrame, at: NDArray[np.int64]) -> tuple[int, int, int]:
    # Most lakes have one shape, and picking rows takes longer than looking at all.
    shapes = every.unique()
    if len(shapes) > 1:
        shapes = every.select(pl.all().gather(at)).unique()
    if len(shapes) > 1:
        listed = ", ".join("x".join(map(str, row)) for row in shapes.sort(_SHAPE).head(5).rows())
        raise LakeError(f"the images have several shapes ({listed}): set decode.size in the recipe to get one array.")
    height, width, channels = shapes.row(0)
    return height, width, channels


def _row_groups(files: Sequence[str]) -> tuple[tuple[RowGroup, ...], NDArray[np.int64]]:
    """List the row groups and count the rows of each. Reads footers only."""
    footers = dict(zip(files, storage.read_footers(files), strict=True))
    groups = tuple(RowGroup(file, at) for file, footer in footers.items() for at in range(footer.num_row_groups))
    return groups, np.array([footers[file].row_group(at).num_rows for file, at in groups], dtype=np.int64)


def gather(where: Located) -> NDArray[np.uint8]:
    """Read pixels in the order asked for.

    Only the row groups that hold wanted images are read, each once, in threads. Besides the result, at most one row
    group a thread is held. Images asked for as they lie on disk (`Located.file_order`) are read fastest.

    Args:
        where: which images.

    Returns:
        (n, height, width) uint8 for gray, (n, height, width, 3) for RGB, 0 to 255, C-contiguous.
    """
    out = np.empty((len(where), prod(where.shape)), dtype=np.uint8)
    order = where.file_order()
    edges = np.searchsorted(where.group[order], np.arange(len(where.groups) + 1))
    wanted = np.flatnonzero(np.diff(edges))
    if not len(wanted):
        return shaped(out, where.shape)

    def fill(group: int) -> None:
        places = order[edges[group] : edges[group + 1]]
        _fill(out, where.groups[group], where.row[places], places)

    with ThreadPoolExecutor(min(len(wanted), threads())) as pool:
        # list() so that an error in a thread is raised here.
        list(pool.map(fill, wanted.tolist()))
    return shaped(out, where.shape)


def threads() -> int:
    """Tell how many threads read: as many as this process may use cores."""
    return len(os.sched_getaffinity(0))


def shaped(rows: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """See rows of bytes as pictures, without a copy: (n, height, width) for gray, (n, height, width, 3) for RGB."""
    height, width, channels = shape
    return rows.reshape(len(rows), height, width, *([channels] if channels > 1 else []))


def _fill(out: NDArray[np.uint8], group: RowGroup, rows: NDArray[np.int32], places: NDArray[np.int64]) -> None:
    """Copy ascending rows of a row group to their places."""
    # Buffering ahead would copy the compressed group once more, and other threads read meanwhile anyway.
    with storage.open_parquet(group.file, pre_buffer=False) as file:
        chunks = file.read_row_group(group.number, columns=["pixels"], use_threads=False).column(0).chunks
    # One chunk unless the group is over 2 GiB, and then row groups were not written by imagelake.
    views = [from_binary(chunk, out.shape[1]) for chunk in chunks]
    pixels = views[0] if len(views) == 1 else np.concatenate(views)
    if places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
        # mode="raise" would gather into a buffer first and copy that.
        np.take(pixels, rows, axis=0, out=out[places[0] : places[-1] + 1], mode="clip")
    else:
        out[places] = pixels[rows]


# A file and the number of a row group in it.
Place: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class Scattered:
    """Where images of any shape lie.

    Attributes:
        groups: every row group of the images table.
        group: (n,) int64 position in `groups`, for each image in the order asked for.
        row: (n,) int64 row inside that row group.
    """

    groups: tuple[Place, ...]
    group: NDArray[np.int64]
    row: NDArray[np.int64]


def locate_scattered(files: Sequence[str], image_ids: pl.Series) -> Scattered:
    """Find images by id.

    Args:
        files: Parquet files of the images table.
        image_ids: binary, unique, in the order wanted.

    Raises:
        LakeError: an id is in none of the files.
    """
    scanned = storage.scan_parquet(files, row_index_name="at")
    wanted = pl.LazyFrame({"image_id": image_ids})
    found = wanted.join(scanned.select("image_id", "at"), on="image_id", how="left", maintain_order="left").collect()
    if missing := found["at"].null_count():
        raise LakeError(f"{missing} images of the split are not in the images table. Build again.")
    footers = dict(zip(files, storage.read_footers(files), strict=True))
    groups = tuple((file, n) for file, footer in footers.items() for n in range(footer.num_row_groups))
    starts = np.cumsum([0, *(footers[file].row_group(number).num_rows for file, number in groups)])
    at = found["at"].to_numpy().astype(np.int64)
    group = np.searchsorted(starts, at, side="right") - 1
    return Scattered(groups, group, at - starts[group])


def gather_scattered(where: Scattered, start: int, stop: int) -> NDArray[np.uint8]:
    """Read the pixels of images start to stop, one after the other.

    Besides the result, one row group is held.

    Returns:
        Their bytes, in the order asked for, uint8.
    """
    group, row = where.group[start:stop], where.row[start:stop]
    order = np.lexsort((row, group))
    wanted, firsts = np.unique(group[order], return_index=True)
    parts = [
        _rows(where.groups[number], row[places])
        for number, places in zip(wanted.tolist(), np.split(order, firsts[1:]), strict=True)
    ]
    # large_binary: what is gathered may be over 2 GiB where a single picture is huge.
    as_read = pa.concat_arrays(parts)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    asked = as_read.take(pa.array(back))
    offsets = np.frombuffer(asked.buffers()[1], np.int64)[asked.offset :][: len(asked) + 1]
    return np.frombuffer(asked.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]


def _rows(group: Place, rows: NDArray[np.int64]) -> pa.LargeBinaryArray:
    with storage.open_parquet(group[0], pre_buffer=False) as file:
        column = file.read_row_group(group[1], columns=["pixels"], use_threads=False).column(0)
    return column.cast(pa.large_binary()).take(pa.array(rows)).combine_chunks()


# (p - 127.5) / 255 for every byte value: looking it up is exact and faster than computing it.
_NORMALISED = ((np.arange(256) - 127.5) / 255).astype(np.float32)


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale pixels as the notMNIST notebooks do: (p - 127.5) / 255.

    Args:
        pixels: uint8 of any shape.

    Returns:
        float32 of the same shape, -0.5 to 0.5.
    """
    return _NORMALISED[pixels]
