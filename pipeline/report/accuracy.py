"""Accuracy over train size, on the original and the sanitized test role and on the overlap alone."""

from typing import Any

import polars as pl

from pipeline.report.leakage import Values, leakage_by_size

EVAL_ON = ("original", "sanitized", "overlap")
_CURVE = ["model", "split_name"]


def accuracy_curves(scores: pl.LazyFrame) -> list[dict[str, Any]]:
    """Read one curve per run: a model with its settings, on a split.

    Args:
        scores: the scores table.

    Returns:
        One dict per run, ordered by model, split_name, release (the newest first), train_dropped (the most first) and
        run_id: model, split_name, release, run_id, train_dropped (images that may be trained on although sanitizing
        drops them, None where it was not measured), points by train_size, and leakage, see `leakage_by_size`.
        A point holds train_size, seeds (fits that its intervals stand on, None where there are none), original,
        sanitized, overlap (0 to 1, over all seeds, or None where it was not measured) and ends: by these names, the two
        ends of the 95 % interval, or None.
    """
    rows = scores.filter(pl.col("value").is_finite()).sort("run_id", "seed", "value").collect()
    runs = rows.partition_by("run_id", *_CURVE, "release", as_dict=True)
    curves = [_curve(dict(zip(("run_id", *_CURVE, "release"), key, strict=True)), part) for key, part in runs.items()]
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
    values = _values(rows)
    scored = sorted({size for size, _, _, metric in values if metric == "accuracy_mean"})
    dropped = [value for (_, _, _, metric), value in values.items() if metric == "train_dropped"]
    return {
        **named,
        "train_dropped": int(dropped[-1]) if dropped else None,
        "points": [_point(values, size) for size in scored],
        "leakage": leakage_by_size(values),
    }


def _values(rows: pl.DataFrame) -> Values:
    """Index the rows of a run; where an older lake holds no accuracy_mean, it is the mean of the accuracies."""
    keys = ["train_size", "eval_on", "rule", "metric"]
    means = rows.filter(metric="accuracy").with_columns(metric=pl.lit("accuracy_mean"))
    named = [
        {row[:-1]: row[-1] for row in part.group_by(keys, maintain_order=True).agg(pl.col("value").mean()).iter_rows()}
        for part in (means, rows.filter(pl.col("metric") != "accuracy"))
    ]
    return named[0] | named[1]


def _point(values: Values, size: int) -> dict[str, Any]:
    def of(eval_on: str, metric: str) -> float | None:
        return values.get((size, eval_on, None, metric))

    seeds = of("original", "seeds")
    ends = {name: (of(name, "accuracy_low"), of(name, "accuracy_high")) for name in EVAL_ON}
    return {
        "train_size": size,
        "seeds": None if seeds is None else int(seeds),
        **{name: of(name, "accuracy_mean") for name in EVAL_ON},
        "ends": {name: None if None in pair else list(pair) for name, pair in ends.items()},
    }
