"""release -> report: one HTML file beside the tables, made once a release."""

from pathlib import Path

from pipeline import storage
from pipeline.dedup.overlap import overlap_matrix
from pipeline.errors import LakeError
from pipeline.lake.releases import newest
from pipeline.lake_handle import Lake
from pipeline.storage.atomic import writing_whole

_MARK = '<meta name="imagelake-release" content="{}">'


def write_report(root: str, out: str | Path | None = None, release: int | None = None) -> str:
    """Write the report of a release, unless it is there already.

    Args:
        root: the lake's place.
        out: where to; None for `report.html` beside the tables, which is of the newest release.
        release: number of the release; None for the newest.

    Returns:
        Where it is.

    Raises:
        NoReleaseError: the lake has no release.
        LakeError: it cannot be written there.
    """
    lake = Lake(root, release)
    if out is None and release is not None and release != newest(lake.root):
        raise LakeError(
            f"{root}/report.html is of the newest release: name another file for that of release {release}."
        )
    file = str(out or f"{lake.root}/report.html")
    if out is None and _is_of(file, lake.release):
        return file
    from pipeline.report import render_html, summarize  # noqa: PLC0415 - plots and templates, only when drawn

    created = lake.scan("releases").filter(release=lake.release).select("created_at").collect().item()
    html = render_html(
        summarize(
            lake.scan, lake=storage.last_name(root), release=lake.release, created_at=created, overlap=overlap_matrix
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
