"""The test images that models got wrong, each beside the training image that is nearest to it."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from pipeline.report.pictures import Album

MOST = 40
LEAST = 4
TOTAL = 80
TWIN = 8.0  # of 255: what another encoding of a picture does to it; unlike pictures of MNIST are 16 apart and more

Misses = dict[str, Any]


def choose_misses(misses: pl.LazyFrame, runs: list[dict[str, Any]]) -> list[Misses]:
    """Choose what to show of every run.

    A miss is a twin with another label where the nearest training image is at most `TWIN` away and bears another label:
    one of the two labels is wrong, or the picture fits both. No model could have known better.

    Args:
        misses: the misses table.
        runs: what `describe_runs` says; the more of them missed something, the fewer misses are shown of each.

    Returns:
        One dict per run that tells what it missed, in the order of `runs`: model, split_name, release, run_id,
        train_size, positive, wrong, of (images of the test role, or None), dropped (of the wrong ones, by sanitizing),
        sure (whether probabilities are known), nearest (how often the nearest training image bears the image's own
        label, the said one or a third; None where none is known), and twins and others: total and shown, the clearest
        mistakes (by margin) first, then the nearest, then by image_id. What is shown holds image_id and nearest_id as
        bytes, until `show_misses` puts in pictures.
    """
    found = [(run, _of_run(misses, run)) for run in runs]
    missed = sum(not rows.is_empty() for _, rows in found)
    limit = min(MOST, max(LEAST, TOTAL // max(1, missed)))
    return [_choice(run, rows, limit) for run, rows in found if run["detailed"] or len(rows)]


def ids_of(chosen: list[Misses]) -> tuple[list[bytes], list[bytes]]:
    """List image_id of the shown misses, and of the training images beside them."""
    shown = list(_shown(chosen))
    return [one["image_id"] for one in shown], [one["nearest_id"] for one in shown if one["nearest_id"] is not None]


def show_misses(chosen: list[Misses], album: Album) -> list[Misses]:
    """Put pictures in the place of ids: picture (with what sanitizing did to it), and nearest, its picture.

    A picture is None where the image is no longer in the lake.
    """
    return [
        {
            **run,
            **{
                group: {
                    "total": run[group]["total"],
                    "shown": [_dress(one, run["split_name"], album) for one in run[group]["shown"]],
                }
                for group in ("twins", "others")
            },
        }
        for run in chosen
    ]


def _of_run(misses: pl.LazyFrame, run: dict[str, Any]) -> pl.DataFrame:
    """Read the misses of a run in the order to show them, with the class that the nearest image is of to this run."""
    rows = misses.filter(**{name: run[name] for name in ("run_id", "model", "split_name")}).collect()
    names = sorted({*rows["label"], *rows["predicted"]}, key=len)
    nearest = pl.col("nearest_label")
    # A run that looks for one class knows two, and the nearest image is named by its own.
    if len(names) == 2 and names[1] == f"not {names[0]}":  # noqa: PLR2004 - one class and the rest
        nearest = pl.when(nearest.is_not_null()).then(
            pl.when(nearest == names[0]).then(pl.lit(names[0])).otherwise(pl.lit(names[1]))
        )
    return rows.with_columns(nearest_class=nearest).sort(
        "margin", "distance", "image_id", descending=[True, False, False], nulls_last=True
    )


def _choice(run: dict[str, Any], rows: pl.DataFrame, limit: int) -> Misses:
    twin = (pl.col("distance") <= TWIN) & (pl.col("nearest_class") != pl.col("label"))
    twins, others = rows.filter(twin.fill_null(value=False)), rows.filter(~twin.fill_null(value=False))
    some = twins.head(limit // 2)
    known = rows.filter(pl.col("nearest_class").is_not_null())
    own, said = (int((known["nearest_class"] == known[name]).sum()) for name in ("label", "predicted"))
    return {
        **{name: run[name] for name in ("model", "split_name", "release", "run_id", "train_size", "positive")},
        "wrong": len(rows),
        "of": run["images"],
        "dropped": int((~rows["kept"]).sum()),
        "sure": bool(rows["probability"].is_not_null().any()),
        "nearest": {"own": own, "said": said, "third": len(known) - own - said} if len(known) else None,
        "twins": {"total": len(twins), "shown": some.rows(named=True)},
        "others": {"total": len(others), "shown": others.head(limit - len(some)).rows(named=True)},
    }


def _shown(chosen: list[Misses]) -> Iterator[dict[str, Any]]:
    return (one for run in chosen for group in ("twins", "others") for one in run[group]["shown"])


def _dress(miss: dict[str, Any], split_name: str, album: Album) -> dict[str, Any]:
    told = ("label", "predicted", "probability", "kept", "nearest_label", "nearest_class", "distance")
    return {
        **{name: miss[name] for name in told},
        "picture": album.picture(miss["image_id"], split_name),
        "nearest": album.picture(miss["nearest_id"], split_name),
    }
