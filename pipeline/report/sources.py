"""Sources and their classes: how many images, how large, how bright, and what they look like.

Which pictures stand for a class: always the same ones, out of as few shards as will do.

Rejects by reason, with a few examples of each.
"""

import math
from typing import Any

import polars as pl

from pipeline.report.pictures import CLASS, Album

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


PER_CLASS = 12
CLASSES_SHOWN = 40


def choose_samples(images: pl.LazyFrame, per_class: int = PER_CLASS, classes: int = CLASSES_SHOWN) -> pl.DataFrame:
    """Choose pictures for the first classes of each source.

    A class is shown from its first shard that alone holds enough of it, where there is one; within a shard
    the smallest `image_id` come first, and as ids are hashes that is an even draw.

    Args:
        images: the images table; only its small columns are read.
        per_class: pictures per class, at most.
        classes: classes per source, at most, in the order of their labels.

    Returns:
        dataset, split, label, image_id; sorted by class, then in the order to show them.
    """
    here = [*CLASS, "shard"]
    few = pl.col("count") < per_class
    counts = images.group_by(here).agg(count=pl.len()).collect().sort(*CLASS, few, "shard", nulls_last=True)
    first = counts.select(CLASS).unique(maintain_order=True).group_by(CLASS[:2], maintain_order=True).head(classes)
    needed = (
        counts.with_columns(before=pl.col("count").cum_sum().over(CLASS) - pl.col("count"))
        .filter(pl.col("before") < per_class)
        .join(first, on=CLASS, how="semi", nulls_equal=True)
    )
    return (
        images.select(*here, "image_id")
        .join(needed.lazy(), on=here, nulls_equal=True)
        .sort(*CLASS, few, "shard", "image_id", nulls_last=True)
        .group_by(CLASS, maintain_order=True)
        .agg(pl.col("image_id").head(per_class))
        .explode("image_id")
        .collect()
    )


EXAMPLES = 5


def count_rejects(rejects: pl.LazyFrame, examples: int = EXAMPLES) -> dict[str, Any]:
    """Count rejects by reason.

    Args:
        rejects: the rejects table.
        examples: examples per reason, at most: the first by source and path.

    Returns:
        total, and reasons: the most frequent first, each with reason, files and examples (path, label,
        detail, file_size, source).
    """
    source = pl.concat_str("dataset", "split", separator="/").alias("source")
    example = pl.struct("source", "path", "label", "detail", "file_size")
    reasons = (
        rejects.with_columns(source)
        .group_by("reason")
        .agg(files=pl.len(), examples=example.bottom_k_by(["source", "path"], examples))
        .collect()
        .sort("files", "reason", descending=[True, False])
    )
    for_show = [
        {**row, "examples": sorted(row["examples"], key=lambda one: (one["source"], one["path"]))}
        for row in reasons.iter_rows(named=True)
    ]
    return {"total": sum(row["files"] for row in for_show), "reasons": for_show}
