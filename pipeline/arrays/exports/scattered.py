"""Find and read images of several shapes: as `locate` and `gather` do for one, into one run of bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage
from pipeline.errors import LakeError

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
