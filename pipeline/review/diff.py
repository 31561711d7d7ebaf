"""Write what changed between two releases as one HTML page with the images."""

from pathlib import Path

import polars as pl

from pipeline import storage
from pipeline.diff import Diff, describe_release
from pipeline.lake.reads import check_values, explain_failures
from pipeline.lake_handle import Lake
from pipeline.review.page import write_page


@explain_failures
def write_diff(lake: Lake, found: Diff, file: Path) -> Path:
    """Write the changes between two releases as one self-contained HTML page.

    The first changes of every kind are shown with their images. Only the pixels of these are read.

    Args:
        lake: the lake of the later release of `found`.
        found: made by `Lake.diff`.
        file: as in `write_page`.

    Raises:
        DamagedLakeError: a file of the lake is missing or damaged.
    """
    from pipeline.report.diff import SHOWN, render_diff  # noqa: PLC0415 - slow to import
    from pipeline.report.pictures import COLUMNS  # noqa: PLC0415 - the same

    before = lake.at(found.before)
    for opened in (lake, before):
        check_values(opened.snapshot, "images", COLUMNS)
    members = pl.concat(
        [
            opened.scan("clusters")
            .select("rule", "cluster_id", "image_id", kind=pl.lit(kind))
            .join(found.kinds[kind].head(SHOWN).lazy().select("rule", cluster_id=key), on=["rule", "cluster_id"])
            .collect(engine="streaming")
            for opened, kind, key in (
                (lake, "clusters_merged", "cluster_id"),
                (before, "clusters_split", "cluster_id_before"),
            )
        ]
    )
    summary = {
        "lake": storage.last_name(lake.root),
        "before": found.before,
        "after": found.after,
        "matched_by": found.matched_by,
        "described": list(describe_release(found)),
    }
    return write_page(render_diff(summary, found.kinds, members, before.scan("images"), lake.scan("images")), file)
