"""Describe the roles of every split: mean and deviation, classes before and after sanitizing, drops, and samples."""

from typing import Any

import polars as pl

from pipeline.labels import CORRECTED, label_in_split
from pipeline.report.pictures import Pictures
from pipeline.report.sources import mean_of, std_of

# Images shown per role: of a lake with one split, and at least, however many splits there are.
_SAMPLES = 45
_MIN_SAMPLES = 9
_MAX_CLASSES = 40
_SUMS = ["images", "values", "total", "squares"]


def choose_role_samples(splits: pl.LazyFrame, names: int, samples: int | None = None) -> pl.DataFrame:
    """Choose the images to show of every role: the first kept ones by rank, which is a random order.

    They are the first rows of `lake.arrays(split, role)`.

    Args:
        splits: the splits table.
        names: number of splits; the more there are, the fewer images are shown of each role.
        samples: maximum number of images per role; None for the default.

    Returns:
        split_name, role and image_id (a list in the order of rank), one row per role that keeps an image.
    """
    limit = samples or max(_MIN_SAMPLES, _SAMPLES // max(1, names))
    in_order = pl.element().struct["image_id"].sort_by(pl.element().struct["rank"])
    return (
        splits.filter("kept")
        .group_by("split_name", "role")
        .agg(first=pl.struct("rank", "image_id").bottom_k_by("rank", limit))
        .with_columns(image_id=pl.col("first").list.eval(in_order))
        .select("split_name", "role", "image_id")
        .collect()
    )


def sum_roles(images: pl.LazyFrame, splits: pl.LazyFrame, names: list[str]) -> pl.DataFrame:
    """Sum counts and pixel sums of the images of every role, by class and by what sanitizing did. No pixels are read.

    The images table stores the sum and the sum of squares of the pixels of every image. Sums are integers, so the
    result is exact and does not depend on the order of rows. One split is in memory at a time, in 60 bytes an image.

    Args:
        images: the images table.
        splits: the splits table.
        names: the splits.

    Returns:
        split_name, role, label, label_index, kept, dropped_by, reason, and the sums of `sum_classes`.
    """
    size = pl.col("height").cast(pl.Int64) * pl.col("width") * pl.col("channels")
    facts = images.select(_key(), "label", values=size, total=pl.col("pixel_sum"), squares=pl.col("pixel_squares"))
    by = ["role", "label", "label_index", "kept", "dropped_by", "reason"]
    sums = [
        splits.filter(pl.col("split_name") == name)
        .select(_key(), "role", "label_index", "kept", "dropped_by", "reason", *CORRECTED)
        .join(facts, on="key", how="left")
        .with_columns(label_in_split())
        .group_by(by)
        .agg(images=pl.len().cast(pl.Int64), **{name: pl.col(name).sum() for name in _SUMS[1:]})
        .select(pl.lit(name).alias("split_name"), *by, *_SUMS)
        .collect(engine="streaming")
        for name in names
    ]
    empty = {"split_name": pl.String, **dict.fromkeys(by, pl.String), **dict.fromkeys(_SUMS, pl.Int64)}
    return pl.concat(sums) if sums else pl.DataFrame(schema=empty)


def describe_roles(
    splits: list[dict[str, Any]], sums: pl.DataFrame, samples: pl.DataFrame, pictures: Pictures
) -> list[dict[str, Any]]:
    """Describe every role of every split.

    Args:
        splits: from `describe_splits`.
        sums: from `sum_roles`.
        samples: from `choose_role_samples`.
        pictures: the images, read.

    Returns:
        One dict per split: split_name; roles; classes, at most 40 in the order of their label numbers; more_classes
        (number of classes not listed); largest (images of the largest class listed, by role). A role has role, images,
        kept, unlabelled and kept_unlabelled (counts), mean and std (of (p - 127.5) / 255 over all pixels of its
        images), kept_mean and kept_std (of the images that sanitizing kept), drops (rule, reason, images; most images
        first) and samples (pictures). A class has label and cells: for each role, images and kept.
    """
    ids = {(split_name, role): chosen for split_name, role, chosen in samples.rows()}
    return [
        _describe_split(split, sums.filter(pl.col("split_name") == split["split_name"]), ids, pictures)
        for split in splits
    ]


def _describe_split(
    split: dict[str, Any], sums: pl.DataFrame, ids: dict[tuple[str, str], list[bytes]], pictures: Pictures
) -> dict[str, Any]:
    name, roles = split["split_name"], [role["role"] for role in split["roles"]]
    labels = sums.drop_nulls("label").group_by("label").agg(pl.col("label_index").min()).sort("label_index", "label")
    counts: dict[tuple[str, str | None], tuple[int, int]] = {
        (role, label): (images, kept)
        for role, label, images, kept in sums.group_by("role", "label")
        .agg(pl.col("images").sum(), kept=pl.col("images").filter("kept").sum())
        .iter_rows()
    }
    described = []
    for role in roles:
        rows = sums.filter(pl.col("role") == role)
        images, kept = counts.get((role, None), (0, 0))
        drawn = [pictures.picture(image_id, None) for image_id in ids.get((name, role), [])]
        described.append(
            {
                "role": role,
                "images": rows["images"].sum(),
                "kept": rows.filter("kept")["images"].sum(),
                "unlabelled": images,
                "kept_unlabelled": kept,
                **_deviation(rows, ""),
                **_deviation(rows.filter("kept"), "kept_"),
                "drops": _drops(rows),
                "samples": [one for one in drawn if one],
            }
        )
    shown = labels["label"].head(_MAX_CLASSES).to_list()
    return {
        "split_name": name,
        "roles": described,
        "classes": [
            {
                "label": label,
                "cells": [
                    dict(zip(("images", "kept"), counts.get((role, label), (0, 0)), strict=True)) for role in roles
                ],
            }
            for label in shown
        ],
        "more_classes": len(labels) - len(shown),
        "largest": [max((counts.get((role, label), (0, 0))[0] for label in shown), default=0) for role in roles],
    }


def _deviation(rows: pl.DataFrame, prefix: str) -> dict[str, float | None]:
    sums = {name: int(rows[name].sum()) for name in _SUMS}
    return {f"{prefix}mean": mean_of(sums), f"{prefix}std": std_of(sums)}


def _drops(rows: pl.DataFrame) -> list[dict[str, Any]]:
    return (
        rows.filter(~pl.col("kept"))
        .group_by(rule=pl.col("dropped_by").fill_null(""), reason="reason")
        .agg(pl.col("images").sum())
        .sort("images", "rule", "reason", descending=[True, False, False], nulls_last=True)
        .to_dicts()
    )


def _key() -> pl.Expr:
    """Read an id as a number, which joins three times as fast as bytes."""
    return pl.col("image_id").bin.reinterpret(dtype=pl.Int128, endianness="big").alias("key")
