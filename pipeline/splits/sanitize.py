"""Drop rows of a split by policy until no cluster straddles two roles, and say for which rule and image each one went.

Rules take their turn in the recipe's order, each on what the ones before have kept; under each, first rows that
contradict one another go (`conflicts.py`), then those that two roles share or one repeats (`overlaps.py`).

Clusters with several labels: which label stands, who goes, and for whom.

Clusters in several roles, and clusters that repeat in one: who goes, and for whom.

Pairs that reach from one cluster into another, and there into another role: who goes, and for whom.

Clusters that are stars hold only images that are paired with one representative, so two images that a rule calls the
same may stand in different stars. What the stars leave of overlap is found by the pairs themselves.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import polars as pl

from pipeline.recipe import SplitPart

_WINS = 2**31  # above any number of rows and any place in a list


def contradicting(spec: SplitPart, together: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows that go because their cluster has several labels.

    Where one label stands, rows with another go, each for the first row of the label that stands. Where none does, all
    go, each for the first row with another label. So no cluster is left with two labels, unless its protected rows
    contradict themselves.

    - `drop`: no label stands.
    - `majority`: the most frequent one, counted in rows; of equally frequent ones none.
    - `trusted`: the one of the source in `trusted` that stands first there among the cluster's sources. None where that
      source itself has two, and none where no source of the cluster is listed: nobody can tell who is right.
    - Protected rows never go, so under the latter two their label stands, whatever others say; if they have two, none.
    - A row without a label contradicts nobody: it has no vote, makes no conflict and stays.

    Args:
        spec: the recipe's `[[split]]`; its `conflicts` is not "keep".
        together: kept rows of clusters: image_id, cluster_id, label, protected, trust; protected rows first, then by
            `keep` and rank.

    Returns:
        Columns image_id, keeper and why (always conflict): the rows that go.
    """
    said = together.drop_nulls("label").filter(pl.col("label").n_unique().over("cluster_id") > 1)
    stands = pl.col("stands")
    other = pl.col("label") != pl.col("first_label")
    return (
        said.join(_standing(spec, said), on="cluster_id", how="left", maintain_order="left")
        .with_columns(first_label=pl.col("label").first().over("cluster_id"))
        .with_columns(
            right=pl.col("image_id").filter(pl.col("label") == stands).first().over("cluster_id"),
            first=pl.col("image_id").first().over("cluster_id"),
            second=pl.col("image_id").filter(other).first().over("cluster_id"),
        )
        .filter(~pl.col("protected") & pl.col("label").ne_missing(stands))
        .select(
            "image_id",
            keeper=pl.coalesce("right", pl.when(other).then("first").otherwise("second")),
            why=pl.lit("conflict"),
        )
    )


def _standing(spec: SplitPart, said: pl.DataFrame) -> pl.DataFrame:
    """Find the label that stands: columns cluster_id and stands; no row where none does."""
    weight = {"majority": pl.len().cast(pl.Int64), "trusted": -pl.col("trust").min().cast(pl.Int64)}.get(spec.conflicts)
    if weight is None:
        return said.select("cluster_id", stands="label").clear()
    return (
        said.group_by("cluster_id", "label")
        .agg(weight=pl.when(pl.col("protected").any()).then(pl.lit(_WINS, pl.Int64)).otherwise(weight))
        .filter(pl.col("weight") == pl.col("weight").max().over("cluster_id"))
        .filter(pl.len().over("cluster_id") == 1)
        .select("cluster_id", stands="label")
    )


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


def reaching_across(spec: SplitPart, kept: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows that go so that no pair has kept rows in two roles.

    Rows of the role that stands first in `keep` stay, and what is paired with them in other roles goes; then the same
    for the next role, with what is left. Protected rows come before all roles, and never go.

    Args:
        spec: the recipe's `[[split]]`.
        kept: kept rows: image_id, role, rank, protected.
        pairs: columns left_id and right_id.

    Returns:
        Columns image_id, keeper (the first row by rank that each is paired with) and why (overlap): rows that go.
    """
    both = pl.concat(
        [pairs.select(image_id="left_id", other="right_id"), pairs.select(image_id="right_id", other="left_id")]
    )
    gone = pl.DataFrame(schema={"image_id": pl.Binary, "keeper": pl.Binary, "why": pl.String})
    for stays in _in_turn(spec):
        left = kept.join(gone, on="image_id", how="anti")
        keepers = left.filter(stays).select(keeper="image_id", home="role", place="rank")
        lost = (
            left.filter(~pl.col("protected"))
            .join(both, on="image_id")
            .join(keepers, left_on="other", right_on="keeper", coalesce=False)
            .filter(pl.col("role") != pl.col("home"))
            .sort("place", "keeper")
            .unique("image_id", keep="first", maintain_order=True)
            .select("image_id", "keeper", why=pl.lit("overlap"))
        )
        gone = pl.concat([gone, lost])
    return gone


def _in_turn(spec: SplitPart) -> Iterator[pl.Expr]:
    yield pl.col("protected")
    for role in spec.keep:
        yield pl.col("role") == role


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
