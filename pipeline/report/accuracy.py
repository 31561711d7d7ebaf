"""Summarize scores: accuracy and loss over train size on each role, and how leakage changes accuracy, rule by rule."""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from pipeline.recipe.baselines import PARTS
from pipeline.recipe.rules import rule_order

# The value over all seeds, by train size, eval_on, rule and metric of the scores table.
Values = Mapping[tuple[int, str, str | None, str], float]

# The columns that identify a run.
RUN = ("run_id", "model", "split_name", "release")
# What a point of a curve holds: role, and part of the role.
PLACES = {
    "train": ("train", "original"),
    "valid": ("valid", "original"),
    "original": ("test", "original"),
    "sanitized": ("test", "sanitized"),
    "overlap": ("test", "overlap"),
}


def accuracy_curves(scores: pl.LazyFrame) -> list[dict[str, Any]]:
    """Make one curve per run: a model with its settings, on a split.

    Args:
        scores: the scores table. A null role, as in older lakes, means test.

    Returns:
        One dict per run, ordered by model, split_name, release (newest first), train_dropped (most first) and run_id:
        model, dummy (whether it learns nothing), split_name, release, run_id, train_dropped (images that may be trained
        on although sanitizing drops them, None if not measured), points by train_size, and leakage, see
        `leakage_by_size`. A point holds train_size, seeds (number of fits that its intervals are based on, None if
        there are none), train, valid, original, sanitized, overlap (0 to 1, over all seeds, or None if not measured;
        the last three are of the test role), ends (by these names, the two ends of the 95 % interval, or None), losses
        (by these names, mean cross-entropy in nats, or None), seconds (mean of the fits), memory (bytes, maximum of the
        fits) and chosen (by setting, the values that were chosen, ascending).
    """
    over_all = pl.col("label").is_null(), pl.col("point").is_null()
    rows = (
        scores.filter(pl.col("value").is_finite(), *over_all)
        .with_columns(pl.col("role").fill_null("test"))
        .sort("run_id", "seed", "value", "seconds", "memory")
        .collect()
    )
    runs = rows.partition_by(*RUN, as_dict=True)
    curves = [_curve(dict(zip(RUN, key, strict=True)), part) for key, part in runs.items()]
    return sorted((curve for curve in curves if curve["points"]), key=_curve_order)


