"""Helpers for tests of exports: the rows that an export must have, and a function that exports them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.engines.local import LocalEngine
from pipeline.export import export
from pipeline.lake_handle import Lake


def rows_of(lake: Lake, role: str, *, sanitized: bool = True, split: str = "main") -> pl.DataFrame:
    """Join splits and images, with pixels: one row for each image, ordered by rank."""
    rows = lake.scan("splits").filter(split_name=split, role=role).filter(pl.col("kept") | (not sanitized))
    return rows.join(lake.scan("images"), on="image_id").sort("rank").collect()


def pictures_of(rows: pl.DataFrame) -> list[NDArray[np.uint8]]:
    """Return the pixels of rows as arrays, (height, width) or (height, width, channels)."""
    sizes = rows.select("height", "width", "channels").rows()
    return [
        np.frombuffer(pixels, np.uint8).reshape((height, width) if channels == 1 else (height, width, channels))
        for pixels, (height, width, channels) in zip(rows["pixels"], sizes, strict=True)
    ]


def labels_of(rows: pl.DataFrame) -> list[int]:
    """Return the numbers of the labels; -1 for an image without a label."""
    return rows["label_index"].fill_null(-1).to_list()


def export_main(lake: Lake, target: Path, form: str, *, split: str = "main", **options: Any) -> dict[str, Any]:
    """Export a split in this process without a pin; return the values of export.json."""
    options = {"engine": LocalEngine(1), "pinned": False, **options}
    export(lake.root, split, target, form, **options)
    description: dict[str, Any] = json.loads((target / "export.json").read_text(encoding="utf-8"))
    return description


def files_below(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, by its relative name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
