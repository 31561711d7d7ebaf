"""Named splits: how many images a role has, and how many of them sanitizing dropped by which rule."""

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
