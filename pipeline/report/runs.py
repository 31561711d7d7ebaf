"""What is known of each run beyond its accuracy: classes, epochs, folds and thresholds, of its largest train size."""

from typing import Any

import polars as pl

from pipeline.report.accuracy import RUN
from pipeline.report.confusion import describe_confusion
from pipeline.report.thresholds import describe_thresholds
from pipeline.report.training import describe_epochs, describe_folds

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
