"""Find the closest pairs of a rule, and write them with their pictures as one HTML page.

Finding pairs reads no pixels; the page reads those of its pictures only.
"""

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline import storage
from pipeline.dedup.stored_rules import filter_pairs
from pipeline.lake.reads import explain_failures
from pipeline.lake_handle import Lake
from pipeline.review.page import write_page
from pipeline.review.query import ReviewQuery, image_facts, length, scan_rule, stored_rule
from pipeline.search.rules import forest_note

# Representatives of each role of a cluster have this many labels: two different ones, and a missing one.
_LABELS = 3
_SIDES = ("left", "right")


class PairReview(NamedTuple):
    """The closest pairs of a rule.

    Attributes:
        rule: the rule.
        release: the release.
        headline: says what is shown, and out of how many; and if not all pairs of the rule are stored, that.
        pairs: number of stored pairs of the rule.
        matching: number of pairs that match the query; with `best`, the number of images of the role with such a pair.
        from_clusters: whether the pairs were made from clusters, all with score 1, because the rule stores no pairs.
        shown: columns score, left_id, right_id, left_path, right_path, left_label, right_label, left_role, right_role
            (null outside the split), conflict, cluster_id (of the stored rule; null unless both are in one cluster).
            Highest score first, then by left_id and right_id. With `best`, left is the image of that role, else the
            image with the smaller id.
        stored: the rule whose stored pairs were read: the rule itself, or one with a lower threshold.
        least: the lowest score of the pairs that were read; None if all stored pairs were.
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


@explain_failures
def review_pairs(lake: Lake, query: ReviewQuery) -> PairReview:
    """Find the closest pairs of a rule.

    A rule that compares keys only stores no pairs. They are made from its clusters: the first image of a cluster with
    every other image; if the query is about roles or labels, every image with the first of each role and label.

    Raises:
        LakeError: the lake has no such rule, split or role; or only pairs with a higher score are stored.
    """
    stored = stored_rule(lake, query)
    facts = image_facts(lake, query)
    clusters = scan_rule(lake, "clusters", stored.rule)
    pairs = filter_pairs(stored.min_score, scan_rule(lake, "pairs", stored.rule))
    count = length(pairs)
    from_clusters = stored.min_score is None and not count and length(clusters.head(1)) > 0
    if from_clusters:
        pairs = _pairs_with_representatives(clusters, facts) if _filters_images(query) else _pairs_with_first(clusters)
        count = length(pairs)
    least = pl.col("score").top_k(query.top).min()
    matching, score = _matching(pairs, facts, query).select(pl.len(), least).collect(engine="streaming").row(0)
    # The second query drops all pairs with a lower score before the joins.
    closest = _matching(pairs.filter(pl.col("score") >= pl.lit(score, pl.Float32)), facts, query)
    order = ["score", "left_id", "right_id"]
    shown = closest.sort(order, descending=[True, False, False]).head(query.top).collect(engine="streaming")
    # The number of pairs made from clusters depends on the query, so the headline leaves it out.
    headline = _headline(query, len(shown), matching, None if from_clusters else count) + forest_note(lake, stored)
    described = _describe(shown, facts, clusters)
    return PairReview(
        query.rule, lake.release, headline, count, matching, from_clusters, described, stored.rule, stored.min_score
    )


def _filters_images(query: ReviewQuery) -> bool:
    return query.between or query.conflicts or query.best is not None


def _pairs_with_first(clusters: pl.LazyFrame) -> pl.LazyFrame:
    others = clusters.filter(pl.col("image_id") != pl.col("cluster_id"))
    return others.select(left_id="cluster_id", right_id="image_id", score=pl.lit(1.0, pl.Float32))


def _pairs_with_representatives(clusters: pl.LazyFrame, facts: pl.LazyFrame) -> pl.LazyFrame:
    """Pair every image with the first image of each role and label of its cluster, instead of with all images.

    If the cluster has an image of another role, another label, or both, then one of the pairs has such an image.
    """
    members = clusters.select("cluster_id", "image_id", "label").join(facts.select("image_id", "role"), on="image_id")
    representatives = (
        members.group_by("cluster_id", "role", "label")
        .agg(pl.col("image_id").min())
        .sort("image_id")
        .group_by("cluster_id", "role", maintain_order=True)
        .head(_LABELS)
        .select("cluster_id", representative="image_id")
    )
    one, other = pl.col("image_id"), pl.col("representative")
    both = members.join(representatives, on="cluster_id").filter(one != other)
    left, right = pl.when(one < other).then(one).otherwise(other), pl.when(one < other).then(other).otherwise(one)
    return both.select(left_id=left, right_id=right, score=pl.lit(1.0, pl.Float32)).unique()


def _matching(pairs: pl.LazyFrame, facts: pl.LazyFrame, query: ReviewQuery) -> pl.LazyFrame:
    if not _filters_images(query):
        return pairs
    known = _with_facts(pairs, facts)
    if query.conflicts:
        known = known.filter(pl.col("left_label") != pl.col("right_label"))
    if query.between or query.best is not None:
        known = known.filter(pl.col("left_role") != pl.col("right_role"))
    return known.select("left_id", "right_id", "score") if query.best is None else _best(known, query.best)


def _best(known: pl.LazyFrame, role: str) -> pl.LazyFrame:
    """Keep the closest pair of every image of a role, with that image on the left."""
    on_left = pl.col("left_role") == role
    pairs = known.filter(on_left | (pl.col("right_role") == role)).select(
        "score",
        left_id=pl.when(on_left).then("left_id").otherwise("right_id"),
        right_id=pl.when(on_left).then("right_id").otherwise("left_id"),
    )
    closest = pl.col("right_id").filter(pl.col("score") == pl.col("score").max()).min()
    return pairs.group_by("left_id").agg(closest, pl.col("score").max())


def _describe(shown: pl.DataFrame, facts: pl.LazyFrame, clusters: pl.LazyFrame) -> pl.DataFrame:
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
    """Read an id as a number, which joins three times as fast as bytes."""
    return pl.col(name).bin.reinterpret(dtype=pl.Int128, endianness="big").alias("key")


def _headline(query: ReviewQuery, shown: int, matching: int, pairs: int | None) -> str:
    where = f" of split {query.split}" if query.split else ""
    rule = query.rule if query.min_score is None else f"{query.rule} with a score of {query.min_score:g} or more"
    labels = " with different labels" if query.conflicts else ""
    count = f"All {matching:,}" if shown == matching else f"{shown:,} of {matching:,}"
    if query.best is not None:
        other = f"another role{where}" + (" and another label" if query.conflicts else "")
        images = f"images of {query.best} that have a pair with {other} by {rule}"
        return f"{count} {images}, each with its closest, best first." if matching else f"No {images}."
    kind = (f" between roles{where}" if query.between else "") + labels
    whole = f"; {pairs:,} pairs in all" if kind and pairs else ""
    what = f"{count} pairs{kind} by {rule}, closest first" if matching else f"No pairs{kind} by {rule}"
    return f"{what}{whole}."


def write_review(lake: Lake, review: PairReview, file: Path) -> Path:
    """Write pairs with their pictures as one self-contained HTML page.

    Args:
        lake: the lake of the review's release.
        review: made by `review_pairs`.
        file: as in `write_page`.
    """
    from pipeline.report.pictures import read_pictures  # noqa: PLC0415 - slow to import
    from pipeline.report.review import render_pairs  # noqa: PLC0415 - slow to import

    ids = pl.concat([review.shown["left_id"], review.shown["right_id"]])
    pictures = read_pictures(lake.scan("images"), ids, check=True)
    summary: dict[str, Any] = {
        **review._asdict(),
        "lake": storage.last_name(lake.root),
        "shown": review.shown.to_dicts(),
    }
    return write_page(render_pairs(summary, pictures), file)
