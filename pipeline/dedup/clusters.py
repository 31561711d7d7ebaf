"""index -> clusters: images that share a key and signature, by a group-by; no pair is ever written out.

clusters before x clusters after -> what became of them, counted.
"""

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


_NOW = ("new", "grown", "merged", "shrunk", "changed", "same")
_BEFORE = ("divided", "gone")


def cluster_changes(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, int]:
    """Count what became of the clusters of a rule; what a cluster is called plays no part.

    Every cluster after is exactly one of these, so their sum is the number of clusters after:

    - new: no member was in a cluster before.
    - merged: members were in two clusters before, or more.
    - All others have members of exactly one cluster before:
        - same: all its members, and no others.
        - shrunk: some of its members, and no others. The rest may be in other clusters now, or in none.
        - grown: others too, and of its members all that are in any cluster now.
        - changed: others too, while some of its members are in another cluster now.

    A cluster before is at most one of these; a piece of a divided one is counted above as well:

    - divided: members are in two clusters now, or more.
    - gone: no member is in a cluster now.

    Args:
        before: columns cluster_id and image_id; an image is in one cluster at most.
        after: the same, later.

    Returns:
        The count of each: new, grown, merged, shrunk, changed, same, divided, gone, in this order.
    """
    then = before.select("image_id", was="cluster_id")
    images = after.select("image_id", now="cluster_id").join(then, on="image_id", how="full", coalesce=True)
    old = (
        images.filter(pl.col("was").is_not_null())
        .group_by("was")
        .agg(had=pl.len(), parts=pl.col("now").drop_nulls().n_unique())
    )
    origins = images.filter(pl.col("now").is_not_null()).group_by("now")
    known = pl.col("was").drop_nulls()
    new = origins.agg(has=pl.len(), added=pl.col("was").null_count(), origins=known.n_unique(), was=known.first()).join(
        old, on="was", how="left"
    )
    kind = (
        pl.when(pl.col("origins") == 0)
        .then(pl.lit("new"))
        .when(pl.col("origins") > 1)
        .then(pl.lit("merged"))
        .when(pl.col("added") == 0)
        .then(pl.when(pl.col("has") == pl.col("had")).then(pl.lit("same")).otherwise(pl.lit("shrunk")))
        .otherwise(pl.when(pl.col("parts") == 1).then(pl.lit("grown")).otherwise(pl.lit("changed")))
    )
    kinds = new.select(kind.alias("kind")).to_series()
    counts = {name: int((kinds == name).sum()) for name in _NOW}
    return counts | {"divided": int((old["parts"] > 1).sum()), "gone": int((old["parts"] == 0).sum())}


def say_changes(counts: dict[str, int]) -> str:
    """Say the changes to people, as "3 new, 12 grown, 2 merged".

    Args:
        counts: what `cluster_changes` returns.

    Returns:
        The counts above zero in its order, without those that are the same; "no change" where nothing is left.
    """
    said = [f"{count:,} {name}" for name, count in counts.items() if count and name != "same"]
    return ", ".join(said) or "no change"
