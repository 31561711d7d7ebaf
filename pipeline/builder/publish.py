"""release -> report: one HTML file beside the tables, made once a release."""

from pathlib import Path

from pipeline import storage
from pipeline.dedup.overlap import overlap_matrix
from pipeline.errors import LakeError
from pipeline.lake.releases import newest_release
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.storage.atomic import writing_whole

_MARK = '<meta name="imagelake-release" content="{}">'


def write_report(lake: Lake, out: str | Path | None = None) -> str:
    """Write the report of a release, unless it is there already.

    Args:
        lake: the lake as of the release.
        out: where to; None for `report.html` beside the tables, which is of the newest release.

    Returns:
        The place of the report.

    Raises:
        LakeError: it cannot be written there, or `out` is None and the release is not the newest.
    """
    if out is None and lake.release != newest_release(Snapshot(lake.root)):
        raise LakeError(
            f"{lake.root}/report.html is of the newest release: name another file for that of release {lake.release}."
        )
    file = str(out or f"{lake.root}/report.html")
    if out is None and _is_of(file, lake.release):
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


def _write(file: str, html: str) -> None:
    if storage.is_bucket(file):
        storage.write(file, html.encode())
        return
    with writing_whole(file, "the report") as draft:
        draft.write_text(html, encoding="utf-8")


def _is_of(file: str, release: int) -> bool:
    try:
        return _MARK.format(release).encode() in storage.read_start(file, 4096)
    except FileNotFoundError:
        return False
