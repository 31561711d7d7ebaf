"""Accuracy over train size, on the original and the sanitized test role and on the overlap alone."""

from typing import Any

import polars as pl

EVAL_ON = ("original", "sanitized", "overlap")
_CURVE = ["model", "split_name"]


def accuracy_curves(scores: pl.LazyFrame) -> list[dict[str, Any]]:
    """Read one curve per model and split: that of the newest release that scored them.

    Args:
        scores: the scores table.

    Returns:
        One dict per (model, split_name), sorted: model, split_name, release, points by train_size:
        train_size, original, sanitized, overlap (0 to 1, or None where it was not measured).
    """
    values = scores.filter((pl.col("metric") == "accuracy") & pl.col("value").is_finite())
    newest = (
        values.filter(pl.col("release") == pl.col("release").max().over(_CURVE))
        .sort("run_id", "seed", "value")
        .group_by(*_CURVE, "release", "train_size", "eval_on")
        .agg(pl.col("value").last())
        .collect()
        .sort(*_CURVE, "train_size")
    )
    return [
        {"model": model, "split_name": split_name, "release": release, "points": _points(part)}
        for (model, split_name, release), part in newest.partition_by(*_CURVE, "release", as_dict=True).items()
    ]


def _points(part: pl.DataFrame) -> list[dict[str, Any]]:
    points: dict[int, dict[str, Any]] = {}
    for size, eval_on, value in part.select("train_size", "eval_on", "value").iter_rows():
        points.setdefault(size, {"train_size": size, **dict.fromkeys(EVAL_ON)})[eval_on] = value
    return list(points.values())
