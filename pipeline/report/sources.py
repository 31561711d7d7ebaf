"""Sources and their classes: how many images, how large, how bright, and what they look like."""

import math
from typing import Any

import polars as pl

from pipeline.report.album import Album
from pipeline.report.walk import CLASS

SOURCE = ["dataset", "split"]
_TALLIES = ["images", "values", "total", "squares"]


def describe_sources(
    images: pl.LazyFrame, rejects: pl.LazyFrame, shards: pl.LazyFrame, sums: pl.DataFrame
) -> list[dict[str, Any]]:
    """Describe each (dataset, split), also one of which every file was rejected.

    Args:
        images: the images table.
        rejects: the rejects table.
        shards: the shards table.
        sums: sums per class, from `sum_classes`.

    Returns:
        One dict per source, sorted: source, dataset, split, uris, images, rejects, classes, unlabelled,
        heights and widths (smallest, largest), channels, mean, std.
    """
    sides = ["height", "width"]
    # First by channels: so few values are left that none has to be held for every image.
    ranges = images.group_by(*SOURCE, "channels").agg(
        pl.col(sides).min().name.prefix("least_"), pl.col(sides).max().name.prefix("most_")
    )
    sizes = _by_source(
        ranges.group_by(SOURCE).agg(
            heights=pl.concat_list(pl.col("least_height").min(), pl.col("most_height").max()),
            widths=pl.concat_list(pl.col("least_width").min(), pl.col("most_width").max()),
            channels=pl.col("channels").sort(),
        )
    )
    refused = _by_source(rejects.group_by(SOURCE).agg(rejects=pl.len()))
    origins = _by_source(shards.group_by(SOURCE).agg(uris=pl.col("uri").unique().sort()))
    totals = _by_source(
        sums.lazy()
        .group_by(SOURCE)
        .agg(
            pl.col(_TALLIES).sum(),
            classes=pl.col("label").drop_nulls().n_unique(),
            unlabelled=pl.col("images").filter(pl.col("label").is_null()).sum(),
        )
    )
    return [
        {
            "source": "/".join(key),
            "dataset": key[0],
            "split": key[1],
            "uris": origins.get(key, {}).get("uris", []),
            "rejects": refused.get(key, {}).get("rejects", 0),
            **_tally(totals.get(key, dict.fromkeys([*_TALLIES, "classes", "unlabelled"], 0))),
            **_sizes(sizes.get(key)),
        }
        for key in sorted({*totals, *refused, *origins})
    ]


def describe_classes(sums: pl.DataFrame, samples: pl.DataFrame, album: Album) -> list[dict[str, Any]]:
    """Describe every class of every source that has images.

    Args:
        sums: sums per class, from `sum_classes`.
        samples: chosen pictures, from `choose_samples`.
        album: where their pixels are.

    Returns:
        One dict per source, sorted: source, dataset, split, rows; a row per class, sorted, unlabelled images
        last: label, images, mean, std, sheet (one contact sheet, or None where the class is one too many to
        show).
    """
    chosen = samples.group_by(CLASS).agg("image_id").rows()
    ids = {(dataset, split, label): each for dataset, split, label, each in chosen}
    return [
        {
            "source": f"{dataset}/{split}",
            "dataset": dataset,
            "split": split,
            "rows": [
                {
                    "label": row["label"],
                    "images": row["images"],
                    "mean": mean_of(row),
                    "std": std_of(row),
                    "sheet": album.sheet(ids.get((dataset, split, row["label"]), [])),
                }
                for row in part.iter_rows(named=True)
            ],
        }
        for (dataset, split), part in sums.partition_by(SOURCE, as_dict=True).items()
    ]


def mean_of(sums: dict[str, Any]) -> float | None:
    """Mean of (p - 127.5) / 255 from integer sums; None without pixels."""
    values, total = sums["values"], sums["total"]
    return (2 * total - 255 * values) / (510 * values) if values else None


def std_of(sums: dict[str, Any]) -> float | None:
    """Standard deviation (of the population) of (p - 127.5) / 255 from integer sums; None without pixels."""
    values, total, squares = sums["values"], sums["total"], sums["squares"]
    return math.sqrt(values * squares - total * total) / (255 * values) if values else None


def _by_source(frame: pl.LazyFrame) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["dataset"], row["split"]): row for row in frame.collect().iter_rows(named=True)}


def _tally(totals: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: totals[name] for name in ("images", "classes", "unlabelled")},
        "mean": mean_of(totals),
        "std": std_of(totals),
    }


def _sizes(sizes: dict[str, Any] | None) -> dict[str, Any]:
    return {name: sizes[name] if sizes else [] for name in ("heights", "widths", "channels")}
