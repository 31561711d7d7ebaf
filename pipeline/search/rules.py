"""Look up a rule of a lake; the error for a rule that it does not have names the nearest."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from pipeline.dedup.rules import parse_rule
from pipeline.dedup.stored_rules import StoredRule, find_stored_rule
from pipeline.errors import LakeError, RecipeError
from pipeline.recipe.rules import rule_known_as, rule_order, rule_with_pairs_of, stricter_rule, threshold_of
from pipeline.search.tables import Tables


def lake_rules(lake: Tables) -> list[str]:
    """List the rules of a lake, the strictest family first."""
    return sorted(stored_units(lake), key=rule_order)


def stored_rule(lake: Tables, rule: str, min_score: float | None = None) -> StoredRule:
    """Find the stored rule whose pairs include those of a rule: the rule itself, or one with a lower threshold.

    Args:
        lake: the lake.
        rule: a rule.
        min_score: only pairs with at least this score; None for all pairs of the rule.

    Raises:
        LakeError: there is none: the lake has no such rule (the message gives the nearest one), or only pairs with a
            higher score are stored.
    """
    units = stored_units(lake)
    if rule_with_pairs_of(rule, units) is None:
        _raise_unknown_rule(lake, rule, units)
    stored, threshold = find_stored_rule(rule, units), threshold_of(rule)
    if min_score is None or threshold is None:
        return stored
    if min_score < threshold.least:
        raise LakeError(
            f"a score of {min_score:g} is below the threshold of {rule}: its pairs have a score of "
            f"{threshold.least:g} or more. Use a minimum score of {threshold.least:g} or more"
            + (f", or the rule {stored.rule}." if stored.rule != rule else _looser_rule_hint(rule))
        )
    return stored._replace(min_score=min_score)


def pairs_found(lake: Tables, stored: StoredRule) -> int | None:
    """Return how many pairs the stored rule found, if the lake stores only those of a spanning forest; else None."""
    found: int | None = lake.snapshot.metadata("pairs").units.get(stored.rule, {}).get("found")
    return found


def forest_note(lake: Tables, stored: StoredRule) -> str:
    """Say that not all pairs of a rule are stored, in a sentence after a space; empty if they are."""
    found = pairs_found(lake, stored)
    if found is None:
        return ""
    return (
        f" Of the {found:,} pairs of {stored.rule}, more than dedup.max_pairs, only those that link its clusters are "
        "stored: the closest pair of every image is among them, others are not."
    )


def stored_units(lake: Tables) -> dict[str, Mapping[str, Any]]:
    """Return, by stored rule, the unit of its clusters; empty where an older imagelake recorded none."""
    units: dict[str, Mapping[str, Any]] = {}
    for table in ("pairs", "clusters"):
        units |= {part.partition["rule"]: {} for part in lake.snapshot.files(table)}
    return {**units, **lake.snapshot.metadata("clusters").units}


def _raise_unknown_rule(lake: Tables, rule: str, stored: Collection[str]) -> NoReturn:
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
    raise_unknown(lake, "rule", rule, stored, near)


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


def raise_unknown(lake: Tables, what: str, name: str, stored: Collection[str], near: Sequence[str] = ()) -> NoReturn:
    """Raise the error for a name that the lake does not have; it gives the nearest one."""
    near = near or difflib.get_close_matches(name, stored, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    listed = ", ".join(sorted(stored)) or "none"
    raise LakeError(f"{lake.root} has no {what} '{name}'{hint} {what.capitalize()}s: {listed}.")
