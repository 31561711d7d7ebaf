"""Precision against recall of a model that tells one class from the rest, and the threshold for a wanted precision."""

from typing import Any

import polars as pl

# The order to tell of them: first those that a threshold may be chosen on.
_PLACES = ("cross-validated", "valid", "test")


def describe_thresholds(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Describe a run's curves.

    Args:
        rows: rows of the scores table, of one fit.

    Returns:
        None without curves; else label (the class that is looked for), curves and wanted. A curve has place
        (cross-validated, valid or test), average_precision (or None) and points (threshold, precision, recall, the
        least threshold first). A wanted precision, the least first, has precision, threshold, chosen_on (place) and
        places: place, precision and recall of that threshold there.
    """
    told = rows.filter(
        pl.col("label").is_not_null(),
        (pl.col("eval_on") == "cross-validated") | pl.col("role").is_in(["valid", "test"]),
    ).with_columns(place=pl.when(eval_on="cross-validated").then("eval_on").otherwise("role"))
    labels = told.filter(metric="curve_precision")["label"].unique().sort()
    if labels.is_empty():
        return None
    ours = told.filter(label=labels[0])
    places = {place: ours.filter(place=place) for place in _PLACES}
    curves = [_curve(place, part) for place, part in places.items()]
    return {
        "label": labels[0],
        "curves": [curve for curve in curves if curve["points"]],
        "wanted": _wanted(places),
    }


def _curve(place: str, rows: pl.DataFrame) -> dict[str, Any]:
    precision, recall = (_by_at(rows, f"curve_{name}") for name in ("precision", "recall"))
    average = rows.filter(metric="average_precision")["value"]
    return {
        "place": place,
        "average_precision": average[0] if len(average) else None,
        "points": [
            {"threshold": at, "precision": precision[at], "recall": recall[at]}
            for at in sorted(precision.keys() & recall.keys())
        ],
    }


def _wanted(places: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    found = {
        place: {name: _by_at(rows, name) for name in ("threshold", "precision_at", "recall_at")}
        for place, rows in places.items()
    }
    asked = sorted({at for told in found.values() for at in told["threshold"]})
    return [_threshold(at, found) for at in asked]


def _threshold(at: float, found: dict[str, dict[str, dict[float, float]]]) -> dict[str, Any]:
    there = {place: told for place, told in found.items() if at in told["threshold"]}
    first = next(iter(there))
    return {
        "precision": at,
        "threshold": there[first]["threshold"][at],
        # Never on test: where there are folds, on what they say, else on valid.
        "chosen_on": first,
        "places": [
            {"place": place, "precision": told["precision_at"].get(at), "recall": told["recall_at"].get(at)}
            for place, told in there.items()
        ],
    }


def _by_at(rows: pl.DataFrame, metric: str) -> dict[float, float]:
    told = rows.filter(pl.col("metric") == metric, pl.col("point").is_not_null())
    return dict(told.select("point", "value").iter_rows())
