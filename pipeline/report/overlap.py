"""Summarize splits, clusters and overlap: counts, matrices between roles or sources, and clusters worth a look."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipeline.recipe import ROLES
from pipeline.recipe.rules import rule_order

# Counts the overlap of clusters and members (image_id, role); returns rule, role, other, images.
Overlap = Callable[[pl.LazyFrame, pl.LazyFrame], pl.DataFrame]
Matrix = list[list[int]]

# Clusters shown per rule, also with many splits; images shown per side of a cluster, and sides per cluster.
_CLUSTERS_PER_RULE = 12
_MIN_CLUSTERS_PER_RULE = 4
_IMAGES_PER_SIDE = 2
_IMAGES_PER_REPEAT = 6
MAX_SIDES = 12
# Rules that drop rows one after the other: a row was dropped for one that a later rule dropped, and so on.
_MAX_STEPS = 16


@dataclass(frozen=True)
class ClusterChoice:
    """The clusters to show in one section of the report.

    Attributes:
        split_name: the named split that says which images were kept; None if the lake has none.
        totals: by rule, the number of such clusters.
        shown: by rule, the chosen clusters: cluster_id, images, sides, more_sides (number of sides not shown), instead
            (the kept image for which all images of the cluster were dropped; None if it keeps one, or none was kept). A
            side has side (a role, source or label), images and ids, kept images first.
    """

    split_name: str | None
    totals: dict[str, int]
    shown: dict[str, list[dict[str, Any]]]

    def ids(self) -> list[bytes]:
        """List the image_ids to show."""
        clusters = [cluster for chosen in self.shown.values() for cluster in chosen]
        ids = [image_id for cluster in clusters for side in cluster["sides"] for image_id in side["ids"]]
        return ids + [cluster["instead"] for cluster in clusters if cluster["instead"] is not None]


def known_rules(clusters: pl.LazyFrame, index: pl.LazyFrame) -> list[str]:
    """List the rules by which the lake is indexed, including rules without any cluster.

    Returns:
        Rules as written in the recipe, in the order of `rule_order`.
    """
    both = pl.concat([clusters.select("rule"), index.select("rule")]).unique().collect()
    return sorted(both["rule"], key=rule_order)


def describe_splits(splits: pl.LazyFrame) -> list[dict[str, Any]]:
    """Count the images of each named split.

    Returns:
        One dict per split, sorted by name: split_name, roles (role, images, kept, dropped), and dropped_by
        (rule, images; the rule that dropped most first).
    """
    roles = splits.group_by("split_name", "role").agg(images=pl.len(), kept=pl.col("kept").sum().cast(pl.Int64))
    rules = (
        splits.filter(~pl.col("kept"))
        .group_by("split_name", rule=pl.col("dropped_by").fill_null(""))
        .agg(images=pl.len())
    )
    per_role, per_rule = roles.collect().rows(named=True), rules.collect().rows(named=True)
    return [
        {
            "split_name": name,
            "roles": [
                {
                    "role": row["role"],
                    "images": row["images"],
                    "kept": row["kept"],
                    "dropped": row["images"] - row["kept"],
                }
                for row in sorted(per_role, key=lambda row: _role_order(row["role"]))
                if row["split_name"] == name
            ],
            "dropped_by": [
                {"rule": row["rule"], "images": row["images"]}
                for row in sorted(per_rule, key=lambda row: (-row["images"], row["rule"]))
                if row["split_name"] == name
            ],
        }
        for name in sorted({row["split_name"] for row in per_role})
    ]


def split_matrices(
    overlap: Overlap, clusters: pl.LazyFrame, splits: pl.LazyFrame, split: dict[str, Any], rules: list[str]
) -> dict[str, Any]:
    """Count the overlap between the roles of one named split, before and after sanitizing.

    Args:
        overlap: counts overlap.
        clusters: the clusters table.
        splits: the splits table.
        split: the description of the split by `describe_splits`.
        rules: rules to report, in order.

    Returns:
        split_name, roles, sizes and kept_sizes (images per role), and rules: rule, cells (of all original rows) and
        kept_cells (of the rows that sanitizing kept). cells[i][j] counts images of role i with a duplicate in role j;
        on the diagonal, with another image of role i.
    """
    rows = splits.filter(pl.col("split_name") == split["split_name"])
    roles = [row["role"] for row in split["roles"]]
    original = _matrices(overlap(clusters, rows.select("image_id", "role")), roles)
    kept = _matrices(overlap(clusters, rows.filter(pl.col("kept")).select("image_id", "role")), roles)
    zeros = _zeros(len(roles))
    return {
        "split_name": split["split_name"],
        "roles": roles,
        "sizes": [row["images"] for row in split["roles"]],
        "kept_sizes": [row["kept"] for row in split["roles"]],
        "rules": [
            {"rule": rule, "cells": original.get(rule, zeros), "kept_cells": kept.get(rule, zeros)} for rule in rules
        ],
    }


def source_matrix(overlap: Overlap, clusters: pl.LazyFrame, sums: pl.DataFrame, rules: list[str]) -> dict[str, Any]:
    """Count the overlap between sources, as if each (dataset, split) were a role.

    Args:
        overlap: counts overlap.
        clusters: the clusters table.
        sums: sums per class, from `sum_classes`, for the sizes.
        rules: rules to report, in order.

    Returns:
        roles (here sources), sizes and rules, as in `split_matrices`, without kept_cells.
    """
    source = pl.concat_str("dataset", "split", separator="/")
    sizes = sums.group_by(role=source).agg(pl.col("images").sum()).sort("role")
    roles = sizes["role"].to_list()
    # Images in no cluster have no overlap.
    members = clusters.select("image_id", role=source).filter(pl.col("role").is_in(roles)).unique()
    cells = _matrices(overlap(clusters, members), roles)
    return {
        "roles": roles,
        "sizes": sizes["images"].to_list(),
        "rules": [{"rule": rule, "cells": cells.get(rule, _zeros(len(roles)))} for rule in rules],
    }


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
    zeros = {name: 0 for name in counts.columns if name != "rule"}
    found = {row["rule"]: row for row in counts.iter_rows(named=True)}
    return [{"rule": rule, **found.get(rule, zeros)} for rule in rules]


def choose_clusters(
    clusters: pl.LazyFrame, images: pl.LazyFrame, splits: pl.LazyFrame, names: list[str], *, repeats: bool = False
) -> list[ClusterChoice]:
    """Choose clusters that have images in several roles, for every named split; in several sources if there is none.

    Args:
        clusters: the clusters table.
        images: the images table.
        splits: the splits table.
        names: the named splits; the more there are, the fewer clusters are shown of each.
        repeats: choose groups of two or more images that are in the same role (or source) instead, each with one side.

    Returns:
        One choice per split, in the order of `names`; one for all sources if there is no split.
    """
    if not names:
        return [_choose(_in_sources(clusters), images, splits, None, _CLUSTERS_PER_RULE, repeats=repeats)]
    limit = clusters_per_rule(len(names))
    return [_choose(_in_roles(clusters, splits, name), images, splits, name, limit, repeats=repeats) for name in names]


def choose_label_conflicts(
    clusters: pl.LazyFrame, images: pl.LazyFrame, splits: pl.LazyFrame, split_name: str | None
) -> ClusterChoice:
    """Choose clusters with several labels; images without a label are ignored.

    Args:
        clusters: the clusters table.
        images: the images table.
        splits: the splits table.
        split_name: the split that says which images were kept; None if there is none.
    """
    return _choose(clusters.with_columns(side="label"), images, splits, split_name, _CLUSTERS_PER_RULE)


def clusters_per_rule(splits: int) -> int:
    """Return how many clusters to show of each rule and split; the more splits, the fewer."""
    return max(_MIN_CLUSTERS_PER_RULE, _CLUSTERS_PER_RULE // splits)


def _in_roles(clusters: pl.LazyFrame, splits: pl.LazyFrame, split_name: str) -> pl.LazyFrame:
    roles = splits.filter(pl.col("split_name") == split_name).select("image_id", side="role")
    return clusters.join(roles, on="image_id")


def _in_sources(clusters: pl.LazyFrame) -> pl.LazyFrame:
    source = pl.concat_str("dataset", "split", separator="/")
    return clusters.with_columns(side=source)


def _choose(  # noqa: PLR0913 - the tables, and what to choose of them
    members: pl.LazyFrame,
    images: pl.LazyFrame,
    splits: pl.LazyFrame,
    split_name: str | None,
    limit: int,
    *,
    repeats: bool = False,
) -> ClusterChoice:
    """Choose clusters with two or more sides: the largest, which shows how loose a rule is, then small ones.

    Small clusters are the most different from each other. Clusters whose images are not all equal come first, because
    equal images look the same under every rule. With `repeats`, the images of one side of a cluster take the place of a
    cluster, if there are two or more.
    """
    key = ["rule", "cluster_id", *(["side"] if repeats else [])]
    several = (
        members.group_by(key)
        .agg(cluster_images=pl.len(), sides=pl.len() if repeats else pl.col("side").drop_nulls().n_unique())
        .filter(pl.col("sides") > 1)
        .collect()
    )
    found = (
        several.join(_all_equal(members, several, images, key), on=key)
        .sort("rule", -pl.col("cluster_images").cast(pl.Int64), *key[1:])
        .with_columns(largest=pl.int_range(pl.len()).over("rule") == 0)
        .sort("rule", ~pl.col("largest"), "equal", "cluster_images", *key[1:])
    )
    chosen = found.group_by("rule", maintain_order=True).head(limit).with_row_index("order")
    totals = dict(found.group_by("rule").len().iter_rows())
    inside = members.join(chosen.lazy(), on=key).collect()
    shown = describe_clusters(inside, splits, split_name, _IMAGES_PER_REPEAT if repeats else _IMAGES_PER_SIDE)
    return ClusterChoice(split_name, totals, shown)


def describe_clusters(
    members: pl.DataFrame, splits: pl.LazyFrame, split_name: str | None, images_per_side: int
) -> dict[str, list[dict[str, Any]]]:
    """Choose the images to show of every side of chosen clusters: kept ones first, then by `image_id`.

    Args:
        members: rows of the chosen clusters: order (number of the cluster), rule, cluster_id, cluster_images, image_id
            and side.
        splits: the splits table.
        split_name: the split that says which images were kept; None if there is none.
        images_per_side: maximum number of images per side.

    Returns:
        By rule, the clusters in their order, as in `ClusterChoice.shown`.
    """
    ids = members.lazy().select("image_id").unique()
    in_split = splits.filter(pl.col("split_name") == pl.lit(split_name, pl.String))
    kept = in_split.select("image_id", "kept").join(ids, on="image_id", how="semi").collect()
    kept_first = pl.col("image_id").sort_by(~pl.col("kept").fill_null(value=False), "image_id")
    sides = (
        members.join(kept, on="image_id", how="left")
        .group_by("order", "rule", "cluster_id", "cluster_images", "side")
        .agg(images=pl.len(), any_kept=pl.col("kept").any(), ids=kept_first.head(images_per_side))
        .sort("order")
    )
    lost = sides.filter(~pl.col("any_kept").any().over("order")).explode("ids")
    instead = _kept_instead(splits, split_name, lost["ids"]) if split_name is not None else {}
    shown: dict[str, list[dict[str, Any]]] = {}
    for part in sides.partition_by("order", maintain_order=True):
        shown.setdefault(part["rule"][0], []).append(_describe_cluster(part, instead))
    return shown


def _kept_instead(splits: pl.LazyFrame, split_name: str, dropped: pl.Series) -> dict[bytes, bytes]:
    """Find the image that was kept in place of each dropped image, which another rule may have found.

    A row is dropped for another one, which a later rule may have dropped too. Rows that were dropped for each other,
    because their labels differ, have no such image.
    """
    rows = splits.filter(pl.col("split_name") == split_name).select("image_id", "kept", "dropped_for")
    starts = dropped.unique()
    paths = pl.DataFrame({"start": starts, "image_id": starts}, schema={"start": pl.Binary, "image_id": pl.Binary})
    found: dict[bytes, bytes] = {}
    for _ in range(_MAX_STEPS):
        if paths.is_empty():
            break
        at = paths.lazy().join(rows, on="image_id").collect()
        found |= dict(at.filter("kept").select("start", "image_id").iter_rows())
        paths = at.filter(~pl.col("kept")).select("start", image_id="dropped_for").drop_nulls()
    return found


def _all_equal(members: pl.LazyFrame, several: pl.DataFrame, images: pl.LazyFrame, key: list[str]) -> pl.DataFrame:
    """Find out whether all images of each of some clusters are equal: the key, and equal."""
    inside = members.select(*key, "image_id").join(several.lazy().select(key), on=key, how="semi").unique().collect()
    ids = inside["image_id"].unique().implode()
    contents = images.filter(pl.col("image_id").is_in(ids)).select("image_id", "content_hash").collect()
    return (
        inside.join(contents, on="image_id", how="left").group_by(key).agg(equal=pl.col("content_hash").n_unique() == 1)
    )


def _describe_cluster(part: pl.DataFrame, instead: dict[bytes, bytes]) -> dict[str, Any]:
    rows = part.select("side", "images", "any_kept", "ids").rows(named=True)
    # A side with a kept image is always among those shown.
    shown = sorted(rows, key=lambda row: (row["any_kept"] is not True, *_side_order(row["side"])))[:MAX_SIDES]
    first = [image_id for row in shown for image_id in row["ids"] if image_id in instead]
    return {
        "cluster_id": part["cluster_id"][0].hex(),
        "images": part["cluster_images"][0],
        "sides": [
            {name: row[name] for name in ("side", "images", "ids")}
            for row in sorted(shown, key=lambda row: _side_order(row["side"]))
        ],
        "more_sides": len(rows) - len(shown),
        "instead": instead[first[0]] if first else None,
    }


def _matrices(counts: pl.DataFrame, roles: list[str]) -> dict[str, Matrix]:
    """Turn (rule, role, other, images) into one matrix per rule; a pair without a count is 0."""
    position = {role: i for i, role in enumerate(roles)}
    matrices: dict[str, Matrix] = {}
    for rule, role, other, images in counts.select("rule", "role", "other", "images").iter_rows():
        matrices.setdefault(rule, _zeros(len(roles)))[position[role]][position[other]] = images
    return matrices


def _zeros(size: int) -> Matrix:
    return [[0] * size for _ in range(size)]


def _side_order(side: str | None) -> tuple[bool, int, str]:
    return (side is None, *_role_order(side or ""))


def _role_order(role: str) -> tuple[int, str]:
    """Sort key: train, valid, test, then any other name."""
    return (ROLES.index(role) if role in ROLES else len(ROLES), role)
