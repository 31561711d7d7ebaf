"""Choose misclassified test images to show, each next to the training image that is nearest to it."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from pipeline.report.pictures import Pictures

# Misclassified images shown per run: at most, at least, and about how many in all runs together.
MOST = 40
_LEAST = 4
_TOTAL = 80
# Of 255. Another encoding of an image changes it by about this; different images of MNIST are 16 or more apart.
TWIN = 8.0

_SHOWN_COLUMNS = ("label", "predicted", "probability", "kept", "nearest_label", "nearest_class", "distance")
_GROUPS = ("twins", "others")

MissesOfRun = dict[str, Any]


def choose_misses(misses: pl.LazyFrame, runs: list[dict[str, Any]]) -> list[MissesOfRun]:
    """Choose which misses of every run to show.

    A miss is a twin if the nearest training image is at most `TWIN` away and has another label: one of the two labels
    is wrong, or the image fits both. No model can predict twins reliably.

    Args:
        misses: the misses table.
        runs: the result of `describe_runs`; the more of them have misses, the fewer are shown of each.

    Returns:
        One dict per run that records misses, in the order of `runs`: model, split_name, release, run_id, train_size,
        positive, dummy, wrong, of (images of the test role, or None), dropped (misses that sanitizing drops), nearest
        (how often the nearest training image has the image's own label, the predicted one or a third; None if none is
        known), and twins and others: total and shown, ordered by margin (largest first), then distance, then image_id.
        What is shown holds image_id and nearest_id as bytes; `draw_misses` replaces them by pictures.
    """
    found = [(run, _misses_of(misses, run)) for run in runs]
    runs_with_misses = sum(not rows.is_empty() for _, rows in found)
    limit = min(MOST, max(_LEAST, _TOTAL // max(1, runs_with_misses)))
    return [_choose(run, rows, limit) for run, rows in found if run["detailed"] or len(rows)]


def image_ids_of(chosen: list[MissesOfRun]) -> tuple[list[bytes], list[bytes]]:
    """List the image_ids of the shown misses, and of the training images next to them."""
    shown = list(_shown(chosen))
    return [miss["image_id"] for miss in shown], [miss["nearest_id"] for miss in shown if miss["nearest_id"]]


def draw_misses(chosen: list[MissesOfRun], pictures: Pictures) -> list[MissesOfRun]:
    """Replace ids by pictures: picture (with the result of sanitizing), and nearest, the nearest training image.

    A picture is None if the image is no longer in the lake.
    """
    drawn = []
    for run in chosen:
        groups = {
            group: {
                "total": run[group]["total"],
                "shown": [_draw(miss, run["split_name"], pictures) for miss in run[group]["shown"]],
            }
            for group in _GROUPS
        }
        drawn.append({**run, **groups})
    return drawn


def _misses_of(misses: pl.LazyFrame, run: dict[str, Any]) -> pl.DataFrame:
    """Read the misses of a run in the order to show, with `nearest_class`, the run's class of the nearest image."""
    rows = misses.filter(**{name: run[name] for name in ("run_id", "model", "split_name")}).collect()
    names = sorted({*rows["label"], *rows["predicted"]}, key=len)
    nearest = pl.col("nearest_label")
    # A run that detects one class has the classes "x" and "not x", but the nearest image has its own label.
    if len(names) == 2 and names[1] == f"not {names[0]}":  # noqa: PLR2004 - one class and the rest
        nearest = pl.when(nearest.is_not_null()).then(
            pl.when(nearest == names[0]).then(pl.lit(names[0])).otherwise(pl.lit(names[1]))
        )
    return rows.with_columns(nearest_class=nearest).sort(
        "margin", "distance", "image_id", descending=[True, False, False], nulls_last=True
    )


def _choose(run: dict[str, Any], rows: pl.DataFrame, limit: int) -> MissesOfRun:
    is_twin = ((pl.col("distance") <= TWIN) & (pl.col("nearest_class") != pl.col("label"))).fill_null(value=False)
    twins, others = rows.filter(is_twin), rows.filter(~is_twin)
    shown_twins = twins.head(limit // 2)
    known = rows.filter(pl.col("nearest_class").is_not_null())
    own, predicted = (int((known["nearest_class"] == known[name]).sum()) for name in ("label", "predicted"))
    third = len(known) - own - predicted
    return {
        **{name: run[name] for name in ("model", "split_name", "release", "run_id", "train_size", "positive", "dummy")},
        "wrong": len(rows),
        "of": run["images"],
        "dropped": int((~rows["kept"]).sum()),
        "nearest": {"own": own, "predicted": predicted, "third": third} if len(known) else None,
        "twins": {"total": len(twins), "shown": shown_twins.rows(named=True)},
        "others": {"total": len(others), "shown": others.head(limit - len(shown_twins)).rows(named=True)},
    }


def _shown(chosen: list[MissesOfRun]) -> Iterator[dict[str, Any]]:
    return (miss for run in chosen for group in _GROUPS for miss in run[group]["shown"])


def _draw(miss: dict[str, Any], split_name: str, pictures: Pictures) -> dict[str, Any]:
    return {
        **{name: miss[name] for name in _SHOWN_COLUMNS},
        "picture": pictures.picture(miss["image_id"], split_name),
        "nearest": pictures.picture(miss["nearest_id"], split_name),
    }
