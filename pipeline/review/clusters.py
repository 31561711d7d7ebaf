"""clusters, pairs -> the shapes of a rule's clusters: how large, how far a chain reaches, what is in them."""

from functools import partial
from typing import NamedTuple

import polars as pl

from pipeline.builder.clusters import clusters_of, pairs_from
from pipeline.lake_handle import Lake
from pipeline.review.query import Question, facts_of, rows_of, stored_of

_PATHS = 3


class Shapes(NamedTuple):
    """The clusters of a rule.

    Attributes:
        rule: the rule.
        release: the release that was asked.
        clusters: how many there are in all.
        matching: how many of them were asked for; what follows is of these.
        largest: images of the largest; 0 where there is none.
        diameter: the longest diameter, in pairs; None where there is none.
        exact: whether that is exact; else it may be longer.
        sizes: columns images and clusters (how many are of that size), smallest first.
        shown: columns cluster_id, images, pairs, diameter, exact, lowest (as `dedup.diameters.cluster_shapes` says),
            labels and roles (lists of value and images, most images first; null is no label, or outside the split),
            paths (the first ones by image_id). Most images first, then by cluster_id.
        stored: the rule whose stored pairs were read: the rule itself, or one with a lower threshold.
        least: the score from which on those pairs were linked; None where all of them were.
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


def review_clusters(lake: Lake, asked: Question) -> Shapes:
    """Measure the clusters of a rule and describe the largest.

    Where the rule is decided by keys alone, every two images of a cluster are the same to it: pairs are counted as all
    of these, the diameter is 1 and the lowest score 1.

    Args:
        lake: the lake as of a release.
        asked: which clusters; `best` plays no part. Where a score or a stricter rule than the stored one is asked for,
            clusters are linked from the stored pairs that reach it.

    Raises:
        LakeError: the lake has no such rule or split.
    """
    from pipeline.dedup.components import cluster_shapes  # noqa: PLC0415 - scipy, only when asked for

    stored = stored_of(lake, asked)
    clusters = clusters_of(stored, partial(rows_of, lake)).select("cluster_id", "image_id")
    members = clusters.join(facts_of(lake, asked).select("image_id", "path", "label", "role"), on="image_id")
    pairs = pairs_from(stored.least, rows_of(lake, "pairs", stored.rule))
    shapes = cluster_shapes(clusters.collect(), pairs.collect())
    if shapes["pairs"].sum() == 0:
        shapes = _of_keys(shapes)
    kept = shapes
    for name, wanted in (("role", asked.between), ("label", asked.conflicts)):
        if wanted:
            several = members.group_by("cluster_id").agg(pl.col(name).drop_nulls().n_unique()).filter(pl.col(name) > 1)
            kept = kept.join(several.collect(engine="streaming"), on="cluster_id", how="semi", maintain_order="left")
    longest = kept["diameter"].max()
    return Shapes(
        asked.rule,
        lake.release,
        len(shapes),
        len(kept),
        next(iter(kept["images"].head(1).to_list()), 0),
        longest if isinstance(longest, int) else None,
        bool(kept["exact"].all()),
        kept.group_by("images").agg(clusters=pl.len()).sort("images"),
        _described(kept.head(asked.top), members),
        stored.rule,
        stored.least,
    )


def _of_keys(shapes: pl.DataFrame) -> pl.DataFrame:
    images = pl.col("images")
    one = pl.lit(1, pl.Int64)
    return shapes.with_columns(
        pairs=images * (images - 1) // 2, diameter=one, exact=pl.lit(value=True), lowest=pl.lit(1.0, pl.Float32)
    )


def _described(shapes: pl.DataFrame, members: pl.LazyFrame) -> pl.DataFrame:
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
