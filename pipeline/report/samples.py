"""Which pictures stand for a class: always the same ones, out of as few shards as will do."""

import polars as pl

from pipeline.report.walk import CLASS

PER_CLASS = 12
CLASSES_SHOWN = 40


def choose_samples(images: pl.LazyFrame, per_class: int = PER_CLASS, classes: int = CLASSES_SHOWN) -> pl.DataFrame:
    """Choose pictures for the first classes of each source.

    A class is shown from its first shard that alone holds enough of it, where there is one; within a shard
    the smallest `image_id` come first, and as ids are hashes that is an even draw.

    Args:
        images: the images table; only its small columns are read.
        per_class: pictures per class, at most.
        classes: classes per source, at most, in the order of their labels.

    Returns:
        dataset, split, label, image_id; sorted by class, then in the order to show them.
    """
    here = [*CLASS, "shard"]
    few = pl.col("count") < per_class
    counts = images.group_by(here).agg(count=pl.len()).collect().sort(*CLASS, few, "shard", nulls_last=True)
    first = counts.select(CLASS).unique(maintain_order=True).group_by(CLASS[:2], maintain_order=True).head(classes)
    needed = (
        counts.with_columns(before=pl.col("count").cum_sum().over(CLASS) - pl.col("count"))
        .filter(pl.col("before") < per_class)
        .join(first, on=CLASS, how="semi", nulls_equal=True)
    )
    return (
        images.select(*here, "image_id")
        .join(needed.lazy(), on=here, nulls_equal=True)
        .sort(*CLASS, few, "shard", "image_id", nulls_last=True)
        .group_by(CLASS, maintain_order=True)
        .agg(pl.col("image_id").head(per_class))
        .explode("image_id")
        .collect()
    )
