"""Accuracy over train size: on train, valid and test, and on what sanitizing makes of test; and what fits took.

What leakage does to a score: rule by rule, accuracy with and without the test images that overlap with train.
"""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

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


# What a point holds, by role and part of it.
PLACES = {
    "train": ("train", "original"),
    "valid": ("valid", "original"),
    "original": ("test", "original"),
    "sanitized": ("test", "sanitized"),
    "overlap": ("test", "overlap"),
}
RUN = ("run_id", "model", "split_name", "release")
_CURVE = ["model", "split_name"]


def accuracy_curves(scores: pl.LazyFrame) -> list[dict[str, Any]]:
    """Read one curve per run: a model with its settings, on a split.

    Args:
        scores: the scores table. A role that is null, as in older lakes, is test.

    Returns:
        One dict per run, ordered by model, split_name, release (the newest first), train_dropped (the most first) and
        run_id: model, split_name, release, run_id, train_dropped (images that may be trained on although sanitizing
        drops them, None where it was not measured), points by train_size, and leakage, see `leakage_by_size`.
        A point holds train_size, seeds (fits that its intervals stand on, None where there are none), train, valid,
        original, sanitized, overlap (0 to 1, over all seeds, or None where it was not measured; the last three are of
        the test role), ends: by these names, the two ends of the 95 % interval, or None; seconds (mean of the fits),
        memory (bytes, the most of the fits) and chosen (by setting, the values that were found, ascending).
    """
    whole = pl.col("label").is_null(), pl.col("point").is_null()
    rows = (
        scores.filter(pl.col("value").is_finite(), *whole)
        .with_columns(pl.col("role").fill_null("test"))
        .sort("run_id", "seed", "value", "seconds", "memory")
        .collect()
    )
    runs = rows.partition_by(*RUN, as_dict=True)
    curves = [_curve(dict(zip(RUN, key, strict=True)), part) for key, part in runs.items()]
    drawn = [curve for curve in curves if curve["points"]]
    return sorted(
        drawn,
        key=lambda curve: (
            *(curve[name] for name in _CURVE),
            -curve["release"],
            -(curve["train_dropped"] or 0),
            curve["run_id"],
        ),
    )


def _curve(named: dict[str, Any], rows: pl.DataFrame) -> dict[str, Any]:
    values = {role: _values(rows.filter(role=role)) for role in ("train", "valid", "test")}
    test = values["test"]
    scored = sorted({size for size, _, _, metric in test if metric == "accuracy_mean"})
    dropped = [value for (_, _, _, metric), value in test.items() if metric == "train_dropped"]
    settings = json.loads(next(iter(rows["settings"].drop_nulls().to_list()), "{}"))
    return {
        **named,
        "train_dropped": int(dropped[-1]) if dropped else None,
        "positive": settings.get("positive"),
        "trained_on": settings.get("train_on"),
        "patience": settings.get("patience"),
        "points": [{**_point(values, size), **_effort(rows.filter(train_size=size))} for size in scored],
        "leakage": leakage_by_size(test),
    }


def _values(rows: pl.DataFrame) -> Values:
    """Index the rows of a role; where an older lake holds no accuracy_mean, it is the mean of the accuracies."""
    keys = ["train_size", "eval_on", "rule", "metric"]
    means = rows.filter(metric="accuracy").with_columns(metric=pl.lit("accuracy_mean"))
    named = [
        {row[:-1]: row[-1] for row in part.group_by(keys, maintain_order=True).agg(pl.col("value").mean()).iter_rows()}
        for part in (means, rows.filter(pl.col("metric") != "accuracy"))
    ]
    return named[0] | named[1]


def _point(values: dict[str, Values], size: int) -> dict[str, Any]:
    def of(place: str, metric: str) -> float | None:
        role, eval_on = PLACES[place]
        return values[role].get((size, eval_on, None, metric))

    seeds = of("original", "seeds")
    ends = {name: (of(name, "accuracy_low"), of(name, "accuracy_high")) for name in PLACES}
    return {
        "train_size": size,
        "seeds": None if seeds is None else int(seeds),
        **{name: of(name, "accuracy_mean") for name in PLACES},
        "ends": {name: None if None in pair else list(pair) for name, pair in ends.items()},
    }


def _effort(rows: pl.DataFrame) -> dict[str, Any]:
    """Read what the fits of one train size took, and what they chose."""
    fits = rows.filter(role="test", eval_on="original", metric="accuracy")
    if fits.is_empty():  # then all that is told is of all fits together
        fits = rows.filter(role="test", metric="accuracy_mean")
    found = rows.filter(pl.col("metric").str.starts_with("chosen_")).select(
        pl.col("metric").str.strip_prefix("chosen_"), "value"
    )
    names = sorted(found["metric"].unique())
    return {
        "seconds": fits["seconds"].mean(),
        "memory": fits["memory"].max(),
        "chosen": {name: found.filter(metric=name)["value"].unique().sort().to_list() for name in names},
    }
