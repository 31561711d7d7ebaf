"""Count duplicates between roles and inside them, and find clusters with several labels."""

import polars as pl


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
