"""Drop rows of a split by policy until no cluster straddles two roles, and say for which rule and image each one went.

Rules take their turn in the recipe's order, each on what the ones before have kept; under each, first rows that
contradict one another go (`conflicts.py`), then those that two roles share or one repeats (`overlaps.py`).
"""

from collections.abc import Mapping
from types import MappingProxyType

import polars as pl

from pipeline.recipe import SplitPart
from pipeline.splits.across import reaching_across
from pipeline.splits.conflicts import contradicting
from pipeline.splits.overlaps import overlapping

_NOTHING_DROPPED = {
    "kept": pl.lit(value=True),
    "dropped_by": pl.lit(None, pl.String),
    "dropped_for": pl.lit(None, pl.Binary),
    "reason": pl.lit(None, pl.String),
}


def sanitize(
    spec: SplitPart,
    rows: pl.DataFrame,
    clusters: Mapping[str, pl.DataFrame],
    pairs: Mapping[str, pl.DataFrame] = MappingProxyType({}),
) -> pl.DataFrame:
    """Mark which rows of a split are kept.

    Only rows of this split count, and of them only those that are kept so far: what a cluster holds besides does not.
    Rows of datasets in `protected` are never dropped, by any rule or policy. After every rule no cluster of it has kept
    rows in two roles, unless all its kept rows are protected (`straddling` lists those). What is kept at the end,
    sanitized again, loses nothing more.

    Args:
        spec: the recipe's `[[split]]`.
        rows: what `draw_roles` or `draw_groups` returned; what the latter has dropped stays so.
        clusters: rows of the clusters table (cluster_id and image_id are read), by rule of `spec.sanitize`.
        pairs: by rule whose pairs reach from one cluster into another, rows of the pairs table (left_id and right_id
            are read): after its clusters, no pair is left in two roles either.

    Returns:
        Rows of the splits table without its partition column, in the order of `rows`. Everything is kept where the
        recipe names no rule. The reason is overlap, repeat or conflict; `dropped_for` is another image of the same
        cluster.
    """
    priority = pl.DataFrame({"role": list(spec.keep), "priority": range(len(spec.keep))})
    unset = {name: value for name, value in _NOTHING_DROPPED.items() if name not in rows.columns}
    state = rows.join(priority, on="role", how="left", maintain_order="left").with_columns(
        protected=is_protected(spec), trust=_trust(spec), **unset
    )
    for rule in spec.sanitize:
        if spec.conflicts != "keep":
            state = _mark(state, rule, contradicting(spec, _together(state, clusters[rule])))
        state = _mark(state, rule, overlapping(spec, _together(state, clusters[rule])))
        if rule in pairs:
            state = _mark(state, rule, reaching_across(spec, state.filter("kept"), pairs[rule]))
    return state.select("role", "rank", "image_id", "label_index", *_NOTHING_DROPPED)


def straddling(
    spec: SplitPart, rows: pl.DataFrame, kept: pl.DataFrame, clusters: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """List what `protected` forbids to mend: a benchmark that leaks into itself, or into another protected one.

    Args:
        spec: the recipe's `[[split]]`.
        rows: what was sanitized; image_id and dataset are read.
        kept: what `sanitize` made of it.
        clusters: rows of the clusters table, by rule of `spec.groups` and `spec.sanitize`.

    Returns:
        Columns rule, datasets (list of String, sorted), clusters, rows: clusters with kept rows in two roles or more,
        and the kept rows in them. Ordered by rule; a rule without any has no row.
    """
    state = kept.filter("kept").join(rows.select("image_id", "dataset"), on="image_id")
    found = [_straddling(state, rule, clusters[rule]) for rule in sorted({*spec.groups, *spec.sanitize})]
    empty = {"rule": pl.String, "datasets": pl.List(pl.String), "clusters": pl.Int64, "rows": pl.Int64}
    return pl.concat([pl.DataFrame(schema=empty), *(row.cast(empty) for row in found)])  # type: ignore[arg-type] # a dict of types is a schema to cast to


def is_protected(spec: SplitPart) -> pl.Expr:
    """Tell by column dataset whether a row is protected."""
    return pl.col("dataset").is_in(pl.Series(spec.protected, dtype=pl.String).implode())


def _straddling(state: pl.DataFrame, rule: str, clusters: pl.DataFrame) -> pl.DataFrame:
    return (
        state.join(clusters.select("image_id", "cluster_id"), on="image_id")
        .filter(pl.col("role").n_unique().over("cluster_id") > 1)
        .select(
            rule=pl.lit(rule),
            datasets=pl.col("dataset").unique().sort().implode(),
            clusters=pl.col("cluster_id").n_unique(),
            rows=pl.len(),
        )
        .filter(pl.col("rows") > 0)
        .head(1)
    )


def _trust(spec: SplitPart) -> pl.Expr:
    """Give the place of a row's source in `trusted`, 0 for the most trusted; null where it is not listed."""
    return pl.coalesce(
        *(pl.when(_comes_from(source)).then(pl.lit(place, pl.Int32)) for place, source in enumerate(spec.trusted)),
        pl.lit(None, pl.Int32),
    )


def _comes_from(source: str) -> pl.Expr:
    """Select rows of "dataset" or "dataset/split"."""
    dataset, _, split = source.partition("/")
    return (pl.col("dataset") == dataset) & ((pl.col("split") == split) if split else pl.lit(value=True))


def _together(state: pl.DataFrame, clusters: pl.DataFrame) -> pl.DataFrame:
    """Put kept rows beside their cluster's others: protected ones first, then by `keep`, then by rank; no row alone."""
    return (
        state.filter("kept")
        .select("image_id", "label", "role", "priority", "rank", "protected", "trust")
        .join(clusters.select("image_id", "cluster_id"), on="image_id")
        .filter(pl.len().over("cluster_id") > 1)
        .sort(~pl.col("protected"), "priority", "rank")
    )


def _mark(state: pl.DataFrame, rule: str, dropped: pl.DataFrame) -> pl.DataFrame:
    """Mark rows as dropped: columns image_id, keeper (the image that each went for) and why."""
    lost = pl.col("keeper").is_not_null()
    return (
        state.join(dropped.select("image_id", "keeper", "why"), on="image_id", how="left", maintain_order="left")
        .with_columns(
            kept=pl.col("kept") & ~lost,
            dropped_by=pl.when(lost).then(pl.lit(rule)).otherwise("dropped_by"),
            dropped_for=pl.coalesce("keeper", "dropped_for"),
            reason=pl.coalesce("why", "reason"),
        )
        .drop("keeper", "why")
    )
