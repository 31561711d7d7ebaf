"""Find where the images of a split lie: which row group, which row. Joins ids; opens no pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import storage
from pipeline.errors import LakeError
from pipeline.rows import from_binary

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
