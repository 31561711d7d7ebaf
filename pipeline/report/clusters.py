"""Clusters worth looking at: those that reach across roles, and those whose images bear several labels."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from pipeline.report.splits import role_order

PER_RULE = 12
LEAST = 4
PER_SIDE = 2
SIDES = 12


@dataclass(frozen=True)
class ClusterChoice:
    """The clusters to show for one question.

    Attributes:
        split_name: the named split whose roles are crossed; None where sources are crossed, or labels.
        totals: per rule, how many clusters there are in all.
        shown: per rule, the chosen clusters: cluster_id, images, sides, more_sides (not shown); a side has
            side, images and ids.
    """

    split_name: str | None
    totals: dict[str, int]
    shown: dict[str, list[dict[str, Any]]]

    def ids(self) -> list[bytes]:
        """Every image_id that is to be shown."""
        clusters = [cluster for chosen in self.shown.values() for cluster in chosen]
        return [one for cluster in clusters for side in cluster["sides"] for one in side["ids"]]


def count_clusters(clusters: pl.LazyFrame, rules: list[str]) -> list[dict[str, Any]]:
    """Count clusters by rule.

    Args:
        clusters: the clusters table.
        rules: rules to report, in order.

    Returns:
        One dict per rule: rule, clusters, images (in clusters), redundant (all but one of each cluster),
        largest (images in the largest cluster), conflicts (clusters with several labels).
    """
    counts = (
        clusters.group_by("rule", "cluster_id")
        .agg(images=pl.len().cast(pl.Int64), labels=pl.col("label").drop_nulls().n_unique())
        .group_by("rule")
        .agg(
            clusters=pl.len(),
            images=pl.col("images").sum(),
            redundant=(pl.col("images") - 1).sum(),
            largest=pl.col("images").max(),
            conflicts=(pl.col("labels") > 1).sum(),
        )
        .collect()
    )
    nothing = {name: 0 for name in counts.columns if name != "rule"}
    found = {row["rule"]: row for row in counts.iter_rows(named=True)}
    return [{"rule": rule, **found.get(rule, nothing)} for rule in rules]


def cross_roles(
    clusters: pl.LazyFrame, images: pl.LazyFrame, splits: pl.LazyFrame, names: list[str]
) -> list[ClusterChoice]:
    """Choose clusters that cross roles, for every named split.

    Args:
        clusters: the clusters table.
        images: the images table.
        splits: the splits table.
        names: the named splits; the more there are, the fewer clusters are shown of each.

    Returns:
        One choice per split, in the order of `names`.
    """
    limit = max(LEAST, PER_RULE // len(names))
    roles = splits.select("split_name", "image_id", side=pl.col("role"))
    return [
        _choose(clusters.join(roles.filter(pl.col("split_name") == name), on="image_id"), images, name, limit)
        for name in names
    ]


def cross_sources(clusters: pl.LazyFrame, images: pl.LazyFrame) -> list[ClusterChoice]:
    """Choose clusters that cross sources: what there is to see before a split is named."""
    source = pl.concat_str("dataset", "split", separator="/")
    return [_choose(clusters.with_columns(side=source), images, None, PER_RULE)]


def label_conflicts(clusters: pl.LazyFrame, images: pl.LazyFrame) -> ClusterChoice:
    """Choose clusters with several labels; an image without a label contradicts nobody."""
    return _choose(clusters.with_columns(side="label"), images, None, PER_RULE)


def _choose(members: pl.LazyFrame, images: pl.LazyFrame, split_name: str | None, limit: int) -> ClusterChoice:
    """Choose clusters with two or more sides: the largest, which shows how loose a rule is, then small ones.

    Small clusters are the least alike among each other. Of them those whose pictures are not just equal come
    first: equal ones look the same under every rule.
    """
    key = ["rule", "cluster_id"]
    several = (
        members.group_by(key)
        .agg(cluster_images=pl.len(), sides=pl.col("side").drop_nulls().n_unique())
        .filter(pl.col("sides") > 1)
        .collect()
    )
    found = (
        several.join(_of_equal_pictures(members, several, images), on=key)
        .sort("rule", -pl.col("cluster_images").cast(pl.Int64), "cluster_id")
        .with_columns(largest=pl.int_range(pl.len()).over("rule") == 0)
        .sort("rule", ~pl.col("largest"), "equal", "cluster_images", "cluster_id")
    )
    chosen = found.group_by("rule", maintain_order=True).head(limit).with_row_index("order")
    sides = (
        members.join(chosen.lazy(), on=key)
        .group_by("order", *key, "cluster_images", "side")
        .agg(images=pl.len(), ids=pl.col("image_id").sort().head(PER_SIDE))
        .collect()
        .sort("order")
    )
    totals = dict(found.group_by("rule").len().iter_rows())
    return ClusterChoice(split_name, totals, {rule: _nest(sides, rule) for rule in totals})


def _of_equal_pictures(members: pl.LazyFrame, several: pl.DataFrame, images: pl.LazyFrame) -> pl.DataFrame:
    """Tell of some clusters whether all their pictures are equal: rule, cluster_id, equal."""
    key = ["rule", "cluster_id"]
    inside = members.select(*key, "image_id").join(several.lazy().select(key), on=key, how="semi").unique().collect()
    ids = inside["image_id"].unique().implode()
    contents = images.filter(pl.col("image_id").is_in(ids)).select("image_id", "content_hash").collect()
    return (
        inside.join(contents, on="image_id", how="left").group_by(key).agg(equal=pl.col("content_hash").n_unique() == 1)
    )


def _nest(sides: pl.DataFrame, rule: str) -> list[dict[str, Any]]:
    parts = sides.filter(pl.col("rule") == rule).partition_by("order", maintain_order=True)
    return [_cluster(part) for part in parts]


def _cluster(part: pl.DataFrame) -> dict[str, Any]:
    sides = sorted(part.select("side", "images", "ids").rows(named=True), key=_side_order)
    return {
        "cluster_id": part["cluster_id"][0].hex(),
        "images": part["cluster_images"][0],
        "sides": sides[:SIDES],
        "more_sides": max(0, len(sides) - SIDES),
    }


def _side_order(side: dict[str, Any]) -> tuple[bool, tuple[int, str]]:
    return (side["side"] is None, role_order(side["side"] or ""))
