"""Accuracy over train size: on train, valid and test, and on what sanitizing makes of test; and what fits took."""

import json
from typing import Any

import polars as pl

from pipeline.report.leakage import Values, leakage_by_size

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
