"""Named splits: how many images a role has, and how many of them sanitizing dropped by which rule.

Overlap matrices: by the roles of a named split, before and after sanitizing, and by source.
"""

from collections.abc import Callable
from typing import Any

import polars as pl

from pipeline.recipe import ROLES


def role_order(role: str) -> tuple[int, str]:
    """Sort key: train, valid, test, then whatever else there is."""
    return (ROLES.index(role) if role in ROLES else len(ROLES), role)


def describe_splits(splits: pl.LazyFrame) -> list[dict[str, Any]]:
    """Describe each named split.

    Args:
        splits: the splits table.

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
                for row in sorted(per_role, key=lambda row: role_order(row["role"]))
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


Overlap = Callable[[pl.LazyFrame, pl.LazyFrame], pl.DataFrame]
Cells = list[list[int]]


def split_matrices(
    overlap: Overlap, clusters: pl.LazyFrame, splits: pl.LazyFrame, split: dict[str, Any], rules: list[str]
) -> dict[str, Any]:
    """Count overlap between the roles of one named split.

    Args:
        overlap: counts overlap.
        clusters: the clusters table.
        splits: the splits table.
        split: what `describe_splits` says of it.
        rules: rules to report, in order.

    Returns:
        split_name, roles, sizes and kept_sizes (images per role), and rules: rule, cells (of all original
        rows) and kept_cells (of the rows that sanitizing kept). cells[i][j]: images of role i with a twin in
        role j; on the diagonal, with another image of role i.
    """
    rows = splits.filter(pl.col("split_name") == split["split_name"])
    roles = [row["role"] for row in split["roles"]]
    original = _cells(overlap(clusters, rows.select("image_id", "role")), roles)
    kept = _cells(overlap(clusters, rows.filter(pl.col("kept")).select("image_id", "role")), roles)
    nothing = _zeros(len(roles))
    return {
        "split_name": split["split_name"],
        "roles": roles,
        "sizes": [row["images"] for row in split["roles"]],
        "kept_sizes": [row["kept"] for row in split["roles"]],
        "rules": [
            {"rule": rule, "cells": original.get(rule, nothing), "kept_cells": kept.get(rule, nothing)}
            for rule in rules
        ],
    }


def source_matrix(overlap: Overlap, clusters: pl.LazyFrame, sums: pl.DataFrame, rules: list[str]) -> dict[str, Any]:
    """Count overlap between sources: each (dataset, split) plays a role of its own.

    Args:
        overlap: counts overlap.
        clusters: the clusters table.
        sums: sums per class, from `sum_classes`, for the sizes.
        rules: rules to report, in order.

    Returns:
        roles (here sources), sizes and rules, as `split_matrices` has them, without kept_cells.
    """
    source = pl.concat_str("dataset", "split", separator="/")
    sizes = sums.group_by(role=source).agg(pl.col("images").sum()).sort("role")
    roles = sizes["role"].to_list()
    # An image that is in no cluster overlaps with nothing.
    members = clusters.select("image_id", role=source).filter(pl.col("role").is_in(roles)).unique()
    cells = _cells(overlap(clusters, members), roles)
    return {
        "roles": roles,
        "sizes": sizes["images"].to_list(),
        "rules": [{"rule": rule, "cells": cells.get(rule, _zeros(len(roles)))} for rule in rules],
    }


def _cells(counts: pl.DataFrame, roles: list[str]) -> dict[str, Cells]:
    """Turn (rule, role, other, images) into one square per rule; a pair that is not counted is 0."""
    place = {role: i for i, role in enumerate(roles)}
    squares: dict[str, Cells] = {}
    for rule, role, other, images in counts.select("rule", "role", "other", "images").iter_rows():
        squares.setdefault(rule, _zeros(len(roles)))[place[role]][place[other]] = images
    return squares


def _zeros(size: int) -> Cells:
    return [[0] * size for _ in range(size)]
