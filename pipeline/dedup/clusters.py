"""Cluster images by equal keys, without writing out pairs, and count what clusters hold.

The counts are of changes between builds, and of duplicates between roles and inside them.
"""

import numpy as np
import polars as pl

# Keys with duplicates are looked up in batches: of 100,000 keys, or more if that would take more than 8 passes.
_KEYS_PER_PASS, _MAX_PASSES = 100_000, 8

# What a cluster can be, compared with the clusters before.
_NEW_KINDS = ("new", "grown", "merged", "shrunk", "changed", "same")


def cluster_by_keys(index: pl.LazyFrame) -> pl.LazyFrame:
    """Group the images of a rule whose pairs have equal key and signature.

    A group of 500 blank images is one cluster of 500 rows, not 125,000 pairs. Buckets are independent: the clusters of
    the whole index are the clusters of its buckets.

    Memory grows with the number of images in clusters. Every other image needs 8 bytes, and 8 more for a copy. The
    index is read when this function is called, and more than once.

    Args:
        index: rows of the index table, of any rules.

    Returns:
        Rows of the clusters table, ordered by (rule, cluster_id, image_id). A single image has no row.
    """
    keys = _duplicate_keys(index)
    step = max(_KEYS_PER_PASS, -(-len(keys) // _MAX_PASSES))
    found = [_clusters(index, keys.slice(start, step)) for start in range(0, max(1, len(keys)), step)]
    # Sorted eagerly: as part of a lazy query the sort takes twice the memory.
    return pl.concat(found).sort("rule", "cluster_id", "image_id").lazy()


def _duplicate_keys(index: pl.LazyFrame) -> pl.Series:
    """List the keys that two images or more have, sorted. Nearly all belong to clusters; few differ in signature."""
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


def cluster_changes(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, int]:
    """Count how the clusters of a rule changed. Cluster ids are ignored; only members count.

    Every cluster after is exactly one of these, so their sum is the number of clusters after:

    - new: no member was in a cluster before.
    - merged: members were in two clusters before, or more.
    - All others have members of exactly one cluster before:
        - same: all members of that cluster, and no other images.
        - shrunk: some members of that cluster, and no other images. The rest may now be in other clusters or in none.
        - grown: other images too, and all members of that cluster that are still in a cluster.
        - changed: other images too, while some members of that cluster are now in another cluster.

    A cluster before is at most one of these. The parts of a divided cluster are also counted above:

    - divided: its members are now in two clusters or more.
    - gone: none of its members is in a cluster now.

    Args:
        before: columns cluster_id and image_id; an image is in one cluster at most.
        after: the same, later.

    Returns:
        The count of each: new, grown, merged, shrunk, changed, same, divided, gone, in this order.
    """
    old_members = before.select("image_id", old="cluster_id")
    images = after.select("image_id", new="cluster_id").join(old_members, on="image_id", how="full", coalesce=True)
    old_clusters = (
        images.filter(pl.col("old").is_not_null())
        .group_by("old")
        .agg(old_size=pl.len(), parts=pl.col("new").drop_nulls().n_unique())
    )
    origins = pl.col("old").drop_nulls()
    new_clusters = (
        images.filter(pl.col("new").is_not_null())
        .group_by("new")
        .agg(size=pl.len(), added=pl.col("old").null_count(), origins=origins.n_unique(), old=origins.first())
        .join(old_clusters, on="old", how="left")
    )
    kind = (
        pl.when(pl.col("origins") == 0)
        .then(pl.lit("new"))
        .when(pl.col("origins") > 1)
        .then(pl.lit("merged"))
        .when(pl.col("added") == 0)
        .then(pl.when(pl.col("size") == pl.col("old_size")).then(pl.lit("same")).otherwise(pl.lit("shrunk")))
        .otherwise(pl.when(pl.col("parts") == 1).then(pl.lit("grown")).otherwise(pl.lit("changed")))
    )
    kinds = new_clusters.select(kind.alias("kind")).to_series()
    counts = {name: int((kinds == name).sum()) for name in _NEW_KINDS}
    parts = old_clusters["parts"]
    return counts | {"divided": int((parts > 1).sum()), "gone": int((parts == 0).sum())}


def say_changes(counts: dict[str, int]) -> str:
    """Format changes as text, such as "3 new, 12 grown, 2 merged".

    Returns:
        The counts above zero except "same", in their order; "no change" if there are none.
    """
    changed = [f"{count:,} {name}" for name, count in counts.items() if count and name != "same"]
    return ", ".join(changed) or "no change"


def overlap_matrix(clusters: pl.LazyFrame, members: pl.LazyFrame) -> pl.DataFrame:
    """Count, for every rule and every two roles, the images of one role that occur in the other.

    Args:
        clusters: rows of the clusters table.
        members: columns image_id and role; an image may have several roles.

    Returns:
        Columns rule, role, other, images, ordered by the first three; only counts above zero. If role and other differ:
        images of `role` that share a cluster with an image of `other`. If they are equal: images of the role that share
        a cluster with another image of the role.
    """
    counts = (
        clusters.select("rule", "cluster_id", "image_id")
        .join(members.select("image_id", "role"), on="image_id")
        .group_by("rule", "cluster_id", "role")
        .agg(images=pl.len().cast(pl.Int64))
    )
    others = counts.select("rule", "cluster_id", other="role", others="images")
    return (
        counts.join(others, on=["rule", "cluster_id"])
        .filter((pl.col("role") != pl.col("other")) | (pl.col("images") > 1))
        .group_by("rule", "role", "other")
        .agg(pl.col("images").sum())
        .sort("rule", "role", "other")
        .collect()
    )


def redundancy(clusters: pl.LazyFrame, members: pl.LazyFrame) -> pl.DataFrame:
    """Count, for every rule and role, the duplicates inside the role.

    Args:
        clusters: rows of the clusters table.
        members: columns image_id and role.

    Returns:
        Columns rule, role, clusters (with two or more images of the role), redundant (images beyond the first of each),
        conflicts (those clusters with several labels); ordered by rule and role.
    """
    return (
        clusters.join(members.select("image_id", "role"), on="image_id")
        .group_by("rule", "role", "cluster_id")
        .agg(images=pl.len().cast(pl.Int64), labels=pl.col("label").drop_nulls().n_unique())
        .filter(pl.col("images") > 1)
        .group_by("rule", "role")
        .agg(
            clusters=pl.len().cast(pl.Int64),
            redundant=(pl.col("images") - 1).sum(),
            conflicts=(pl.col("labels") > 1).sum().cast(pl.Int64),
        )
        .sort("rule", "role")
        .collect()
    )


def label_conflicts(clusters: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the clusters whose images have more than one label. Images without a label are ignored.

    Args:
        clusters: rows of the clusters table.

    Returns:
        Rows of the clusters table, ordered by (rule, cluster_id, image_id).
    """
    return clusters.filter(pl.col("label").drop_nulls().n_unique().over("rule", "cluster_id") > 1).sort(
        "rule", "cluster_id", "image_id"
    )
