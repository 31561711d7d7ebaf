"""The one pass over pixels, a shard at a time: exact sums, and the few pictures that are shown."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

CLASS = ["dataset", "split", "label"]
_SHARD = ["dataset", "split", "shard"]
_SHOWN = ["image_id", "path", "label", "dataset", "split", "height", "width", "channels", "pixels"]

SUMS = pl.Schema(
    {
        "dataset": pl.String,
        "split": pl.String,
        "label": pl.String,
        "images": pl.Int64,
        "values": pl.Int64,
        "total": pl.Int64,
        "squares": pl.Int64,
    }
)


def walk_shards(images: pl.LazyFrame, wanted: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read every pixel once, holding one shard at a time.

    Sums are integers, so that neither the order of shards nor that of rows can change a digit.

    Args:
        images: the images table.
        wanted: image_id of the pictures to keep.

    Returns:
        Sums per class, sorted, nulls last: dataset, split, label, images (count), values (pixel values),
        total (their sum), squares (sum of their squares). And the rows of `wanted` with path, label, size and
        pixels.
    """
    sums = pl.DataFrame(schema=SUMS)
    kept = []
    only = pl.DataFrame({"image_id": wanted.cast(pl.Binary)}).unique()
    for shard in _each_shard(images):
        sums = _fold(pl.concat([sums, _sums_of(shard)]))
        kept.append(shard.join(only, on="image_id", how="semi"))
    pictures = pl.concat(kept) if kept else images.select(_SHOWN).head(0).collect()
    return sums.sort(CLASS, nulls_last=True), pictures


def _each_shard(images: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    shards = images.select(_SHARD).unique().sort(_SHARD).collect()
    for place in shards.iter_rows():
        here = [pl.col(name) == value for name, value in zip(_SHARD, place, strict=True)]
        yield images.filter(*here).select(_SHOWN).collect()


def _fold(sums: pl.DataFrame) -> pl.DataFrame:
    return sums.group_by(CLASS).agg(pl.col("images", "values", "total", "squares").sum())


def _sums_of(shard: pl.DataFrame) -> pl.DataFrame:
    values, starts = _flat(shard["pixels"])
    squared = np.square(values, dtype=np.uint16)  # 255 * 255 still fits
    per_image = shard.select(CLASS).with_columns(
        images=pl.lit(1, pl.Int64),
        values=pl.Series(np.diff(starts)),
        total=pl.Series(_sum_each(values, starts)),
        squares=pl.Series(_sum_each(squared, starts)),
    )
    return _fold(per_image)


def _flat(pixels: pl.Series) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """View the pixels of all images as one array; image i is values[starts[i]:starts[i + 1]]."""
    column = pixels.rechunk().to_arrow()
    _, offsets, values = column.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    flat = np.frombuffer(values, dtype=np.uint8) if values else np.empty(0, dtype=np.uint8)
    return flat[starts[0] : starts[-1]], starts - starts[0]


def _sum_each(values: NDArray[np.uint8] | NDArray[np.uint16], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum each image; `reduceat` would answer an empty range with the next value, so those stay 0."""
    sums = np.zeros(len(starts) - 1, dtype=np.int64)
    filled = np.diff(starts) > 0
    if filled.any():
        sums[filled] = np.add.reduceat(values, starts[:-1][filled], dtype=np.int64)
    return sums
