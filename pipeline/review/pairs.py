"""pairs -> the closest of them, with what is known of their images. Reads ids, scores, labels and paths; no pixels.

A review -> one HTML page with the pictures side by side. Of the pixels, only those of these pictures are read.
"""

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline import storage
from pipeline.builder.clusters import pairs_from
from pipeline.lake_handle import Lake
from pipeline.review.query import Question, facts_of, length, rows_of, stored_of
from pipeline.storage.atomic import writing_whole

# The first images of this many labels in every role of a cluster: two different labels, and one that is missing.
_WITNESSES = 3
_SIDES = ("left", "right")


class Review(NamedTuple):
    """The pairs to look at.

    Attributes:
        rule: the rule.
        release: the release that was asked.
        headline: what is shown, out of how many, in words.
        pairs: how many pairs the rule has in all.
        matching: how many of them were asked for; with `best`, how many images of the role have one.
        from_clusters: the rule writes no pairs, so they were made of its clusters, all with the score 1.
        shown: columns score, left_id, right_id, left_path, right_path, left_label, right_label, left_role, right_role
            (null outside the split), conflict, cluster_id (of the stored rule; null unless both are in it). Highest
            score first, then by left_id and right_id. With `best`, left is the image of that role, else the smaller id
            of the two.
        stored: the rule whose stored pairs were read: the rule itself, or one with a lower threshold.
        least: the score from which on those pairs count; None where all of them do.
    """

    rule: str
    release: int
    headline: str
    pairs: int
    matching: int
    from_clusters: bool
    shown: pl.DataFrame
    stored: str = ""
    least: float | None = None


def review_pairs(lake: Lake, asked: Question) -> Review:
    """Find the closest pairs of a rule.

    A rule that is decided by keys alone writes no pairs. Its clusters stand in for them: the first image of each with
    every other one; or, where roles or labels are asked for, every image with the first ones of each role and label.

    Args:
        lake: the lake as of a release.
        asked: which pairs.

    Raises:
        LakeError: the lake has no such rule, split or role.
    """
    stored = stored_of(lake, asked)
    facts = facts_of(lake, asked)
    clusters = rows_of(lake, "clusters", stored.rule)
    pairs = pairs_from(stored.least, rows_of(lake, "pairs", stored.rule))
    count = length(pairs)
    from_clusters = stored.least is None and not count and length(clusters.head(1)) > 0
    if from_clusters:
        pairs = _each_with_witnesses(clusters, facts) if _picky(asked) else _first_with_each(clusters)
        count = length(pairs)
    least = pl.col("score").top_k(asked.top).min()
    matching, score = _matching(pairs, facts, asked).select(pl.len(), least).collect(engine="streaming").row(0)
    # The second time, all but the highest scores go before anything is joined to them.
    closest = _matching(pairs.filter(pl.col("score") >= pl.lit(score, pl.Float32)), facts, asked)
    order = ["score", "left_id", "right_id"]
    shown = closest.sort(order, descending=[True, False, False]).head(asked.top).collect(engine="streaming")
    # How many were made of clusters depends on what is asked, and says nothing.
    headline = _headline(asked, len(shown), matching, None if from_clusters else count)
    described = _described(shown, facts, clusters)
    return Review(
        asked.rule, lake.release, headline, count, matching, from_clusters, described, stored.rule, stored.least
    )


def _picky(asked: Question) -> bool:
    return asked.between or asked.conflicts or asked.best is not None


def _first_with_each(clusters: pl.LazyFrame) -> pl.LazyFrame:
    others = clusters.filter(pl.col("image_id") != pl.col("cluster_id"))
    return others.select(left_id="cluster_id", right_id="image_id", score=pl.lit(1.0, pl.Float32))


def _each_with_witnesses(clusters: pl.LazyFrame, facts: pl.LazyFrame) -> pl.LazyFrame:
    """Pair every image with the first ones of every role and label of its cluster: never all with all.

    Where its cluster has images of another role, of another label, or of both, one of them is among these.
    """
    members = clusters.select("cluster_id", "image_id", "label").join(facts.select("image_id", "role"), on="image_id")
    witnesses = (
        members.group_by("cluster_id", "role", "label")
        .agg(pl.col("image_id").min())
        .sort("image_id")
        .group_by("cluster_id", "role", maintain_order=True)
        .head(_WITNESSES)
        .select("cluster_id", witness="image_id")
    )
    one, other = pl.col("image_id"), pl.col("witness")
    met = members.join(witnesses, on="cluster_id").filter(one != other)
    left, right = pl.when(one < other).then(one).otherwise(other), pl.when(one < other).then(other).otherwise(one)
    return met.select(left_id=left, right_id=right, score=pl.lit(1.0, pl.Float32)).unique()


