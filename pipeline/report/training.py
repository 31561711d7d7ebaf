"""How training went: epoch by epoch, and fold by fold."""

from typing import Any

import polars as pl

from pipeline.report.confusion import describe_confusion


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
