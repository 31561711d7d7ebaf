"""release -> report: one HTML file beside the tables, made once a release."""

from pathlib import Path

from pipeline.dedup.overlap import overlap_matrix
from pipeline.errors import LakeError
from pipeline.handle import Lake
from pipeline.lake.parts import full_disk_named

_MARK = '<meta name="imagelake-release" content="{}">'


def write_report(root: str, out: Path | None = None) -> Path:
    """Write the report of the newest release, unless it is there already.

    Args:
        root: the lake's folder.
        out: where to; None for `report.html` in the lake's folder.

    Returns:
        The file.

    Raises:
        NoReleaseError: the lake has no release.
    """
    lake = Lake(root)
    file = out or Path(root) / "report.html"
    if out is None and _is_of(file, lake.release):
        return file
    from pipeline.report import render_html, summarize  # noqa: PLC0415 - plots and templates, only when drawn

    created = lake.scan("releases").filter(release=lake.release).select("created_at").collect().item()
    html = render_html(
        summarize(
            lake.scan, lake=Path(root).resolve().name, release=lake.release, created_at=created, overlap=overlap_matrix
        )
    )
    # Renamed into place, so that a report that is there is whole.
    draft = file.with_name(f".{file.name}.draft")
    try:
        with full_disk_named(root):
            draft.write_text(html, encoding="utf-8")
            draft.replace(file)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise LakeError(f"{file}: the report cannot be written there ({error.strerror}). Name another file.") from error
    return file


def _is_of(file: Path, release: int) -> bool:
    if not file.exists():
        return False
    with file.open(encoding="utf-8") as stream:
        return _MARK.format(release) in stream.read(4096)
