"""Render the clusters of a rule as one HTML page: every cluster with its images, by role, the kept image first."""

from typing import Any

import polars as pl

from pipeline.recipe.rules import rule_meaning
from pipeline.report.html import render_page
from pipeline.report.overlap import MAX_SIDES, ClusterChoice, describe_clusters
from pipeline.report.pictures import Pictures

# Images of a cluster that are shown at most, and of one role at least.
_IMAGES_PER_CLUSTER = 24
_MIN_IMAGES_PER_SIDE = 2


def render_clusters(review: dict[str, Any], members: pl.LazyFrame, images: pl.LazyFrame, splits: pl.LazyFrame) -> str:
    """Render the page; see `html.render_page`.

    Args:
        review: lake, release, rule, split (None without a named split), headline, and shown: dicts of cluster_id (as
            bytes), images, pairs, diameter, exact and lowest.
        members: the images of these clusters: cluster_id, image_id, label and side (a role, or None).
        images: the images table.
        splits: the splits table.
    """
    clusters = describe_members(review, members, splits)
    choice = ClusterChoice(review["split"], {review["rule"]: len(clusters)}, {review["rule"]: clusters})
    pictures = Pictures.collect(splits, pl.Series(dtype=pl.Binary), [choice])
    pictures.fill(images)
    drawn = [cluster for entry in pictures.clusters(choice, review["rule"]) for cluster in entry["shown"]]
    return render_page("clusters.html.j2", {**review, "meaning": rule_meaning(review["rule"]), "clusters": drawn})


def describe_members(review: dict[str, Any], members: pl.LazyFrame, splits: pl.LazyFrame) -> list[dict[str, Any]]:
    """Choose the images to show of every cluster.

    Args:
        review: as in `render_clusters`.
        members: as in `render_clusters`.
        splits: the splits table.

    Returns:
        One dict per cluster, in the order of `review`: that of `ClusterChoice.shown`, with pairs, diameter, exact,
        lowest, conflict (it has several labels), crossing (it is in several roles) and repeated (a role has two of its
        images or more).
    """
    shown = review["shown"]
    order = pl.LazyFrame(
        {
            "order": range(len(shown)),
            "cluster_id": [row["cluster_id"] for row in shown],
            "cluster_images": [row["images"] for row in shown],
        },
        schema={"order": pl.UInt32, "cluster_id": pl.Binary, "cluster_images": pl.UInt32},
    )
    chosen = members.join(order, on="cluster_id").with_columns(rule=pl.lit(review["rule"])).collect()
    facts = chosen.group_by("order").agg(
        labels=pl.col("label").drop_nulls().n_unique(), roles=pl.col("side").drop_nulls().n_unique()
    )
    counts = {row["order"]: row for row in facts.iter_rows(named=True)}
    roles = min(MAX_SIDES, max(facts["roles"].to_list(), default=1))
    per_side = max(_MIN_IMAGES_PER_SIDE, _IMAGES_PER_CLUSTER // max(1, roles))
    described = describe_clusters(chosen, splits, review["split"], per_side)
    return [
        {
            **cluster,
            **{name: shown[number][name] for name in ("pairs", "diameter", "exact", "lowest")},
            "conflict": counts[number]["labels"] > 1,
            "crossing": counts[number]["roles"] > 1,
            "repeated": any(side["images"] > 1 and side["side"] is not None for side in cluster["sides"]),
        }
        for number, cluster in enumerate(described.get(review["rule"], []))
    ]
