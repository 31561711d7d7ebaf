"""Drop rows of a split until no cluster has rows in two roles; every dropped row names its rule and the other image.

Rows that people decided to drop go first. Then rules are applied in the order of the recipe, each to the rows that the
rules before have kept. Under each rule, rows with conflicting labels are dropped first, then rows that overlap between
roles or repeat in one role. Stars may be linked by pairs, so rules whose clusters are stars also drop rows that a pair
links to another role.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import polars as pl

from pipeline.recipe import SplitPart
from schemas.splits import VERDICT

# The weight of a label that a protected row has: above any number of rows and any position in `trusted`.
_PROTECTED_WEIGHT = 2**31

_OUTCOME = ("kept", "dropped_by", "dropped_for", "reason")
# No conflict drops these rows.
_STAYS = pl.col("protected") | pl.col("chosen")


def sanitize(  # noqa: PLR0913, PLR0917 - what is dropped, and by what
    spec: SplitPart,
    rows: pl.DataFrame,
    clusters: Mapping[str, pl.DataFrame],
    pairs: Mapping[str, pl.DataFrame] = MappingProxyType({}),
    verdicts: pl.DataFrame | None = None,
    issues: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Mark which rows of a split are kept.

    Only rows of this split that are still kept are considered; other members of a cluster are ignored. Rows of datasets
    in `protected` are never dropped, by any rule or policy. After each rule, no cluster of the rule has kept rows in
    two roles, unless all its kept rows are protected (`straddling` lists those). Sanitizing the kept rows again drops
    nothing more.

    Args:
        spec: the recipe's `[[split]]`.
        rows: the result of `draw_roles` or `draw_groups`. Rows that the latter dropped stay dropped.
        clusters: rows of the clusters table (cluster_id and image_id are read), by rule of `spec.dropping_rules`. Ids
            of images may be numbers, here as in `rows` and `pairs`.
        pairs: rows of the pairs table (left_id and right_id are read), for each rule whose pairs may link two clusters.
            After such a rule, no pair links kept rows of two roles either, except protected ones.
        verdicts: columns image_id and verdict (keep or drop) of images that people decided to keep or to drop; None for
            none. Kept ones are dropped for an overlap only, and are the first of their role in a cluster.
        issues: columns image_id and kind of the images to drop by `spec.drop_issues`; None for none.

    Returns:
        Rows of the splits table without its partition column, in the order of `rows`. If the recipe names no rule, all
        rows are kept that no person and no issue dropped. The reason is overlap, repeat or conflict, and `dropped_for`
        another image of the same cluster; or the reason is verdict or issue, and `dropped_for` null.
    """
    priority = pl.DataFrame({"role": list(spec.keep), "priority": range(len(spec.keep))})
    nothing_dropped = {
        "kept": pl.lit(value=True),
        "dropped_by": pl.lit(None, pl.String),
        "dropped_for": pl.lit(None, rows.schema["image_id"]),
        "reason": pl.lit(None, pl.String),
    }
    unset = {name: value for name, value in nothing_dropped.items() if name not in rows.columns}
    state = rows.join(priority, on="role", how="left", maintain_order="left").with_columns(
        protected=is_protected(spec), trust=_trust(spec), **unset
    )
    state = _apply_verdicts(state, verdicts)
    if issues is not None:
        state = issue_drops(spec, state, issues)
    for rule in spec.dropping_rules:
        if spec.conflicts != "keep":
            state = _mark_dropped(state, rule, conflict_drops(spec, _kept_members(state, clusters[rule])))
        state = _mark_dropped(state, rule, overlap_drops(spec, _kept_members(state, clusters[rule])))
        if rule in pairs:
            state = _mark_dropped(state, rule, pair_drops(spec, state.filter("kept"), pairs[rule]))
    return state.select("role", "rank", "image_id", "label_index", *_OUTCOME)


