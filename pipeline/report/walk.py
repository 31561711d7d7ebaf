"""Exact sums per class, and the few pictures that are shown: no other pixels are read."""

import polars as pl

CLASS = ["dataset", "split", "label"]
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
    """Read some images.

    The filter goes down into the Parquet reader: it looks at the ids first, and unpacks the pixels of those rows alone.

    Args:
        images: the images table.
        wanted: image_id of the pictures.

    Returns:
        The rows of `wanted` with path, label, size and pixels.
    """
    ids = wanted.cast(pl.Binary).unique()
    return images.filter(pl.col("image_id").is_in(ids.implode())).select(_SHOWN).collect()
