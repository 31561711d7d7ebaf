"""A review -> one HTML page with the pictures side by side. Of the pixels, only those of these pictures are read."""

from pathlib import Path
from typing import Any

import polars as pl

from pipeline import storage
from pipeline.flow.outfile import writing_whole
from pipeline.flow.review.pairs import Review
from pipeline.handle import Lake


def write_review(root: str, review: Review, file: Path) -> Path:
    """Write a review as one self-contained HTML page.

    Args:
        root: the lake's folder.
        review: what `review_pairs` found.
        file: where to.

    Returns:
        The file.

    Raises:
        LakeError: the page cannot be written there.
        DiskFullError: no space is left.
    """
    from pipeline.report.review import render_pairs  # noqa: PLC0415 - templates and Pillow, only when drawn
    from pipeline.report.walk import read_pictures  # noqa: PLC0415 - comes with them

    ids = pl.concat([review.shown["left_id"], review.shown["right_id"]])
    pictures = read_pictures(Lake(root, review.release).scan("images"), ids)
    summary: dict[str, Any] = {**review._asdict(), "lake": storage.last_name(root), "shown": review.shown.to_dicts()}
    html = render_pairs(summary, pictures)
    with writing_whole(file, "the page") as draft:
        draft.write_text(html, encoding="utf-8")
    return file