def _matching(pairs: pl.LazyFrame, facts: pl.LazyFrame, asked: Question) -> pl.LazyFrame:
    if not _picky(asked):
        return pairs
    known = _with_facts(pairs, facts)
    if asked.conflicts:
        known = known.filter(pl.col("left_label") != pl.col("right_label"))
    if asked.between or asked.best is not None:
        known = known.filter(pl.col("left_role") != pl.col("right_role"))
    return known.select("left_id", "right_id", "score") if asked.best is None else _best(known, asked.best)


def _best(known: pl.LazyFrame, role: str) -> pl.LazyFrame:
    """Keep the closest pair of every image of a role, that image on the left."""
    ours = pl.col("left_role") == role
    pairs = known.filter(ours | (pl.col("right_role") == role)).select(
        "score",
        left_id=pl.when(ours).then("left_id").otherwise("right_id"),
        right_id=pl.when(ours).then("right_id").otherwise("left_id"),
    )
    closest = pl.col("right_id").filter(pl.col("score") == pl.col("score").max()).min()
    return pairs.group_by("left_id").agg(closest, pl.col("score").max())


def _described(shown: pl.DataFrame, facts: pl.LazyFrame, clusters: pl.LazyFrame) -> pl.DataFrame:
    ids = pl.concat([shown["left_id"], shown["right_id"]]).unique().implode()
    few = [rows.filter(pl.col("image_id").is_in(ids)).collect() for rows in (facts, clusters)]
    known = few[0].join(few[1].select("image_id", "cluster_id"), on="image_id", how="left").lazy()
    same = pl.col("left_cluster_id") == pl.col("right_cluster_id")
    return (
        _with_facts(shown.with_row_index("place").lazy(), known)
        .sort("place")
        .select(
            "score",
            *(f"{side}_{name}" for name in ("id", "path", "label", "role") for side in _SIDES),
            conflict=(pl.col("left_label") != pl.col("right_label")).fill_null(value=False),
            cluster_id=pl.when(same).then("left_cluster_id"),
        )
        .collect()
    )


def _with_facts(pairs: pl.LazyFrame, facts: pl.LazyFrame) -> pl.LazyFrame:
    names = [name for name in facts.collect_schema() if name != "image_id"]
    for side in _SIDES:
        named = facts.select(_key("image_id"), pl.col(names).name.prefix(f"{side}_"))
        pairs = pairs.with_columns(_key(f"{side}_id")).join(named, on="key").drop("key")
    return pairs


def _key(name: str) -> pl.Expr:
    """An id as a number: joined in a third of the time that bytes take."""
    return pl.col(name).bin.reinterpret(dtype=pl.Int128, endianness="big").alias("key")


def _headline(asked: Question, shown: int, matching: int, pairs: int | None) -> str:
    where = f" of split {asked.split}" if asked.split else ""
    rule = asked.rule if asked.min_score is None else f"{asked.rule} with a score of {asked.min_score:g} or more"
    labels = " with different labels" if asked.conflicts else ""
    count = f"All {matching:,}" if shown == matching else f"{shown:,} of {matching:,}"
    if asked.best is not None:
        other = f"another role{where}" + (" and another label" if asked.conflicts else "")
        whose = f"images of {asked.best} that have a pair with {other} by {rule}"
        return f"{count} {whose}, each with its closest, best first." if matching else f"No {whose}."
    kind = (f" between roles{where}" if asked.between else "") + labels
    whole = f"; {pairs:,} pairs in all" if kind and pairs else ""
    what = f"{count} pairs{kind} by {rule}, closest first" if matching else f"No pairs{kind} by {rule}"
    return f"{what}{whole}."


def write_review(lake: Lake, review: Review, file: Path) -> Path:
    """Write a review as one self-contained HTML page.

    Args:
        lake: the lake as of a release.
        review: what `review_pairs` found.
        file: where to.

    Returns:
        The file.

    Raises:
        LakeError: the page cannot be written there.
        DiskFullError: no space is left.
    """
    from pipeline.report.pictures import read_pictures  # noqa: PLC0415 - comes with them
    from pipeline.report.review import render_pairs  # noqa: PLC0415 - templates and Pillow, only when drawn

    ids = pl.concat([review.shown["left_id"], review.shown["right_id"]])
    pictures = read_pictures(lake.scan("images"), ids)
    summary: dict[str, Any] = {
        **review._asdict(),
        "lake": storage.last_name(lake.root),
        "shown": review.shown.to_dicts(),
    }
    html = render_pairs(summary, pictures)
    with writing_whole(file, "the page") as draft:
        draft.write_text(html, encoding="utf-8")
    return file
