"""Exact sums per class, and the few pictures that are shown: of the pixels only their shards are read."""

import polars as pl

CLASS = ["dataset", "split", "label"]
_SHARD = ["dataset", "split", "shard"]
_SHOWN = ["image_id", "path", "label", "dataset", "split", "height", "width", "channels", "pixels"]


def sum_classes(images: pl.LazyFrame) -> pl.DataFrame:
    """Add up what the images table knows of every image: no pixel is read.

    Sums are integers, so that neither the order of shards nor that of rows can change a digit.

    Args:
        images: the images table.

    Returns:
        Sums per class, sorted, nulls last: dataset, split, label, images (count), values (pixel values),
        total (their sum), squares (sum of their squares).
    """
    size = pl.col("height").cast(pl.Int64) * pl.col("width") * pl.col("channels")
    return (
        images.group_by(CLASS)
        .agg(
            images=pl.len().cast(pl.Int64),
            values=size.sum(),
            total=pl.col("pixel_sum").sum(),
            squares=pl.col("pixel_squares").sum(),
        )
        .sort(CLASS, nulls_last=True)
        .collect()
    )


def read_pictures(images: pl.LazyFrame, wanted: pl.Series) -> pl.DataFrame:
    """Read some images, holding one shard at a time and opening no other.

    Args:
        images: the images table.
        wanted: image_id of the pictures.

    Returns:
        The rows of `wanted` with path, label, size and pixels.
    """
    only = pl.DataFrame({"image_id": wanted.cast(pl.Binary)}).unique()
    places = images.select("image_id", *_SHARD).join(only.lazy(), on="image_id", how="semi").collect()
    found = [images.select(_SHOWN).head(0).collect()]
    for place in places.select(_SHARD).unique().sort(_SHARD).iter_rows():
        here = [pl.col(name) == value for name, value in zip(_SHARD, place, strict=True)]
        found.append(images.filter(*here).select(_SHOWN).collect().join(only, on="image_id", how="semi"))
    return pl.concat(found)
