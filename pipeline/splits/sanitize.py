"""Drop rows of a split until no cluster straddles two roles, and say for which rule and image each one went."""

from collections.abc import Mapping

import polars as pl

from pipeline.recipe import SplitPart


def sanitize(spec: SplitPart, rows: pl.DataFrame, clusters: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Mark which rows of a split are kept.

    Rules take their turn in the recipe's order, each on what the ones before have kept. In every cluster the role that
    stands first in `keep` stays, and the other roles' rows are dropped for its first row by rank. With
    `within = "first"` that row stays alone.

    Args:
        spec: the recipe's `[[split]]`.
        rows: what `draw_roles` returned.
        clusters: rows of the clusters table (cluster_id and image_id are read), by rule of `spec.sanitize`.

    Returns:
        Rows of the splits table without its partition column, in the order of `rows`. Everything is kept where the
        recipe names no rule.
    """
    priority = pl.DataFrame({"role": list(spec.keep), "priority": range(len(spec.keep))})
    state = rows.join(priority, on="role", how="left", maintain_order="left").with_columns(
        kept=pl.lit(value=True),
        dropped_by=pl.lit(None, pl.String),
        dropped_for=pl.lit(None, pl.Binary),
        reason=pl.lit(None, pl.String),
    )
    for rule in spec.sanitize:
        state = _apply(state, rule, clusters[rule], alone=spec.within == "first")
    return state.select("role", "rank", "image_id", "label_index", "kept", "dropped_by", "dropped_for", "reason")


def _apply(state: pl.DataFrame, rule: str, clusters: pl.DataFrame, *, alone: bool) -> pl.DataFrame:
    together = (
        state.filter("kept")
        .select("image_id", "role", "priority", "rank")
        .join(clusters.select("image_id", "cluster_id"), on="image_id")
        .sort("cluster_id", "priority", "rank")
        .with_columns(
            keeper=pl.col("image_id").first().over("cluster_id"),
            keeper_role=pl.col("role").first().over("cluster_id"),
        )
    )
    loses = pl.col("image_id") != pl.col("keeper") if alone else pl.col("role") != pl.col("keeper_role")
    lost = pl.when(pl.col("role") == pl.col("keeper_role")).then(pl.lit("repeat")).otherwise(pl.lit("overlap"))
    dropped = together.filter(loses).select("image_id", "keeper", lost=lost)
    return (
        state.join(dropped, on="image_id", how="left", maintain_order="left")
        .with_columns(
            kept=pl.col("kept") & pl.col("keeper").is_null(),
            dropped_by=pl.when(pl.col("keeper").is_not_null()).then(pl.lit(rule)).otherwise("dropped_by"),
            dropped_for=pl.coalesce("keeper", "dropped_for"),
            reason=pl.coalesce("lost", "reason"),
        )
        .drop("keeper", "lost")
    )
