"""Write the matches of `find` as one HTML page, each picture beside its match."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline import storage
from pipeline.lake.reads import check_values, explain_failures
from pipeline.lake_handle import Lake
from pipeline.progress import plural
from pipeline.review.page import write_page
from pipeline.search.find import Found
from pipeline.search.queries import decode_queries
from pipeline.shard import Reject

# At most this many matches are on the page. Their pixels are in memory together.
_SHOWN = 100


@explain_failures
def write_found(lake: Lake, images: Sequence[str], found: Found, file: Path) -> Path:
    """Write the first 100 matches with their pictures as one self-contained HTML page.

    Args:
        lake: the lake of the release that was searched.
        images: the pictures that were searched for; they are read again.
        found: made by `find_duplicates`.
        file: as in `write_page`.

    Raises:
        DamagedLakeError: a file of the lake is missing or damaged.
    """
    from pipeline.report.found import render_found  # noqa: PLC0415 - slow to import
    from pipeline.report.pictures import COLUMNS, read_pictures  # noqa: PLC0415 - slow to import

    check_values(lake.snapshot, "images", COLUMNS)
    shown = found.matches.head(_SHOWN)
    pictures = read_pictures(lake.scan("images"), shown["image_id"], check=True)
    rows = {row["image_id"]: row for row in pictures.iter_rows(named=True)}
    rows |= _read_queries(lake, images, shown["number"])
    pairs = shown.select(
        "rule",
        "score",
        left_id=pl.Series(map(_key, shown["number"].to_list()), dtype=pl.Binary),
        right_id="image_id",
        left_path="query",
        right_path="path",
        left_label=pl.lit(None, pl.String),
        right_label="label",
        left_role=pl.lit(None, pl.String),
        right_role=pl.format("{}/{}", "dataset", "split"),
        conflict=pl.lit(value=False),
        cluster_id=pl.lit(None, pl.Binary),
    )
    first = f", the first {len(shown):,} are shown" if len(shown) < len(found.matches) else ""
    listed = f", the closest {len(found.matches):,} are listed" if len(found.matches) < found.matching else ""
    summary: dict[str, Any] = {
        "lake": storage.last_name(lake.root),
        "release": found.release,
        "headline": f"{plural(len(found.queries), 'picture')}: {plural(found.matching, 'match', 'matches')} by "
        f"{', '.join(found.rules)}{listed}{first}.",
        "unmatched": found.unmatched[:_SHOWN],
        "more_unmatched": max(0, len(found.unmatched) - _SHOWN),
        "rejects": [
            {"path": item.path, "reason": item.reason, "detail": item.detail} for item in found.rejects[:_SHOWN]
        ],
        "shown": pairs.to_dicts(),
    }
    return write_page(render_found(summary, rows), file)


def _read_queries(lake: Lake, images: Sequence[str], numbers: pl.Series) -> dict[bytes, dict[str, Any]]:
    """Read the pictures with these numbers again.

    Returns:
        By `_key` of the number: height, width, channels and pixels.
    """
    rows: dict[bytes, dict[str, Any]] = {}
    for group in decode_queries(lake, list(images)):
        if isinstance(group, Reject):
            continue
        height, width, channels = group.pixels.shape[1:]
        shown = np.flatnonzero(np.isin(group.numbers, numbers.to_numpy()))
        for number, pixels in zip(group.numbers[shown].tolist(), group.pixels[shown], strict=True):
            values = {"height": height, "width": width, "channels": channels, "pixels": pixels.tobytes()}
            rows[_key(number)] = values
    return rows


def _key(number: int) -> bytes:
    """Return what stands for the id of a picture, which has none: shorter than an image_id, so never equal to one."""
    return b"query" + number.to_bytes(8, "big")
