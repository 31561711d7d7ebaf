"""Describe each run beyond accuracy, at its largest train size: confusion of classes, folds, epochs and thresholds."""

import math
from typing import Any

import polars as pl

from pipeline.report.accuracy import RUN

# More classes than this are listed as pairs instead of a matrix; also the number of classes listed then.
MOST_CLASSES = 20
PAIRS = 20
# Epochs listed in the table of a run; of more, evenly spaced ones.
MOST_EPOCHS = 100
_RATES = ("precision", "recall", "f1")
_RUN_AND_SIZE = [*RUN, "train_size"]
_SETTINGS = ("positive", "patience", "dummy")
# Where thresholds are measured; those on which a threshold may be chosen come first.
_PLACES = ("cross-validated", "valid", "test")

# Number of images by (true class, predicted class).
_Counts = dict[tuple[str, str], int]


def describe_runs(scores: pl.LazyFrame, curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe the first fit of the largest train size of every run.

    Args:
        scores: the scores table.
        curves: the result of `accuracy_curves`, which determines the runs and their order.

    Returns:
        One dict per curve, in their order: model, split_name, release, run_id, train_size, positive (the class to
        detect, or None), patience (epochs, or None), dummy (whether it learns nothing), seed (of the first fit), images
        (of the test role, None if not measured), detailed (whether the scores include the details below; older versions
        did not write them), confusion (of the test role), folds, epochs, listed (epochs to list), best (the first epoch
        with the best accuracy on valid, or None) and thresholds; see `describe_confusion`, `describe_folds`,
        `describe_epochs` and `describe_thresholds`. What was not measured is None, or for epochs empty.
    """
    named = [
        {**{name: curve[name] for name in RUN}, "train_size": curve["points"][-1]["train_size"]} for curve in curves
    ]
    wanted = pl.LazyFrame(named, schema=scores.select(_RUN_AND_SIZE).collect_schema())
    rows = (
        scores.filter(pl.col("value").is_finite(), pl.col("rule").is_null())
        # The confusion of the valid role and of parts of the test role is in the table but not shown.
        .filter(pl.col("predicted").is_null() | pl.col("eval_on").is_in(["original", "cross-validated"]))
        .join(wanted, on=_RUN_AND_SIZE, how="semi")
        .sort("seed", "metric", "label", "predicted", "point", "value")
        .collect()
        .partition_by(*_RUN_AND_SIZE, as_dict=True)
    )
    return [
        {
            **run,
            **{name: curve[name] for name in _SETTINGS},
            **_details(rows[tuple(run[name] for name in _RUN_AND_SIZE)]),
        }
        for run, curve in zip(named, curves, strict=True)
    ]


def describe_confusion(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Describe which classes a model confuses: as a matrix, or for many classes as the most frequent mistakes.

    Args:
        rows: rows of the scores table, of one fit and one part of one role.

    Returns:
        None if nothing was measured by class; else classes (number of classes that occur or are predicted), images,
        wrong, names (of the classes, sorted; empty if there are too many for a matrix), cells (cells[i][j]: images of
        class i predicted as class j; also empty then), rates (label, precision, recall, f1, support by class: all
        classes, or those with the lowest f1), mean (precision, recall, f1 over all classes), and pairs (the most
        frequent mistakes: label, predicted, images, share of the images of that label) with pairs_total.
    """
    cells = rows.filter(
        pl.col("metric") == "confusion", pl.col("label").is_not_null(), pl.col("predicted").is_not_null()
    )
    if cells.is_empty():
        return None
    counts = {
        (true, guess): int(value) for true, guess, value in cells.select("label", "predicted", "value").iter_rows()
    }
    rates = _rates_by_label(rows)
    names = sorted({name for pair in counts for name in pair} | {name for name in rates if name is not None})
    fits = len(names) <= MOST_CLASSES
    wrong = {pair: images for pair, images in counts.items() if pair[0] != pair[1] and images}
    return {
        "classes": len(names),
        "images": sum(counts.values()),
        "wrong": sum(wrong.values()),
        "names": names if fits else [],
        "cells": [[counts.get((true, predicted), 0) for predicted in names] for true in names] if fits else [],
        "rates": _class_rates(names, rates, counts),
        "mean": {metric: rates.get(None, {}).get(metric) for metric in _RATES},
        "pairs": _frequent_mistakes(wrong, counts),
        "pairs_total": len(wrong),
    }


def describe_thresholds(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Describe precision and recall over thresholds, for a run that detects one class.

    Args:
        rows: rows of the scores table, of one fit.

    Returns:
        None without curves; else label (the class to detect), curves and wanted. A curve has place (cross-validated,
        valid or test), average_precision (or None) and points (threshold, precision, recall, lowest threshold first).
        An entry of wanted, lowest precision first, has precision (the target), threshold, chosen_on (place) and places:
        place, precision and recall of that threshold there.
    """
    measured = rows.filter(
        pl.col("label").is_not_null(),
        (pl.col("eval_on") == "cross-validated") | pl.col("role").is_in(["valid", "test"]),
    ).with_columns(place=pl.when(eval_on="cross-validated").then("eval_on").otherwise("role"))
    labels = measured.filter(metric="curve_precision")["label"].unique().sort()
    if labels.is_empty():
        return None
    of_label = measured.filter(label=labels[0])
    places = {place: of_label.filter(place=place) for place in _PLACES}
    curves = [_threshold_curve(place, part) for place, part in places.items()]
    return {
        "label": labels[0],
        "curves": [curve for curve in curves if curve["points"]],
        "wanted": _chosen_thresholds(places),
    }


def describe_epochs(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Describe the epochs of one fit.

    Returns:
        One dict per epoch: epoch, loss (mean cross-entropy in nats) and accuracy (0 to 1) on train, valid_loss and
        valid_accuracy on valid; each None if not measured.
    """
    measured = {
        name: _by_point(rows.filter(role=role), metric)
        for name, role, metric in (
            ("loss", "train", "epoch_loss"),
            ("accuracy", "train", "epoch_accuracy"),
            ("valid_loss", "valid", "epoch_loss"),
            ("valid_accuracy", "valid", "epoch_accuracy"),
        )
    }
    numbers = sorted({epoch for values in measured.values() for epoch in values})
    return [{"epoch": int(at), **{name: values.get(at) for name, values in measured.items()}} for at in numbers]


def describe_folds(rows: pl.DataFrame) -> dict[str, Any] | None:
    """Describe cross-validation.

    Args:
        rows: rows of the scores table, of one fit, cross-validated.

    Returns:
        None without cross-validation; else accuracies (fold, accuracy), mean (of them), and confusion: of the images of
        all folds together, see `describe_confusion`.
    """
    folds = _by_point(rows, "fold_accuracy")
    if not folds:
        return None
    means = rows.filter(pl.col("metric") == "accuracy", pl.col("point").is_null())["value"]
    return {
        "accuracies": [{"fold": int(number), "accuracy": folds[number]} for number in sorted(folds)],
        "mean": means[0] if len(means) else sum(folds.values()) / len(folds),
        "confusion": describe_confusion(rows),
    }


def _details(rows: pl.DataFrame) -> dict[str, Any]:
    seed = _first_seed(rows)
    first = rows.filter(seed=seed)
    test = first.filter(role="test", eval_on="original")
    images = test.filter(metric="images")["value"]
    epochs = describe_epochs(first)
    with_accuracy = [epoch for epoch in epochs if epoch["valid_accuracy"] is not None]
    return {
        "seed": seed,
        "images": int(images[0]) if len(images) else None,
        "detailed": not test.is_empty(),
        "confusion": describe_confusion(test),
        "folds": describe_folds(first.filter(role="train", eval_on="cross-validated")),
        "epochs": epochs,
        # The last one is always listed.
        "listed": epochs[:: -math.ceil(max(1, len(epochs)) / MOST_EPOCHS)][::-1],
        "best": max(with_accuracy, key=lambda epoch: epoch["valid_accuracy"], default=None),
        "thresholds": describe_thresholds(first),
    }


def _first_seed(rows: pl.DataFrame) -> int:
    """Find the seed in the recipe: rows over all seeds and rows by class have it."""
    over_all = rows.filter(pl.col("metric").is_in(["seeds", "confusion"]))
    return int((over_all if len(over_all) else rows)["seed"][0])


def _rates_by_label(rows: pl.DataFrame) -> dict[str | None, dict[str, float]]:
    found: dict[str | None, dict[str, float]] = {}
    wanted = rows.filter(pl.col("metric").is_in([*_RATES, "support"]), pl.col("point").is_null())
    for label, metric, value in wanted.select("label", "metric", "value").iter_rows():
        found.setdefault(label, {})[metric] = value
    return found


def _class_rates(names: list[str], rates: dict[str | None, dict[str, float]], counts: _Counts) -> list[dict[str, Any]]:
    images = _images_by_label(counts)
    found = [
        {
            "label": name,
            **{metric: rates.get(name, {}).get(metric) for metric in _RATES},
            "support": int(rates.get(name, {}).get("support", images.get(name, 0))),
        }
        for name in names
    ]
    if len(names) <= MOST_CLASSES:
        return found
    return sorted(found, key=lambda row: (row["f1"] is None, row["f1"], row["label"]))[:MOST_CLASSES]


def _frequent_mistakes(wrong: _Counts, counts: _Counts) -> list[dict[str, Any]]:
    total = _images_by_label(counts)
    first = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:PAIRS]
    return [
        {"label": true, "predicted": predicted, "images": images, "share": images / total[true]}
        for (true, predicted), images in first
    ]


def _images_by_label(counts: _Counts) -> dict[str, int]:
    total: dict[str, int] = {}
    for (true, _), images in counts.items():
        total[true] = total.get(true, 0) + images
    return total


def _threshold_curve(place: str, rows: pl.DataFrame) -> dict[str, Any]:
    precision, recall = (_by_point(rows, f"curve_{name}") for name in ("precision", "recall"))
    average = rows.filter(metric="average_precision")["value"]
    return {
        "place": place,
        "average_precision": average[0] if len(average) else None,
        "points": [
            {"threshold": threshold, "precision": precision[threshold], "recall": recall[threshold]}
            for threshold in sorted(precision.keys() & recall.keys())
        ],
    }


def _chosen_thresholds(places: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """Describe the threshold for each target precision, and what it gives in each place."""
    measured = {
        place: {name: _by_point(rows, name) for name in ("threshold", "precision_at", "recall_at")}
        for place, rows in places.items()
    }
    chosen = []
    for target in sorted({target for values in measured.values() for target in values["threshold"]}):
        there = {place: values for place, values in measured.items() if target in values["threshold"]}
        # The first place is never test: it is the folds if there are any, else valid.
        chosen_on = next(iter(there))
        chosen.append(
            {
                "precision": target,
                "threshold": there[chosen_on]["threshold"][target],
                "chosen_on": chosen_on,
                "places": [
                    {
                        "place": place,
                        "precision": values["precision_at"].get(target),
                        "recall": values["recall_at"].get(target),
                    }
                    for place, values in there.items()
                ],
            }
        )
    return chosen


def _by_point(rows: pl.DataFrame, metric: str) -> dict[float, float]:
    values = rows.filter(pl.col("metric") == metric, pl.col("point").is_not_null())
    return dict(values.select("point", "value").iter_rows())
