"""One file that a command writes for a person: there whole or not at all, and never in place of a lake's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import storage
from pipeline.errors import DiskFullError, LakeError
from pipeline.lake.parts import full_disk_named


@contextmanager
def writing_whole(file: str | Path, what: str, *, outside_lakes: bool = False) -> Iterator[Path]:
    """Give a file to write to, which takes the place of `file` when the work inside ends well, and goes when it fails.

    Args:
        file: where to; a regular file that is there is replaced.
        what: what it is, such as "the report", for errors.
        outside_lakes: refuse the folder of a lake as a whole, not only its tables.

    Yields:
        A path beside `file` that does not exist yet.

    Raises:
        LakeError: the file cannot be written there.
        DiskFullError: no space is left.
    """
    if storage.is_bucket(str(file)):
        raise LakeError(f"{file}: {what} is written to a file of this machine, not to a bucket. Name another file.")
    path = Path(file)
    _check(path, what, outside_lakes=outside_lakes)
    # The same name every time: what a killed process left is overwritten by the next, and not added to.
    draft = path.parent / f".{path.name}.draft"
    try:
        with full_disk_named(str(path.parent)):
            draft.unlink(missing_ok=True)
            try:
                yield draft
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    except DiskFullError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise LakeError(f"{file}: {what} cannot be written there ({why}). Name another file.") from error


def _check(path: Path, what: str, *, outside_lakes: bool) -> None:
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or pipe"
        raise LakeError(f"{path}: is a {kind}, so {what} cannot be written there. Name another file.")
    folder = path.parent.resolve()
    for above in (folder, *folder.parents):
        if (above / "_delta_log").is_dir():
            raise LakeError(f"{path}: lies in {above}, a table of a lake. Name a file outside of it.")
        if (above / "releases" / "_delta_log").is_dir() and (outside_lakes or path.name.startswith(".")):
            raise LakeError(f"{path}: lies in the lake {above}. Name a file outside of it.")
