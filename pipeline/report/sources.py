"""Summarize sources: counts, sizes, brightness, samples of each class, and rejects by reason."""

import math
from typing import Any

import polars as pl

from pipeline.addresses import identity
from pipeline.report.pictures import Pictures

_SOURCE = ["dataset", "split"]
_CLASS = ["dataset", "split", "label"]
_SUMS = ["images", "values", "total", "squares"]

_SAMPLES_PER_CLASS = 12
_MAX_CLASSES = 40
_EXAMPLES = 5


def sum_classes(images: pl.LazyFrame) -> pl.DataFrame:
    """Sum the counts and pixel sums of the images of every class. No pixels are read.

    Sums are integers, so the result does not depend on the order of shards and rows.

    Returns:
        Sums per class, sorted, nulls last: dataset, split, label, images (count), values (number of pixel values),
        total (their sum), squares (sum of their squares).
    """
    size = pl.col("height").cast(pl.Int64) * pl.col("width") * pl.col("channels")
    return (
        images.group_by(_CLASS)
        .agg(
            images=pl.len().cast(pl.Int64),
            values=size.sum(),
            total=pl.col("pixel_sum").sum(),
            squares=pl.col("pixel_squares").sum(),
        )
        .sort(_CLASS, nulls_last=True)
        .collect()
    )


def describe_sources(
    images: pl.LazyFrame, rejects: pl.LazyFrame, shards: pl.LazyFrame, sums: pl.DataFrame
) -> list[dict[str, Any]]:
    """Describe each (dataset, split), also those of which every file was rejected.

    Returns:
        One dict per source, sorted: source, dataset, split, uris, images, rejects, classes, unlabelled,
        heights and widths (smallest, largest), channels, mean, std.
    """
    sides = ["height", "width"]
    # Grouped by channels first: the few groups that remain need little memory.
    ranges = images.group_by(*_SOURCE, "channels").agg(
        pl.col(sides).min().name.prefix("min_"), pl.col(sides).max().name.prefix("max_")
    )
    sizes = _by_source(
        ranges.group_by(_SOURCE).agg(
            heights=pl.concat_list(pl.col("min_height").min(), pl.col("max_height").max()),
            widths=pl.concat_list(pl.col("min_width").min(), pl.col("max_width").max()),
            channels=pl.col("channels").sort(),
        )
    )
    rejected = _by_source(rejects.group_by(_SOURCE).agg(rejects=pl.len()))
    origins = _by_source(shards.group_by(_SOURCE).agg(uris=pl.col("uri").unique().sort()))
    totals = _by_source(
        sums.lazy()
        .group_by(_SOURCE)
        .agg(
            pl.col(_SUMS).sum(),
            classes=pl.col("label").drop_nulls().n_unique(),
            unlabelled=pl.col("images").filter(pl.col("label").is_null()).sum(),
        )
    )
    no_images = dict.fromkeys([*_SUMS, "classes", "unlabelled"], 0)
    no_sizes: dict[str, Any] = {"heights": [], "widths": [], "channels": []}
    sources = []
    for key in sorted({*totals, *rejected, *origins}):
        total, size = totals.get(key, no_images), sizes.get(key, no_sizes)
        sources.append(
            {
                "source": "/".join(key),
                "dataset": key[0],
                "split": key[1],
                # Version 0.5 stored secrets of addresses.
                "uris": sorted(set(map(identity, origins.get(key, {}).get("uris", [])))),
                "rejects": rejected.get(key, {}).get("rejects", 0),
                **{name: total[name] for name in ("images", "classes", "unlabelled")},
                "mean": mean_of(total),
                "std": std_of(total),
                **{name: size[name] for name in no_sizes},
            }
        )
    return sources


