"""release -> report: write the HTML report of a release. It is one file beside the tables."""

from pathlib import Path

from pipeline import storage
from pipeline.dedup.clusters import overlap_matrix
from pipeline.errors import LakeError
from pipeline.lake.releases import newest_release
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.storage.atomic import atomic_file

# The report's HTML has this tag near its start. It holds the release that the report is of.
_RELEASE_TAG = '<meta name="imagelake-release" content="{}">'


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
    from pipeline.report import render_html, summarize  # noqa: PLC0415 - plots and templates, only when drawn

    created = lake.scan("releases").filter(release=lake.release).select("created_at").collect().item()
    html = render_html(
        summarize(
            lake.scan,
            lake=storage.last_name(lake.root),
            release=lake.release,
            created_at=created,
            overlap=overlap_matrix,
        )
    )
    _write(file, html)
    return file


def _is_report_of(file: str, release: int) -> bool:
    try:
        return _RELEASE_TAG.format(release).encode() in storage.read_start(file, 4096)
    except FileNotFoundError:
        return False


def _write(file: str, html: str) -> None:
    if storage.is_bucket(file):
        storage.write(file, html.encode())
        return
    with atomic_file(file, "the report") as draft:
        draft.write_text(html, encoding="utf-8")
