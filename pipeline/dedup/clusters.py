"""index -> clusters: images that share a key and signature, by a group-by; no pair is ever written out."""

import numpy as np
import polars as pl

# Keys that occur twice are looked up so many at once: few enough for memory, but in no more passes over the index.
_KEYS, _PASSES = 100_000, 8


def cluster_by_keys(index: pl.LazyFrame) -> pl.LazyFrame:
    """Group the images of a rule that is decided by keys alone.

    A group of 500 blank pictures is one cluster of 500 rows, not 125,000 pairs. Buckets are independent: the clusters
    of the whole index are the clusters of its buckets.

    Memory grows with the images that are in clusters; of all others only 8 bytes are held, and a copy of them. The
    index is read when this is called, and more than once.

    Args:
        index: rows of the index table, of any rules.

    Returns:
        Rows of the clusters table, ordered by (rule, cluster_id, image_id). An image alone has no row.
    """
    twice = _keys_that_occur_twice(index)
    step = max(_KEYS, -(-len(twice) // _PASSES))
    found = [_clusters(index, twice.slice(start, step)) for start in range(0, max(1, len(twice)), step)]
    # Sorted here: as part of a lazy query it takes twice the memory.
    return pl.concat(found).sort("rule", "cluster_id", "image_id").lazy()


def _keys_that_occur_twice(index: pl.LazyFrame) -> pl.Series:
    """List the keys of two images or more, sorted: nearly all of them are of a cluster, only a signature can differ."""
    keys = np.sort(index.select("key").collect(engine="streaming").to_series().to_numpy())
    return pl.Series(np.unique(keys[1:][keys[1:] == keys[:-1]]))


def _clusters(index: pl.LazyFrame, keys: pl.Series) -> pl.DataFrame:
    group = ("rule", "key", "signature")
    return (
        index.filter(pl.col("key").is_in(keys.implode()))
        .select(*group, "image_id", "label", "dataset", "split")
        .filter(pl.len().over(group) > 1)
        .with_columns(cluster_id=pl.col("image_id").min().over(group))
        .select("cluster_id", "image_id", "label", "dataset", "split", "rule")
        .collect()
    )
