"""Which classes a model takes for which: as a matrix where it fits, else as the pairs that are taken most."""

from typing import Any

import polars as pl

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
