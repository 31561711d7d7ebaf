"""The query of a review, and the tables that answer it."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import polars as pl

from pipeline.builder.clusters import StoredRule, find_stored_rule
from pipeline.dedup.rules import parse_rule
from pipeline.errors import LakeError, RecipeError
from pipeline.lake_handle import Lake
from pipeline.recipe.rules import rule_known_as, rule_with_pairs_of, stricter_rule, threshold_of


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
    """Find the stored rule whose pairs include those of the query: the rule itself, or one with a lower threshold.

    Raises:
        LakeError: there is none: the lake has no such rule (the message gives the nearest one), or only pairs with a
            higher score are stored.
    """
    units: dict[str, Mapping[str, Any]] = {}
    for table in ("pairs", "clusters"):
        units |= {part.partition["rule"]: {} for part in lake.snapshot.files(table)}
    units |= lake.snapshot.metadata("clusters").units
    if rule_with_pairs_of(query.rule, units) is None:
        _raise_unknown_rule(lake, query.rule, units)
    stored, threshold = find_stored_rule(query.rule, units), threshold_of(query.rule)
    if query.min_score is None or threshold is None:
        return stored
    if query.min_score < threshold.least:
        raise LakeError(
            f"a score of {query.min_score:g} is below the threshold of {query.rule}: its pairs have a score of "
            f"{threshold.least:g} or more. Use a minimum score of {threshold.least:g} or more"
            + (f", or the rule {stored.rule}." if stored.rule != query.rule else _looser_rule_hint(query.rule))
        )
    return stored._replace(min_score=query.min_score)


def _raise_unknown_rule(lake: Lake, rule: str, stored: Collection[str]) -> NoReturn:
    missing = f"{lake.root} has no rule '{rule}'"
    listed = f"Rules: {', '.join(sorted(stored)) or 'none'}."
    if (stricter := stricter_rule(rule, stored)) and (threshold := threshold_of(stricter)):
        raise LakeError(
            f"{missing}; did you mean '{stricter}'? Only pairs with a score of {threshold.least:g} or more are stored"
            f"{_looser_rule_hint(stricter)}"
        )
    known = rule_known_as(rule)
    family = known[0].partition(":")[0] if known else ""
    near = [name for name in sorted(stored) if name.partition(":")[0] == family]
    if known and not near:
        raise LakeError(f"{missing}; did you mean '{known[0]}'? {_add_rule_hint(known[0])} {listed}")
    if not near and _is_rule(rule):
        raise LakeError(f"{missing}. {_add_rule_hint(rule)} {listed}")
    _raise_unknown(lake, "rule", rule, stored, near)


def _is_rule(rule: str) -> bool:
    try:
        parse_rule(rule)
    except RecipeError:
        return False
    return True


def _add_rule_hint(rule: str) -> str:
    return f"To compare by {rule}, put it into dedup.rules of the recipe, and build."


def _looser_rule_hint(rule: str) -> str:
    return f"; for more, put a looser {rule.partition(':')[0]} rule into dedup.rules of the recipe, and build."


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
        splits = lake.scan("splits").select("split_name", "role", "image_id")
        _check_name(lake, "split", query.split, _values(splits, "split_name"))
        roles = splits.filter(pl.col("split_name") == query.split).drop("split_name")
        facts = images.select("image_id", "path", "label").join(roles, on="image_id", how="left")
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
        _raise_unknown(lake, what, name, stored)


def _raise_unknown(lake: Lake, what: str, name: str, stored: Collection[str], near: Sequence[str] = ()) -> NoReturn:
    near = near or difflib.get_close_matches(name, stored, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    listed = ", ".join(sorted(stored)) or "none"
    raise LakeError(f"{lake.root} has no {what} '{name}'{hint} {what.capitalize()}s: {listed}.")