def straddling(
    spec: SplitPart, rows: pl.DataFrame, kept: pl.DataFrame, clusters: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """List the clusters that stay in two roles because their rows are protected.

    Args:
        spec: the recipe's `[[split]]`.
        rows: the rows that were sanitized; image_id and dataset are read.
        kept: the result of `sanitize` for these rows.
        clusters: rows of the clusters table, by rule of `spec.groups` and `spec.sanitize`.

    Returns:
        Columns rule, datasets (list of String, sorted), clusters (number of clusters with kept rows in two roles or
        more), rows (number of kept rows in them). Ordered by rule; rules without such clusters are left out.
    """
    state = kept.filter("kept").join(rows.select("image_id", "dataset"), on="image_id")
    found = [_straddling_by(rule, clusters[rule], state) for rule in sorted({*spec.groups, *spec.sanitize})]
    empty = {"rule": pl.String, "datasets": pl.List(pl.String), "clusters": pl.Int64, "rows": pl.Int64}
    return pl.concat([pl.DataFrame(schema=empty), *(row.cast(empty) for row in found)])  # type: ignore[arg-type] # a dict of types is a schema to cast to


def issue_drops(spec: SplitPart, state: pl.DataFrame, issues: pl.DataFrame) -> pl.DataFrame:
    """Mark kept rows with an issue as dropped, by the first kind of `spec.drop_issues` that they have.

    Args:
        spec: the recipe's `[[split]]`.
        state: rows of the split: image_id, protected, chosen (to be kept) and the outcome so far.
        issues: columns image_id and kind.
    """
    order = pl.col("kind").replace_strict(spec.drop_issues, range(len(spec.drop_issues)), default=None)
    first = issues.with_columns(order=order).drop_nulls("order").sort("order").unique("image_id", keep="first")
    is_dropped = pl.col("kept") & ~pl.col("protected") & ~pl.col("chosen") & pl.col("issue").is_not_null()
    return (
        state.join(first.select("image_id", issue="kind"), on="image_id", how="left", maintain_order="left")
        .with_columns(
            kept=pl.col("kept") & ~is_dropped,
            dropped_by=pl.when(is_dropped).then("issue").otherwise("dropped_by"),
            reason=pl.when(is_dropped).then(pl.lit("issue")).otherwise("reason"),
        )
        .drop("issue")
    )


def is_protected(spec: SplitPart) -> pl.Expr:
    """Select protected rows by column dataset."""
    return pl.col("dataset").cast(pl.String).is_in(pl.Series(spec.protected, dtype=pl.String).implode())


def conflict_drops(spec: SplitPart, members: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows to drop because their cluster has several labels.

    If one label wins, rows with another label are dropped, for the first row of the winning label. If none wins, all
    rows are dropped, each for the first row with another label. So no cluster keeps two labels, unless its protected
    rows have two.

    - `drop`: no label wins.
    - `majority`: the most frequent label wins, counted in rows. If several are equally frequent, none wins.
    - `trusted`: the label of the cluster's source that comes first in `trusted` wins. If that source has two labels, or
      if no source of the cluster is in `trusted`, none wins.
    - Protected rows, and those that a person decided to keep, are never dropped, so under the latter two policies their
      label wins. If they have two, none wins.
    - Rows without a label have no vote, cause no conflict and are kept.

    Args:
        spec: the recipe's `[[split]]`; its `conflicts` is not "keep".
        members: kept rows in clusters: image_id, cluster_id, label, protected, chosen, trust; protected rows first,
            then by `keep`, chosen rows and rank.

    Returns:
        Columns image_id, keeper (the image for which the row is dropped) and why (always conflict).
    """
    labelled = members.drop_nulls("label").filter(pl.col("label").n_unique().over("cluster_id") > 1)
    winner = pl.col("winner")
    differs_from_first = pl.col("label") != pl.col("first_label")
    return (
        labelled.join(_winning_labels(spec, labelled), on="cluster_id", how="left", maintain_order="left")
        .with_columns(first_label=pl.col("label").first().over("cluster_id"))
        .with_columns(
            first_of_winner=_first_image(pl.col("label") == winner),
            first=pl.col("image_id").first().over("cluster_id"),
            first_of_other=_first_image(differs_from_first),
        )
        .filter(~_STAYS & pl.col("label").ne_missing(winner))
        .select(
            "image_id",
            keeper=pl.coalesce(
                "first_of_winner", pl.when(differs_from_first).then("first").otherwise("first_of_other")
            ),
            why=pl.lit("conflict"),
        )
    )


def _winning_labels(spec: SplitPart, labelled: pl.DataFrame) -> pl.DataFrame:
    """Find the label that wins in each cluster: columns cluster_id and winner; no row if none wins."""
    weights = {"majority": pl.len().cast(pl.Int64), "trusted": -pl.col("trust").min().cast(pl.Int64)}
    if spec.conflicts not in weights:
        return labelled.select("cluster_id", winner="label").clear()
    protected_weight = pl.lit(_PROTECTED_WEIGHT, pl.Int64)
    weight = pl.when(_STAYS.any()).then(protected_weight).otherwise(weights[spec.conflicts])
    return (
        labelled.group_by("cluster_id", "label")
        .agg(weight=weight)
        .filter(pl.col("weight") == pl.col("weight").max().over("cluster_id"))
        .filter(pl.len().over("cluster_id") == 1)
        .select("cluster_id", winner="label")
    )


def overlap_drops(spec: SplitPart, members: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows to drop so that every cluster is in one role, and there as often as `within` allows.

    - The first role in `keep` that has a row of the cluster keeps it. Rows of other roles are dropped for its first row
      by rank (overlap).
    - A cluster with protected rows belongs to their role, whatever its position in `keep`. Protected rows are never
      dropped. If they are in two roles, both keep them and all other rows are dropped, because they would leak in any
      role.
    - `within = "first"`: in the role that keeps the cluster, only the first row is kept; the others are dropped for it
      (repeat).
    - `within = "none"`: if that role has two rows of the cluster or more, all of them are dropped: the first for the
      second, the others for the first (repeat). Rows of other roles are dropped for the first, as always. A single row
      in the role that keeps the cluster is kept, also if other roles lose their rows for it.
    - If the role has protected rows, both policies drop its unprotected rows for the first protected one.
    - Both keep a row that a person decided to keep, and drop the others of its role for it.

    Args:
        spec: the recipe's `[[split]]`.
        members: kept rows in clusters: image_id, cluster_id, role, protected, chosen; protected rows first, then by
            `keep`, chosen rows and rank.

    Returns:
        Columns image_id, keeper (the image for which the row is dropped) and why (overlap or repeat).
    """
    in_other_role = pl.col("role") != pl.col("home")
    # Protected rows of another role make the cluster leak in its home role too.
    no_rival = pl.col("rival").is_null()
    repeats = ~in_other_role & no_rival
    is_first = pl.col("image_id") == pl.col("first")
    unchosen = ~pl.col("chosen")
    too_often = {
        "all": pl.lit(value=False),
        "first": repeats & ~is_first & unchosen,
        "none": repeats & pl.col("second").is_not_null() & unchosen,
    }[spec.within]
    candidates = (
        members.with_columns(
            first=pl.col("image_id").first().over("cluster_id"), home=pl.col("role").first().over("cluster_id")
        )
        .with_columns(
            rival=_first_image(pl.col("protected") & in_other_role),
            second=_first_image(~in_other_role & ~is_first),
        )
        .filter(~pl.col("protected"))
    )
    keeper = (
        pl.when(in_other_role)
        .then("first")
        .when(~no_rival)
        .then("rival")
        .when(is_first)
        .then("second")
        .otherwise("first")
    )
    return candidates.filter(in_other_role | ~no_rival | too_often).select(
        "image_id", keeper=keeper, why=pl.when(repeats).then(pl.lit("repeat")).otherwise(pl.lit("overlap"))
    )


def pair_drops(spec: SplitPart, kept: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows to drop so that no pair links kept rows of two roles.

    Rows of the first role in `keep` are kept, and rows of other roles that are paired with them are dropped. Then the
    same is done for the next role, with the rows that are left. Protected rows come before all roles and are never
    dropped.

    Args:
        spec: the recipe's `[[split]]`.
        kept: kept rows: image_id, role, rank, protected.
        pairs: columns left_id and right_id.

    Returns:
        Columns image_id, keeper (the first row, by rank, that it is paired with) and why (overlap).
    """
    both_directions = pl.concat(
        [pairs.select(image_id="left_id", other="right_id"), pairs.select(image_id="right_id", other="left_id")]
    )
    type_of_id = kept.schema["image_id"]
    dropped = pl.DataFrame(schema={"image_id": type_of_id, "keeper": type_of_id, "why": pl.String})
    for has_precedence in _precedence(spec):
        left = kept.join(dropped, on="image_id", how="anti")
        keepers = left.filter(has_precedence).select(keeper="image_id", home="role", keeper_rank="rank")
        now_dropped = (
            left.filter(~pl.col("protected"))
            .join(both_directions, on="image_id")
            .join(keepers, left_on="other", right_on="keeper", coalesce=False)
            .filter(pl.col("role") != pl.col("home"))
            .sort("keeper_rank", "keeper")
            .unique("image_id", keep="first", maintain_order=True)
            .select("image_id", "keeper", why=pl.lit("overlap"))
        )
        dropped = pl.concat([dropped, now_dropped])
    return dropped


def _precedence(spec: SplitPart) -> Iterator[pl.Expr]:
    """Select the rows that are kept before others: protected rows, then each role in the order of `keep`."""
    yield pl.col("protected")
    for role in spec.keep:
        yield pl.col("role") == role


def _first_image(chosen: pl.Expr) -> pl.Expr:
    """Find the first chosen image of every row's cluster; null if none is chosen."""
    return pl.col("image_id").filter(chosen).first().over("cluster_id")


def _kept_members(state: pl.DataFrame, clusters: pl.DataFrame) -> pl.DataFrame:
    """Join kept rows with their clusters of two kept rows or more: protected ones first, then by `keep`, then rank."""
    return (
        state.filter("kept")
        .select("image_id", "label", "role", "priority", "rank", "protected", "chosen", "trust")
        .join(clusters.select("image_id", "cluster_id"), on="image_id")
        .filter(pl.len().over("cluster_id") > 1)
        .sort(~pl.col("protected"), "priority", ~pl.col("chosen"), "rank")
    )


def _apply_verdicts(state: pl.DataFrame, verdicts: pl.DataFrame | None) -> pl.DataFrame:
    """Drop what people decided to drop, and add the column chosen: whether they decided to keep the image."""
    if verdicts is None:
        return state.with_columns(chosen=pl.lit(value=False))
    dropped, chosen = (
        pl.col("image_id").is_in(verdicts.filter(verdict=verdict)["image_id"].implode()) for verdict in ("drop", "keep")
    )
    now = pl.col("kept") & dropped
    by_verdict = pl.when(now).then(pl.lit(VERDICT))
    return state.with_columns(
        kept=pl.col("kept") & ~dropped,
        dropped_by=by_verdict.otherwise("dropped_by"),
        reason=by_verdict.otherwise("reason"),
        chosen=chosen,
    )


def _mark_dropped(state: pl.DataFrame, rule: str, drops: pl.DataFrame) -> pl.DataFrame:
    """Mark rows as dropped by a rule, given columns image_id, keeper and why."""
    is_dropped = pl.col("keeper").is_not_null()
    return (
        state.join(drops.select("image_id", "keeper", "why"), on="image_id", how="left", maintain_order="left")
        .with_columns(
            kept=pl.col("kept") & ~is_dropped,
            dropped_by=pl.when(is_dropped).then(pl.lit(rule)).otherwise("dropped_by"),
            dropped_for=pl.coalesce("keeper", "dropped_for"),
            reason=pl.coalesce("why", "reason"),
        )
        .drop("keeper", "why")
    )


def _trust(spec: SplitPart) -> pl.Expr:
    """Find the position of a row's source in `trusted`, 0 for the most trusted; null if it is not listed."""
    return pl.coalesce(
        *(
            pl.when(_comes_from(source)).then(pl.lit(position, pl.Int32))
            for position, source in enumerate(spec.trusted)
        ),
        pl.lit(None, pl.Int32),
    )


def _comes_from(source: str) -> pl.Expr:
    """Select rows of "dataset" or "dataset/split"."""
    dataset, _, split = source.partition("/")
    return (pl.col("dataset") == dataset) & ((pl.col("split") == split) if split else pl.lit(value=True))


def _straddling_by(rule: str, clusters: pl.DataFrame, state: pl.DataFrame) -> pl.DataFrame:
    return (
        state.join(clusters.select("image_id", "cluster_id"), on="image_id")
        .filter(pl.col("role").n_unique().over("cluster_id") > 1)
        .select(
            rule=pl.lit(rule),
            datasets=pl.col("dataset").cast(pl.String).unique().sort().implode(),
            clusters=pl.col("cluster_id").n_unique(),
            rows=pl.len(),
        )
        .filter(pl.col("rows") > 0)
        .head(1)
    )