def describe_classes(sums: pl.DataFrame, samples: pl.DataFrame, pictures: Pictures) -> list[dict[str, Any]]:
    """Describe every class of every source that has images.

    Args:
        sums: sums per class, from `sum_classes`.
        samples: chosen images, from `choose_samples`.
        pictures: the images, read.

    Returns:
        One dict per source, sorted: source, dataset, split, rows, unlabelled. A row per class, sorted: label, images,
        mean, std, sheet (a contact sheet; None if the source has too many classes to show this one). Unlabelled images
        are no class: `unlabelled` is such a row with label None, or None if there are none.
    """
    chosen = samples.group_by(_CLASS).agg("image_id").rows()
    ids = {(dataset, split, label): image_ids for dataset, split, label, image_ids in chosen}
    described = []
    for (dataset, split), part in sums.partition_by(_SOURCE, as_dict=True).items():
        rows = [
            {
                "label": row["label"],
                "images": row["images"],
                "mean": mean_of(row),
                "std": std_of(row),
                "sheet": pictures.sheet(ids.get((dataset, split, row["label"]), [])),
            }
            for row in part.iter_rows(named=True)
        ]
        described.append(
            {
                "source": f"{dataset}/{split}",
                "dataset": dataset,
                "split": split,
                "rows": [row for row in rows if row["label"] is not None],
                "unlabelled": next((row for row in rows if row["label"] is None), None),
            }
        )
    return described


def mean_of(sums: dict[str, Any]) -> float | None:
    """Compute the mean of (p - 127.5) / 255 from integer sums; None without pixels."""
    values, total = sums["values"], sums["total"]
    return (2 * total - 255 * values) / (510 * values) if values else None


def std_of(sums: dict[str, Any]) -> float | None:
    """Compute the population standard deviation of (p - 127.5) / 255 from integer sums; None without pixels."""
    values, total, squares = sums["values"], sums["total"], sums["squares"]
    return math.sqrt(values * squares - total * total) / (255 * values) if values else None


def choose_samples(
    images: pl.LazyFrame, per_class: int = _SAMPLES_PER_CLASS, classes: int = _MAX_CLASSES
) -> pl.DataFrame:
    """Choose images to show for the first classes of each source, and unlabelled ones: from as few shards as possible.

    The choice is always the same. A class is shown from its first shard that alone has enough images of it, if there is
    one. Within a shard the smallest `image_id` come first; ids are hashes, so this is a uniform sample.

    Args:
        images: the images table; only its small columns are read.
        per_class: maximum number of images per class.
        classes: maximum number of classes per source, in the order of their labels.

    Returns:
        dataset, split, label, image_id; sorted by class, then in the order to show.
    """
    class_and_shard = [*_CLASS, "shard"]
    too_few = pl.col("count") < per_class
    counts = (
        images.group_by(class_and_shard).agg(count=pl.len()).collect().sort(*_CLASS, too_few, "shard", nulls_last=True)
    )
    named = counts.select(_CLASS).unique(maintain_order=True)
    first = pl.concat(
        [
            named.drop_nulls("label").group_by(_SOURCE, maintain_order=True).head(classes),
            named.filter(pl.col("label").is_null()),
        ]
    )
    needed = (
        counts.with_columns(before=pl.col("count").cum_sum().over(_CLASS) - pl.col("count"))
        .filter(pl.col("before") < per_class)
        .join(first, on=_CLASS, how="semi", nulls_equal=True)
    )
    return (
        images.select(*class_and_shard, "image_id")
        .join(needed.lazy(), on=class_and_shard, nulls_equal=True)
        .sort(*_CLASS, too_few, "shard", "image_id", nulls_last=True)
        .group_by(_CLASS, maintain_order=True)
        .agg(pl.col("image_id").head(per_class))
        .explode("image_id")
        .collect()
    )


def count_rejects(rejects: pl.LazyFrame, examples: int = _EXAMPLES) -> dict[str, Any]:
    """Count rejects by reason.

    Args:
        rejects: the rejects table.
        examples: maximum number of examples per reason: the first by source and path.

    Returns:
        total, and reasons: the most frequent first, each with reason, files and examples (path, label,
        detail, file_size, source).
    """
    source = pl.concat_str("dataset", "split", separator="/").alias("source")
    example = pl.struct("source", "path", "label", "detail", "file_size")
    counts = (
        rejects.with_columns(source)
        .group_by("reason")
        .agg(files=pl.len(), examples=example.bottom_k_by(["source", "path"], examples))
        .collect()
        .sort("files", "reason", descending=[True, False])
    )
    reasons = [
        {**row, "examples": sorted(row["examples"], key=lambda example: (example["source"], example["path"]))}
        for row in counts.iter_rows(named=True)
    ]
    return {"total": sum(row["files"] for row in reasons), "reasons": reasons}


def _by_source(frame: pl.LazyFrame) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["dataset"], row["split"]): row for row in frame.collect().iter_rows(named=True)}
