"""Clusters in several roles, and clusters that repeat in one: who goes, and for whom."""

import polars as pl

from pipeline.recipe import SplitPart


def overlapping(spec: SplitPart, together: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows that go so that every cluster is in one role, and there as often as `within` allows.

    - The role that stands first in `keep` keeps a cluster. Rows of other roles go for its first row by rank (overlap).
    - A cluster with protected rows belongs to their role, wherever that stands in `keep`; they themselves never go. If
      they are in two roles, both stay and all others go: there is no role in which those would leak nothing.
    - `within = "first"`: in the role that keeps it, only the first row stays; the others go for it (repeat).
    - `within = "none"`: if that role has two rows of it or more, all of them go for the first, and the first for the
      second (repeat); rows of other roles go for the first as ever. A row that is the only one in the role that keeps
      the cluster stays, also where other roles lose theirs for it.
    - With protected rows in the role, both of these drop the unprotected ones for the first protected.

    Args:
        spec: the recipe's `[[split]]`.
        together: kept rows of clusters: image_id, cluster_id, role, protected; protected rows first, then by `keep`
            and rank.

    Returns:
        Columns image_id, keeper and why (overlap or repeat): the rows that go.
    """
    elsewhere = pl.col("role") != pl.col("home")
    beside = ~elsewhere & pl.col("rival").is_null()
    first = pl.col("image_id") == pl.col("first")
    too_often = {
        "all": pl.lit(value=False),
        "first": beside & ~first,
        "none": beside & pl.col("second").is_not_null(),
    }[spec.within]
    judged = (
        together.with_columns(
            first=pl.col("image_id").first().over("cluster_id"), home=pl.col("role").first().over("cluster_id")
        )
        .with_columns(
            rival=_first_of(pl.col("protected") & elsewhere),
            second=_first_of(~elsewhere & ~first),
        )
        .filter(~pl.col("protected"))
    )
    return judged.filter(elsewhere | pl.col("rival").is_not_null() | too_often).select(
        "image_id",
        keeper=pl.when(elsewhere)
        .then("first")
        .when(pl.col("rival").is_not_null())
        .then("rival")
        .when(first)
        .then("second")
        .otherwise("first"),
        why=pl.when(beside).then(pl.lit("repeat")).otherwise(pl.lit("overlap")),
    )


def _first_of(chosen: pl.Expr) -> pl.Expr:
    """Give every row the first image of its cluster that is chosen; null where none is."""
    return pl.col("image_id").filter(chosen).first().over("cluster_id")
