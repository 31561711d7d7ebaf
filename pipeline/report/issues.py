"""Choose the images with the strongest issues of each kind, to show them in the report."""

from typing import Any

import polars as pl

from pipeline.recipe.issues import KINDS
from pipeline.report.pictures import Pictures

# Images of each kind that are shown.
_SHOWN = 24


def choose_issues(issues: pl.LazyFrame) -> pl.DataFrame:
    """Choose images of each kind, those with the highest scores: columns kind, images (how many) and image_id (a list).

    Kinds without images are left out; the others are in the order of `KINDS`.
    """
    order = pl.col("kind").cast(pl.Enum(list(KINDS)))
    known = issues.filter(pl.col("kind").is_in(list(KINDS))).sort(
        order, "score", "image_id", descending=[False, True, False]
    )
    grouped = known.group_by("kind", maintain_order=True)
    return grouped.agg(images=pl.len(), image_id=pl.col("image_id").head(_SHOWN)).collect()


def draw_issues(chosen: pl.DataFrame, pictures: Pictures) -> list[dict[str, Any]]:
    """Describe the kinds of issues: kind, meaning, images (how many) and sheet (a contact sheet of the first)."""
    return [
        {"kind": kind, "meaning": KINDS[kind].meaning, "images": images, "sheet": pictures.sheet(ids)}
        for kind, images, ids in chosen.rows()
    ]
