"""The query of a review, and the tables that answer it."""

from collections.abc import Collection
from typing import NamedTuple

import polars as pl

from pipeline.dedup.stored_rules import StoredRule
from pipeline.labels import CORRECTED, label_in_split
from pipeline.lake_handle import Lake
from pipeline.search import rules


class ReviewQuery(NamedTuple):
    """Which pairs or clusters of a rule to return.

    Attributes:
        rule: the rule, as in the recipe.
        split: a named split; roles are those of the split before sanitizing. None: roles are dataset/split.
        top: return at most this many.
        between: only those with images in different roles; an image outside the split has no role.
        conflicts: only those with different labels; a missing label is not a different label.
        best: a role: for each of its images, only the closest pair with an image of another role.
        min_score: only pairs with at least this score, and clusters that they link; None for all.
    """

    rule: str
    split: str | None = None
    top: int = 50
    between: bool = False
    conflicts: bool = False
    best: str | None = None
    min_score: float | None = None


def stored_rule(lake: Lake, query: ReviewQuery) -> StoredRule:
    """Find the stored rule whose pairs include those of the query; see `search.rules.stored_rule`."""
    return rules.stored_rule(lake, query.rule, query.min_score)


def image_facts(lake: Lake, query: ReviewQuery) -> pl.LazyFrame:
    """Scan path, label and role of every image.

    Returns:
        Columns image_id, path, label and role. The role is that in the split before sanitizing, null outside the split;
        without a split, it is dataset/split.

    Raises:
        LakeError: the lake has no such split, or the split has no such role; the message gives the nearest name.
    """
    images = lake.scan("images")
    if query.split is None:
        facts = images.select("image_id", "path", "label", role=pl.format("{}/{}", "dataset", "split"))
    else:
        splits = lake.scan("splits").select("split_name", "role", "image_id", *CORRECTED)
        _check_name(lake, "split", query.split, _values(splits, "split_name"))
        roles = splits.filter(pl.col("split_name") == query.split).drop("split_name")
        facts = images.select("image_id", "path", "label").join(roles, on="image_id", how="left")
        facts = facts.with_columns(label_in_split()).drop(CORRECTED)
    if query.best is not None:
        _check_name(lake, "role", query.best, _values(facts, "role"))
    return facts


def scan_rule(lake: Lake, table: str, rule: str) -> pl.LazyFrame:
    """Scan the rows of a rule in pairs or clusters; files of other rules are not opened."""
    return lake.scan(table).filter(pl.col("rule") == rule).drop("rule")


def length(rows: pl.LazyFrame) -> int:
    """Count rows in a stream."""
    count: int = rows.select(pl.len()).collect(engine="streaming").item()
    return count


def _values(rows: pl.LazyFrame, name: str) -> list[str]:
    return rows.select(pl.col(name).unique()).collect(engine="streaming").to_series().drop_nulls().to_list()


def _check_name(lake: Lake, what: str, name: str, stored: Collection[str]) -> None:
    if name not in stored:
        rules.raise_unknown(lake, what, name, stored)
