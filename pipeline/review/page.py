"""Write a page: what every command with --html does last."""

from pathlib import Path

from pipeline.storage.atomic import atomic_file


def write_page(html: str, file: Path) -> Path:
    """Write a self-contained HTML page.

    Args:
        html: the page.
        file: where to write it; an existing file is replaced.

    Returns:
        `file`.

    Raises:
        LakeError: the page cannot be written there.
        DiskFullError: no space is left.
    """
    with atomic_file(file, "the page") as draft:
        draft.write_text(html, encoding="utf-8")
    return file
