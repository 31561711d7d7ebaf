"""Labels that people corrected, in the rows of a split."""

from typing import Any

import polars as pl

from pipeline.labels import CORRECTED, label_in_split
from pipeline.verdicts.standing import Resolved
from schemas.splits import VERDICT


def _corrections(verdicts: Resolved) -> pl.DataFrame:
    """List the labels that people corrected: columns image_id, corrected_label (null if only the label is wrong)."""
    return verdicts.pictures.filter(pl.col("verdict").is_in(["label", "wrong_label"])).select(
        "image_id", corrected_label="label"
    )


def with_labels(images: pl.LazyFrame, verdicts: Resolved) -> pl.LazyFrame:
    """Replace the labels of images by those that people corrected."""
    corrected = _corrections(verdicts)
    if corrected.is_empty():
        return images
    reasons = corrected.lazy().with_columns(label_reason=pl.lit(VERDICT))
    joined = images.join(reasons, on="image_id", how="left", maintain_order="left")
    return joined.with_columns(label_in_split()).drop(CORRECTED)


def with_corrections(rows: pl.DataFrame, verdicts: Resolved) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Add the columns corrected_label and label_reason to rows of a split, and count what verdicts changed in it."""
    corrected = _corrections(verdicts).with_columns(label_reason=pl.lit(VERDICT))
    found = rows.join(corrected, on="image_id", how="left", maintain_order="left")
    kept = rows.filter("kept").join(verdicts.pictures.filter(verdict="keep"), on="image_id", how="semi")
    counts = {
        "dropped": int((rows["reason"] == VERDICT).sum()),
        "labels": len(found) - found["label_reason"].null_count(),
        "kept": len(kept),
    }
    return found, {"verdicts": counts} if any(counts.values()) else {}
