"""release -> report: write the HTML report of a release. It is one file beside the tables."""

from pathlib import Path
from typing import NamedTuple

from pipeline import storage
from pipeline.dedup.clusters import overlap_matrix
from pipeline.errors import ImagelakeError, LakeError, StorageError, one_line
from pipeline.lake.releases import newest_release
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.limits import limit_error
from pipeline.os_errors import os_error_line
from pipeline.storage.atomic import atomic_file

# The report's HTML has this tag near its start. It holds the release that the report is of.
_RELEASE_TAG = '<meta name="imagelake-release" content="{}">'


class ReportResult(NamedTuple):
    """The report of a build.

    Attributes:
        file: its place; empty if it was not written.
        error: why it was not written, and what to do; empty if it was.
    """

    file: str = ""
    error: str = ""


def try_to_write_report(lake: Lake) -> ReportResult:
    """Write the report of a release that a build has published. The release stays if the report cannot be written."""
    try:
        return ReportResult(write_report(lake))
    except (ImagelakeError, OSError) as error:
        reason = str(limit_error(error) or os_error_line(error) or one_line(error))
        return ReportResult(
            error=f"release {lake.release} is published, but its report is not written. {reason} "
            f"Then run: imagelake report {lake.root}"
        )


def write_report(lake: Lake, out: str | Path | None = None) -> str:
    """Write the report of a release.

    Args:
        lake: the lake at that release.
        out: the file to write; None for `report.html` beside the tables. That file is always of the newest release,
            and is not written again if it is already of this release.

    Returns:
        The place of the report.

    Raises:
        LakeError: the file cannot be written, or `out` is None and the release is not the newest.
    """
    if out is None and lake.release != newest_release(Snapshot(lake.root)):
        raise LakeError(
            f"{lake.root}/report.html is always of the newest release. Choose another file: imagelake report "
            f"{lake.root} --release {lake.release} --out FILE"
        )
    file = str(out or f"{lake.root}/report.html")
    if out is None and _is_report_of(file, lake.release):
        return file
    from pipeline.builder.attribute_notes import describe_attributes, duplicates_across  # noqa: PLC0415 - as below
    from pipeline.report import render_html, summarize  # noqa: PLC0415 - plots and templates, only when drawn

    created = lake.scan("releases").filter(release=lake.release).select("created_at").collect().item()
    html = render_html(
        summarize(
            lake.scan,
            lake=storage.last_name(lake.root),
            release=lake.release,
            created_at=created,
            overlap=overlap_matrix,
            attributes={"datasets": describe_attributes(lake.snapshot), "across": duplicates_across(lake.snapshot)},
        )
    )
    _write(file, html)
    return file


def _is_report_of(file: str, release: int) -> bool:
    try:
        return _RELEASE_TAG.format(release).encode() in storage.read_start(file, 4096)
    except StorageError:
        raise
    except OSError:
        # It is missing, or something else is in its place. Writing finds out what can be done.
        return False


def _write(file: str, html: str) -> None:
    if storage.is_bucket(file):
        storage.write(file, html.encode())
        return
    with atomic_file(file, "the report") as draft:
        draft.write_text(html, encoding="utf-8")
