"""What leakage does to a score: rule by rule, accuracy with and without the test images that overlap with train."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.rules import rule_order

# By train size, eval_on, rule and metric of the scores table, the value over all seeds.
Values = Mapping[tuple[int, str, str | None, str], float]


def leakage_by_size(values: Values) -> list[dict[str, Any]]:
    """Read what leakage does to the models of one run.

    Args:
        values: the rows of the run.

    Returns:
        One dict per train size, the largest first: train_size, seeds (fits that the intervals over seeds stand on; 1:
        they are of the test images instead), images (test images scored), original (a score), and rules: for each rule,
        the strictest first, and last for the split's own sanitizing (rule None) a dict of rule, images (overlapping),
        sanitized and overlap (scores, None where the part is empty) and leak (mean, low, high, -1 to 1; None where
        nothing is sanitized). A score holds mean, low and high, 0 to 1, and test_low and test_high: the interval for
        other test images of the same kind. Sizes without measured overlap are left out.
    """
    sizes = sorted({size for size, _, _, metric in values if metric == "seeds"}, reverse=True)
    return [_at_size(values, size) for size in sizes]


def _at_size(values: Values, size: int) -> dict[str, Any]:
    rules = {rule for at, eval_on, rule, metric in values if (at, eval_on, metric) == (size, "overlap", "images")}
    return {
        "train_size": size,
        "seeds": int(values[size, "original", None, "seeds"]),
        "images": int(values[size, "original", None, "images"]),
        "original": _score(values, size, "original", None),
        "rules": [_by_rule(values, size, rule) for rule in sorted(rules, key=_strictest_first)],
    }


def _by_rule(values: Values, size: int, rule: str | None) -> dict[str, Any]:
    return {
        "rule": rule,
        "images": int(values[size, "overlap", rule, "images"]),
        "sanitized": _score(values, size, "sanitized", rule),
        "overlap": _score(values, size, "overlap", rule),
        "leak": _ends(values, (size, "original", rule), "leak"),
    }


def _strictest_first(rule: str | None) -> tuple[bool, tuple[int, str]]:
    return (rule is None, rule_order(rule or ""))


def _score(values: Values, size: int, eval_on: str, rule: str | None) -> dict[str, float] | None:
    found = _ends(values, (size, eval_on, rule), "accuracy")
    if found is None:
        return None
    test = {f"test_{end}": values[size, eval_on, rule, f"wilson_{end}"] for end in ("low", "high")}
    return {**found, **test}


def _ends(values: Values, where: tuple[int, str, str | None], metric: str) -> dict[str, float] | None:
    if (*where, f"{metric}_mean") not in values:
        return None
    return {end: values[(*where, f"{metric}_{end}")] for end in ("mean", "low", "high")}
