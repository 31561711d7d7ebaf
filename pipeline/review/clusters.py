"""Describe the clusters of a rule (sizes, diameters, labels, roles and first paths), and write them as an HTML page."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline import storage
from pipeline.dedup.stored_rules import StoredRule, filter_pairs, read_clusters
from pipeline.lake.reads import explain_failures
from pipeline.lake_handle import Lake
from pipeline.review.page import write_page
from pipeline.review.query import ReviewQuery, image_facts, scan_rule, stored_rule
from pipeline.search.rules import forest_note
from pipeline.verdicts.standing import resolve

# Paths listed for each cluster.
_PATHS = 3


class ClusterReview(NamedTuple):
    """The clusters of a rule.

    Attributes:
        rule: the rule.
        release: the release.
        clusters: number of clusters of the rule.
        matching: number of clusters that match the query; all that follows is about these.
        largest: number of images in the largest cluster; 0 without clusters.
        diameter: the longest diameter, in pairs; None if unknown or without clusters.
        exact: whether the diameter is exact; otherwise it is a lower bound.
        sizes: columns images and clusters (the number of clusters of that size), smallest first.
        shown: columns cluster_id, images, pairs, diameter, exact, lowest (see `dedup.components.cluster_shapes`),
            labels and roles (lists of value and images, most images first; null means no label, or outside the split),
            paths (the first ones by image_id). Most images first, then by cluster_id.
        stored: the rule whose stored pairs were read: the rule itself, or one with a lower threshold.
        least: the lowest score of the pairs that were linked; None if all stored pairs were.
        note: says that not all pairs of the rule are stored, so that diameters and lowest scores are unknown; empty if
            all are.
    """

    rule: str
    release: int
    clusters: int
    matching: int
    largest: int
    diameter: int | None
    exact: bool
    sizes: pl.DataFrame
    shown: pl.DataFrame
    stored: str = ""
    least: float | None = None
    note: str = ""


@explain_failures
def review_clusters(lake: Lake, query: ReviewQuery) -> ClusterReview:
    """Measure the clusters of a rule and describe the largest.

    For a rule that compares keys only, every two images of a cluster are a pair, the diameter is 1 and the lowest score
    is 1. For a minimum score or a stricter rule than the stored one, clusters are linked from the stored pairs that
    reach it.

    Args:
        lake: the lake of a release.
        query: which clusters; `best` is ignored.

    Raises:
        LakeError: the lake has no such rule, or no such split or role; or only pairs with a higher score are stored.
    """
    from pipeline.dedup.components import cluster_shapes  # noqa: PLC0415 - scipy is slow to import

    stored = stored_rule(lake, query)
    clusters = _clusters(lake, stored)
    members = clusters.join(image_facts(lake, query).select("image_id", "path", "label", "role"), on="image_id")
    pairs = filter_pairs(stored.min_score, scan_rule(lake, "pairs", stored.rule))
    shapes = cluster_shapes(clusters.collect(), pairs.collect())
    note = forest_note(lake, stored)
    if shapes["pairs"].sum() == 0:
        shapes = _key_shapes(shapes)
    elif note:
        unknown = pl.lit(None)
        shapes = shapes.with_columns(diameter=unknown.cast(pl.Int64), exact=False, lowest=unknown.cast(pl.Float32))
    kept = shapes
    for name, wanted in (("role", query.between), ("label", query.conflicts)):
        if wanted:
            several = members.group_by("cluster_id").agg(pl.col(name).drop_nulls().n_unique()).filter(pl.col(name) > 1)
            kept = kept.join(several.collect(engine="streaming"), on="cluster_id", how="semi", maintain_order="left")
    longest = kept["diameter"].max()
    return ClusterReview(
        query.rule,
        lake.release,
        len(shapes),
        len(kept),
        next(iter(kept["images"].head(1).to_list()), 0),
        longest if isinstance(longest, int) else None,
        bool(kept["exact"].all()),
        kept.group_by("images").agg(clusters=pl.len()).sort("images"),
        _describe(kept.head(query.top), members),
        stored.rule,
        stored.min_score,
        note.strip(),
    )


def write_clusters(lake: Lake, query: ReviewQuery, review: ClusterReview, file: Path) -> Path:
    """Write clusters with their pictures as one self-contained HTML page.

    Of a large cluster only some images are shown. In every role, those that the split keeps come first.

    Args:
        lake: the lake of the review's release.
        query: the query of the review.
        review: made by `review_clusters`.
        file: as in `write_page`.
    """
    from pipeline.report.clusters import render_clusters  # noqa: PLC0415 - slow to import

    clusters = _clusters(lake, stored_rule(lake, query))
    shown = pl.col("cluster_id").is_in(review.shown["cluster_id"].implode())
    facts = image_facts(lake, query).select("image_id", "label", side="role")
    members = clusters.filter(shown).join(facts, on="image_id")
    summary: dict[str, Any] = {
        "lake": storage.last_name(lake.root),
        "release": review.release,
        "rule": review.rule,
        "split": query.split,
        "headline": f"{_headline(query, review)} {review.note}".strip(),
        "shown": review.shown.to_dicts(),
    }
    return write_page(render_clusters(summary, members, lake.scan("images"), lake.scan("splits")), file)


def _clusters(lake: Lake, stored: StoredRule) -> pl.LazyFrame:
    """Read the clusters of a rule: columns cluster_id and image_id."""
    return read_clusters(stored, partial(scan_rule, lake), resolve(lake.snapshot).decided).select(
        "cluster_id", "image_id"
    )


def _headline(query: ReviewQuery, review: ClusterReview) -> str:
    rule = review.rule if query.min_score is None else f"{review.rule} with a score of {query.min_score:g} or more"
    roles = "roles" if query.split else "sources"
    between = f" that have images in different {roles}" if query.between else ""
    labels = f"{' and' if between else ' that have'} different labels" if query.conflicts else ""
    count = f"All {review.matching:,}" if len(review.shown) == review.matching else f"{len(review.shown):,} of "
    count += "" if count.startswith("All") else f"{review.matching:,}"
    if not review.matching:
        return f"No clusters by {rule}{between}{labels}."
    return f"{count} clusters by {rule}{between}{labels}, the largest first."


def _key_shapes(shapes: pl.DataFrame) -> pl.DataFrame:
    images = pl.col("images")
    one = pl.lit(1, pl.Int64)
    return shapes.with_columns(
        pairs=images * (images - 1) // 2, diameter=one, exact=pl.lit(value=True), lowest=pl.lit(1.0, pl.Float32)
    )


def _describe(shapes: pl.DataFrame, members: pl.LazyFrame) -> pl.DataFrame:
    chosen = pl.col("cluster_id").is_in(shapes["cluster_id"].implode())
    rows = members.filter(chosen).collect(engine="streaming").sort("image_id")
    described = shapes
    for name, plural in (("label", "labels"), ("role", "roles")):
        counts = (
            rows.group_by("cluster_id", name)
            .agg(images=pl.len())
            .sort("images", name, descending=[True, False], nulls_last=True)
            .group_by("cluster_id", maintain_order=True)
            .agg(pl.struct(value=name, images="images").alias(plural))
        )
        described = described.join(counts, on="cluster_id", how="left", maintain_order="left")
    paths = rows.group_by("cluster_id", maintain_order=True).agg(paths=pl.col("path").head(_PATHS))
    return described.join(paths, on="cluster_id", how="left", maintain_order="left")