def compare_models(curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the runs side by side, each at its largest train size.

    Args:
        curves: the result of `accuracy_curves`.

    Returns:
        One dict per run: model, dummy, split_name, release, run_id, positive, best, and the point of `accuracy_curves`.
        Ordered by split_name and positive (models for all classes first), because only accuracies of equal images and
        classes can be compared; then the best first: by accuracy on the sanitized test role, else on the original, on
        valid, on train. `best` marks the first of several of such a group that is no dummy.
    """
    names = (*RUN, "dummy", "positive")
    rows = [{**{name: curve[name] for name in names}, **curve["points"][-1]} for curve in curves]
    rows.sort(
        key=lambda row: (*_comparable(row), *(-1 if row[place] is None else -row[place] for place in _BEST_FIRST))
    )
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_comparable(row), []).append(row)
    first = [
        next((row for row in group if not row["dummy"]), None) if len(group) > 1 else None for group in groups.values()
    ]
    return [{**row, "best": any(row is one for one in first)} for row in rows]


# Accuracies that decide which model is the best, the most telling first.
_BEST_FIRST = ("sanitized", "original", "valid", "train")


def _comparable(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["split_name"], row["positive"] is not None, row["positive"] or ""


def leakage_by_size(values: Values) -> list[dict[str, Any]]:
    """Summarize how leakage changes the accuracy of the models of one run.

    Returns:
        One dict per train size, largest first: train_size, seeds (number of fits that the intervals over seeds are
        based on; with 1 they are over test images instead), images (test images scored), original (a score), and rules.
        For each rule, strictest first, and last for the split's own sanitizing (rule None), rules holds a dict of rule,
        images (overlapping), sanitized and overlap (scores, None if the part is empty) and leak (mean, low, high, -1 to
        1; None if nothing is sanitized). A score holds mean, low and high, 0 to 1, and test_low and test_high, the
        interval for other test images of the same kind. Sizes without measured overlap are left out.
    """
    sizes = sorted({size for size, _, _, metric in values if metric == "seeds"}, reverse=True)
    return [_leakage_at_size(values, size) for size in sizes]


def _curve_order(curve: dict[str, Any]) -> tuple[Any, ...]:
    names = curve["model"], curve["split_name"]
    return (*names, -curve["release"], -(curve["train_dropped"] or 0), curve["run_id"])


def _curve(run: dict[str, Any], rows: pl.DataFrame) -> dict[str, Any]:
    values = {role: _values(rows.filter(role=role)) for role in ("train", "valid", "test")}
    # A split without a labelled test image has the other roles only.
    sizes = sorted({size for of_role in values.values() for size, _, _, metric in of_role if metric == "accuracy_mean"})
    dropped = [
        value for role in values.values() for (_, _, _, metric), value in role.items() if metric == "train_dropped"
    ]
    part = PARTS.get(run["model"])
    settings = json.loads(next(iter(rows["settings"].drop_nulls().to_list()), "{}"))
    return {
        **run,
        "dummy": part is not None and part.dummy,
        "train_dropped": int(dropped[-1]) if dropped else None,
        "positive": settings.get("positive"),
        "trained_on": settings.get("train_on"),
        "patience": settings.get("patience"),
        "points": [{**_point(values, size), **_fit_costs(rows.filter(train_size=size))} for size in sizes],
        "leakage": leakage_by_size(values["test"]),
    }


def _values(rows: pl.DataFrame) -> Values:
    """Index the rows of a role. If an older lake has no accuracy_mean, it is the mean of the accuracies."""
    keys = ["train_size", "eval_on", "rule", "metric"]
    accuracies = rows.filter(metric="accuracy").with_columns(metric=pl.lit("accuracy_mean"))
    others = rows.filter(pl.col("metric") != "accuracy")
    means, values = (
        {row[:-1]: row[-1] for row in part.group_by(keys, maintain_order=True).agg(pl.col("value").mean()).iter_rows()}
        for part in (accuracies, others)
    )
    return means | values


def _point(values: dict[str, Values], size: int) -> dict[str, Any]:
    def value(place: str, metric: str) -> float | None:
        role, eval_on = PLACES[place]
        return values[role].get((size, eval_on, None, metric))

    seeds = next(
        (found for name in ("original", "valid", "train") if (found := value(name, "seeds")) is not None), None
    )
    ends = {name: (value(name, "accuracy_low"), value(name, "accuracy_high")) for name in PLACES}
    return {
        "train_size": size,
        "seeds": None if seeds is None else int(seeds),
        **{name: value(name, "accuracy_mean") for name in PLACES},
        "ends": {name: None if None in pair else list(pair) for name, pair in ends.items()},
        "losses": {name: value(name, "loss_mean") for name in PLACES},
    }


def _fit_costs(rows: pl.DataFrame) -> dict[str, Any]:
    """Summarize time, memory and chosen settings of the fits of one train size."""
    role = next((role for role in ("test", "valid") if role in rows["role"]), "train")
    fits = rows.filter(role=role, eval_on="original", metric="accuracy")
    if fits.is_empty():  # then only the rows over all fits have time and memory
        fits = rows.filter(role=role, metric="accuracy_mean")
    chosen = rows.filter(pl.col("metric").str.starts_with("chosen_")).select(
        pl.col("metric").str.strip_prefix("chosen_"), "value"
    )
    names = sorted(chosen["metric"].unique())
    return {
        "seconds": fits["seconds"].mean(),
        "memory": fits["memory"].max(),
        "chosen": {name: chosen.filter(metric=name)["value"].unique().sort().to_list() for name in names},
    }


def _leakage_at_size(values: Values, size: int) -> dict[str, Any]:
    rules = {rule for at, eval_on, rule, metric in values if (at, eval_on, metric) == (size, "overlap", "images")}
    ordered = sorted(rules, key=lambda rule: (rule is None, rule_order(rule or "")))
    return {
        "train_size": size,
        "seeds": int(values[size, "original", None, "seeds"]),
        "images": int(values[size, "original", None, "images"]),
        "original": _score(values, size, "original", None),
        "rules": [
            {
                "rule": rule,
                "images": int(values[size, "overlap", rule, "images"]),
                "sanitized": _score(values, size, "sanitized", rule),
                "overlap": _score(values, size, "overlap", rule),
                "leak": _mean_and_ends(values, (size, "original", rule), "leak"),
            }
            for rule in ordered
        ],
    }


def _score(values: Values, size: int, eval_on: str, rule: str | None) -> dict[str, float] | None:
    found = _mean_and_ends(values, (size, eval_on, rule), "accuracy")
    if found is None:
        return None
    test = {f"test_{end}": values[size, eval_on, rule, f"wilson_{end}"] for end in ("low", "high")}
    return {**found, **test}


def _mean_and_ends(values: Values, place: tuple[int, str, str | None], metric: str) -> dict[str, float] | None:
    if (*place, f"{metric}_mean") not in values:
        return None
    return {end: values[(*place, f"{metric}_{end}")] for end in ("mean", "low", "high")}
