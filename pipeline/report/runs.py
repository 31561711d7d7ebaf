"""What is known of each run beyond its accuracy: classes, epochs, folds and thresholds, of its largest train size.

Which classes a model takes for which: as a matrix where it fits, else as the pairs that are taken most.

Precision against recall of a model that tells one class from the rest, and the threshold for a wanted precision.

How training went: epoch by epoch, and fold by fold.
"""

from typing import Any

import polars as pl

from pipeline.report.accuracy import RUN

MOST_CLASSES = 20
PAIRS = 20
_RATES = ("precision", "recall", "f1")


def describe_confusion(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Describe what was said of the images of one role.

    Args:
        rows: rows of the scores table, of one fit and one part of one role.

    Returns:
        None where nothing is told by class; else classes (how many occur or are said), images, wrong, names (of the
        classes, sorted; empty where they are too many for a matrix), cells (cells[i][j]: images of class i said to be
        of class j; empty likewise), rates (label, precision, recall, f1, support by class: all, or those with the
        least f1), mean (precision, recall, f1 over all classes), and pairs (the most frequent mistakes: label,
        predicted, images, share of the images of that label) with pairs_total.
    """
    told = rows.filter(
        pl.col("metric") == "confusion", pl.col("label").is_not_null(), pl.col("predicted").is_not_null()
    )
    if told.is_empty():
        return None
    counts = {(true, said): int(value) for true, said, value in told.select("label", "predicted", "value").iter_rows()}
    rates = _by_label(rows)
    names = sorted({name for pair in counts for name in pair} | {name for name in rates if name is not None})
    fits = len(names) <= MOST_CLASSES
    wrong = {pair: images for pair, images in counts.items() if pair[0] != pair[1] and images}
    return {
        "classes": len(names),
        "images": sum(counts.values()),
        "wrong": sum(wrong.values()),
        "names": names if fits else [],
        "cells": [[counts.get((true, said), 0) for said in names] for true in names] if fits else [],
        "rates": _rates(names, rates, counts),
        "mean": {metric: rates.get(None, {}).get(metric) for metric in _RATES},
        "pairs": _pairs(wrong, counts),
        "pairs_total": len(wrong),
    }


def _by_label(rows: pl.DataFrame) -> dict[str | None, dict[str, float]]:
    found: dict[str | None, dict[str, float]] = {}
    wanted = rows.filter(pl.col("metric").is_in([*_RATES, "support"]), pl.col("point").is_null())
    for label, metric, value in wanted.select("label", "metric", "value").iter_rows():
        found.setdefault(label, {})[metric] = value
    return found


def _rates(
    names: list[str], rates: dict[str | None, dict[str, float]], counts: dict[tuple[str, str], int]
) -> list[dict[str, Any]]:
    there = _support(counts)
    told = [
        {
            "label": name,
            **{metric: rates.get(name, {}).get(metric) for metric in _RATES},
            "support": int(rates.get(name, {}).get("support", there.get(name, 0))),
        }
        for name in names
    ]
    if len(names) <= MOST_CLASSES:
        return told
    return sorted(told, key=lambda row: (row["f1"] is None, row["f1"], row["label"]))[:MOST_CLASSES]


def _pairs(wrong: dict[tuple[str, str], int], counts: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    there = _support(counts)
    first = sorted(wrong.items(), key=lambda pair: (-pair[1], pair[0]))[:PAIRS]
    return [
        {"label": true, "predicted": said, "images": images, "share": images / there[true]}
        for (true, said), images in first
    ]


def _support(counts: dict[tuple[str, str], int]) -> dict[str, int]:
    there: dict[str, int] = {}
    for (true, _), images in counts.items():
        there[true] = there.get(true, 0) + images
    return there


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


def describe_epochs(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Describe the epochs of one fit: epoch, loss and valid_accuracy (0 to 1), each None where it was not measured."""
    loss, accuracy = _by_number(rows, "epoch_loss"), _by_number(rows, "epoch_accuracy")
    return [
        {"epoch": number, "loss": loss.get(number), "valid_accuracy": accuracy.get(number)}
        for number in sorted({*loss, *accuracy})
    ]


def describe_folds(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Describe cross-validation.

    Args:
        rows: rows of the scores table, of one fit, cross-validated.

    Returns:
        None where there was none; else accuracies (fold, accuracy), mean (of them), and confusion: what was said of all
        folds' images together, see `describe_confusion`.
    """
    folds = _by_number(rows, "fold_accuracy")
    if not folds:
        return None
    means = rows.filter(pl.col("metric") == "accuracy", pl.col("point").is_null())["value"]
    return {
        "accuracies": [{"fold": number, "accuracy": folds[number]} for number in sorted(folds)],
        "mean": means[0] if len(means) else sum(folds.values()) / len(folds),
        "confusion": describe_confusion(rows),
    }


def _by_number(rows: pl.DataFrame, metric: str) -> dict[int, float]:
    told = rows.filter(pl.col("metric") == metric, pl.col("point").is_not_null())
    return {int(at): value for at, value in told.select("point", "value").iter_rows()}


_LARGEST = [*RUN, "train_size"]
_TOLD = ("positive", "patience")


def describe_runs(scores: pl.LazyFrame, curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe the first fit of the largest train size of every run.

    Args:
        scores: the scores table.
        curves: what `accuracy_curves` says; it tells which runs there are, and in what order.

    Returns:
        One dict per curve, in their order: model, split_name, release, run_id, train_size, positive (the class that is
        asked about, or None), patience (epochs, or None), seed (of the first fit), images (of the test role, None where
        that was not measured), detailed (whether the run was scored by an imagelake that tells what was missed),
        confusion (of the test role), folds, epochs, best (of them by accuracy on valid, the first of equals, or None)
        and thresholds; see `describe_confusion`, `describe_folds`, `describe_epochs` and `describe_thresholds`. What
        was not measured is None, or for epochs empty.
    """
    named = [
        {**{name: curve[name] for name in RUN}, "train_size": curve["points"][-1]["train_size"]} for curve in curves
    ]
    types = scores.select(_LARGEST).collect_schema()
    asked = pl.LazyFrame(named, schema=types)
    rows = (
        scores.filter(pl.col("value").is_finite(), pl.col("rule").is_null())
        # Classes of the valid role and of parts of the test role are in the table, not on the page.
        .filter(pl.col("predicted").is_null() | pl.col("eval_on").is_in(["original", "cross-validated"]))
        .join(asked, on=_LARGEST, how="semi")
        .sort("seed", "metric", "label", "predicted", "point", "value")
        .collect()
        .partition_by(*_LARGEST, as_dict=True)
    )
    told = [{**run, **{name: curve[name] for name in _TOLD}} for run, curve in zip(named, curves, strict=True)]
    return [{**run, **_details(rows[tuple(run[name] for name in _LARGEST)])} for run in told]


def _details(rows: pl.DataFrame) -> dict[str, Any]:
    seed = _first_seed(rows)
    first = rows.filter(seed=seed)
    test = first.filter(role="test", eval_on="original")
    images = test.filter(metric="images")["value"]
    epochs = describe_epochs(first)
    judged = [epoch for epoch in epochs if epoch["valid_accuracy"] is not None]
    return {
        "seed": seed,
        "images": int(images[0]) if len(images) else None,
        "detailed": not test.is_empty(),
        "confusion": describe_confusion(test),
        "folds": describe_folds(first.filter(role="train", eval_on="cross-validated")),
        "epochs": epochs,
        "best": max(judged, key=lambda epoch: epoch["valid_accuracy"], default=None),
        "thresholds": describe_thresholds(first),
    }


def _first_seed(rows: pl.DataFrame) -> int:
    """Find the seed that the recipe names; rows over all seeds bear it, and so do those of classes."""
    over_all = rows.filter(pl.col("metric").is_in(["seeds", "confusion"]))
    return int((over_all if len(over_all) else rows)["seed"][0])
