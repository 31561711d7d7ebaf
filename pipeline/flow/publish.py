"""release -> report: one HTML file beside the tables, made once a release."""

from pathlib import Path

from pipeline import storage
from pipeline.dedup.overlap import overlap_matrix
from pipeline.errors import LakeError
from pipeline.handle import Lake
from pipeline.lake.parts import full_disk_named

_MARK = '<meta name="imagelake-release" content="{}">'


def write_report(root: str, out: Path | None = None) -> str:
    """Write the report of the newest release, unless it is there already.

    Args:
        root: the lake's place.
        out: where to; None for `report.html` beside the tables.

    Returns:
        Where it is.

    Raises:
        NoReleaseError: the lake has no release.
        LakeError: it cannot be written there.
    """
    lake = Lake(root)
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
    _write(root, file, html)
    return file


def _write(root: str, file: str, html: str) -> None:
    if storage.is_bucket(file):
        storage.write(file, html.encode())
        return
    # Renamed into place, so that a report that is there is whole.
    draft = Path(file).with_name(f".{Path(file).name}.draft")
    try:
        with full_disk_named(root):
            draft.write_text(html, encoding="utf-8")
            draft.replace(file)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise LakeError(f"{file}: the report cannot be written there ({error.strerror}). Name another file.") from error


def _is_of(file: str, release: int) -> bool:
    try:
        return _MARK.format(release).encode() in storage.read_start(file, 4096)
    except FileNotFoundError:
        return False
