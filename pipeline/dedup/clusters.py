"""index -> clusters: images that share a key and signature, by a group-by; no pair is ever written out."""

import polars as pl


def cluster_by_keys(index: pl.LazyFrame) -> pl.LazyFrame:
    """Group the images of a rule that is decided by keys alone.

    A group of 500 blank pictures is one cluster of 500 rows, not 125,000 pairs. Buckets are independent: the clusters
    of the whole index are the clusters of its buckets.

    Args:
        index: rows of the index table, of any rules.

    Returns:
        Rows of the clusters table, ordered by (rule, cluster_id, image_id). An image alone has no row.
    """
    group = ("rule", "bucket", "key", "signature")
    return (
        index.select(*group, "image_id", "label", "dataset", "split")
        .filter(pl.len().over(group) > 1)
        .with_columns(cluster_id=pl.col("image_id").min().over(group))
        .select("cluster_id", "image_id", "label", "dataset", "split", "rule")
        .sort("rule", "cluster_id", "image_id")
    )
