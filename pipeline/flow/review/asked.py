"""What is asked of a rule's pairs, and what the lake knows of the images in them."""

import difflib
from collections.abc import Collection
from typing import NamedTuple

import polars as pl

from pipeline.errors import LakeError
from pipeline.handle import Lake
from pipeline.lake.commits import files, read_meta


class Question(NamedTuple):
    """Which pairs, or clusters, of a rule to show.

    Attributes:
        rule: as the recipe spells it.
        split: a named split, whose roles count, as drawn; None for dataset/split.
        top: how many to show at most.
        between: only those whose images lie in different roles; an image outside the split is in none.
        conflicts: only those whose images bear different labels; a missing label differs from none.
        best: a role: of every image of it only its closest pair with an image of another role.
    """

    rule: str
    split: str | None = None
    top: int = 50
    between: bool = False
    conflicts: bool = False
    best: str | None = None


def check_rule(lake: Lake, rule: str) -> None:
    """Make sure that a lake was deduplicated by a rule.

    Raises:
        LakeError: it was not; the nearest rule that it has is named.
    """
    held = set(read_meta(lake.root, "clusters", lake.versions.get("clusters")).units)
    for table in ("pairs", "clusters"):
        held |= {part.partition["rule"] for part in files(lake.root, table, lake.versions.get(table))}
    _check(lake, "rule", rule, held)


def facts_of(lake: Lake, asked: Question) -> pl.LazyFrame:
    """Tell what is known of every image.

    Returns:
        Columns image_id, path, label and role: its role in the split as drawn, null outside; dataset/split where no
        split is asked for.

    Raises:
        LakeError: the lake has no such split, or the split no such role; the nearest name is given.
    """
    images = lake.scan("images")
    if asked.split is None:
        facts = images.select("image_id", "path", "label", role=pl.format("{}/{}", "dataset", "split"))
    else:
        splits = lake.scan("splits").select("split_name", "role", "image_id")
        _check(lake, "split", asked.split, _values(splits, "split_name"))
        roles = splits.filter(pl.col("split_name") == asked.split).drop("split_name")
        facts = images.select("image_id", "path", "label").join(roles, on="image_id", how="left")
    if asked.best is not None:
        _check(lake, "role", asked.best, _values(facts, "role"))
    return facts


def rows_of(lake: Lake, table: str, rule: str) -> pl.LazyFrame:
    """Scan the rows of a rule, of pairs or clusters; other rules' files stay closed."""
    return lake.scan(table).filter(pl.col("rule") == rule).drop("rule")


def length(rows: pl.LazyFrame) -> int:
    """Count rows without holding them."""
    count: int = rows.select(pl.len()).collect(engine="streaming").item()
    return count


def _values(rows: pl.LazyFrame, name: str) -> list[str]:
    return rows.select(pl.col(name).unique()).collect(engine="streaming").to_series().drop_nulls().to_list()


def _check(lake: Lake, what: str, name: str, held: Collection[str]) -> None:
    if name in held:
        return
    near = difflib.get_close_matches(name, held, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    listed = ", ".join(sorted(held)) or "none"
    raise LakeError(f"{lake.root} has no {what} '{name}'; {hint}{what.capitalize()}s: {listed}.")
