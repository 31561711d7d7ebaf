"""What is asked of a rule's pairs, and what the lake knows of the images in them."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import polars as pl

from pipeline.builder.clusters import Stored, find_stored
from pipeline.dedup.rules import parse_rule
from pipeline.errors import LakeError, RecipeError
from pipeline.lake_handle import Lake
from pipeline.recipe.rules import rule_known_as, rule_with_pairs_of, stricter_rule, threshold_of


class Question(NamedTuple):
    """Which pairs, or clusters, of a rule to show.

    Attributes:
        rule: as the recipe spells it.
        split: a named split, whose roles count, as drawn; None for dataset/split.
        top: how many to show at most.
        between: only those whose images lie in different roles; an image outside the split is in none.
        conflicts: only those whose images bear different labels; a missing label differs from none.
        best: a role: of every image of it only its closest pair with an image of another role.
        min_score: only pairs with this score or a higher one, and clusters as these link them; None for all.
    """

    rule: str
    split: str | None = None
    top: int = 50
    between: bool = False
    conflicts: bool = False
    best: str | None = None
    min_score: float | None = None


def stored_of(lake: Lake, asked: Question) -> Stored:
    """Find where a lake has the pairs that are asked for: under the rule, or under one with a lower threshold.

    Raises:
        LakeError: it has them nowhere: the lake was not deduplicated by such a rule (the nearest one is named), or only
            pairs with a higher score are stored.
    """
    units: dict[str, Mapping[str, Any]] = {}
    for table in ("pairs", "clusters"):
        units |= {part.partition["rule"]: {} for part in lake.snapshot.files(table)}
    units |= lake.snapshot.metadata("clusters").units
    if rule_with_pairs_of(asked.rule, units) is None:
        _refuse_rule(lake, asked.rule, units)
    stored, threshold = find_stored(asked.rule, units), threshold_of(asked.rule)
    if asked.min_score is None or threshold is None:
        return stored
    if asked.min_score < threshold.least:
        raise LakeError(
            f"a score of {asked.min_score:g} is below the threshold of {asked.rule}: its pairs have a score of "
            f"{threshold.least:g} or more. Ask for {threshold.least:g} or more"
            + (f", or for the pairs of {stored.rule}." if stored.rule != asked.rule else _lower(asked.rule))
        )
    return stored._replace(least=asked.min_score)


def _refuse_rule(lake: Lake, rule: str, held: Collection[str]) -> NoReturn:
    missing = f"{lake.root} has no rule '{rule}'"
    stored = f"Rules: {', '.join(sorted(held)) or 'none'}."
    if (stricter := stricter_rule(rule, held)) and (threshold := threshold_of(stricter)):
        raise LakeError(
            f"{missing}; did you mean '{stricter}'? Only pairs with a score of {threshold.least:g} or more are stored"
            f"{_lower(stricter)}"
        )
    known = rule_known_as(rule)
    family = known[0].partition(":")[0] if known else ""
    near = [name for name in sorted(held) if name.partition(":")[0] == family]
    if known and not near:
        raise LakeError(f"{missing}; did you mean '{known[0]}'? {_not_stored(known[0])} {stored}")
    if not near and _is_rule(rule):
        raise LakeError(f"{missing}. {_not_stored(rule)} {stored}")
    _refuse(lake, "rule", rule, held, near)


def _is_rule(rule: str) -> bool:
    try:
        parse_rule(rule)
    except RecipeError:
        return False
    return True


def _not_stored(rule: str) -> str:
    return f"To compare by {rule}, put it into dedup.rules of the recipe, and build."


def _lower(rule: str) -> str:
    """Say how pairs with lower scores come into a lake."""
    return f"; for more, put a looser {rule.partition(':')[0]} rule into dedup.rules of the recipe, and build."


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
    if name not in held:
        _refuse(lake, what, name, held)


def _refuse(lake: Lake, what: str, name: str, held: Collection[str], near: Sequence[str] = ()) -> NoReturn:
    near = near or difflib.get_close_matches(name, held, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    listed = ", ".join(sorted(held)) or "none"
    raise LakeError(f"{lake.root} has no {what} '{name}'{hint} {what.capitalize()}s: {listed}.")
