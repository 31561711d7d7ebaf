"""Folders of files that contain images, as data sets are published: Parquet, tar, zip, npz, IDX and tables.

Every such file is a source of its own; its paths begin with its path in the folder. Other files, such as a README,
are rejects of the folder's own source.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.sources.source import beginning, is_folder, is_picture_name, is_system_folder, readable_name, system_file

# Most files: each of them is opened to recognise its form.
_MAX_FILES = 100_000
_ENDINGS = re.compile(
    r"\.(parquet|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz)|zip|npz|npy|mat)$|[-._](images|labels)?[-._]?idx\d(-\w+)?(\.(gz|bz2|xz))?$",
    re.IGNORECASE,
)
# Only if there are no other data: such files often describe the data beside them.
_TABLES = re.compile(r"\.(csv|tsv)(\.(gz|bz2|xz))?$", re.IGNORECASE)


class Listed(NamedTuple):
    """The files of a folder.

    Attributes:
        pictures: whether there is an image file.
        containers: sorted paths, inside the folder, of files that may contain images.
        tables: sorted paths of CSV and TSV files.
        others: whether there are other files.
    """

    pictures: bool
    containers: list[str]
    tables: list[str]
    others: bool


def list_folder(folder: Path, excluded: Path | None = None, *, pictures: bool = True) -> Listed:
    """List the files of a folder, up to the first image file.

    Args:
        folder: an existing folder.
        excluded: a folder that is skipped: a lake inside of `folder`.
        pictures: whether an image file ends the search.

    Raises:
        SourceError: a folder cannot be listed, or contains too many files to open each.
    """
    containers: list[str] = []
    tables: list[str] = []
    others = 0
    for name in _files(folder, excluded):
        if pictures and is_picture_name(name):
            return Listed(pictures=True, containers=[], tables=[], others=False)
        if _ENDINGS.search(name):
            containers.append(name)
        elif _TABLES.search(name):
            tables.append(name)
        else:
            others += not system_file(name)
        if len(containers) + len(tables) > _MAX_FILES:
            raise SourceError(
                f"{folder}: more than {_MAX_FILES:,} archives and tables and no image. Name them by a pattern, such as "
                f"{folder}/train-*.tar."
            )
    return Listed(pictures=False, containers=sorted(containers), tables=sorted(tables), others=others > 0)


def is_images_file(file: Path) -> bool:
    """Return whether an IDX file contains images: an array of three or four dimensions."""
    return beginning(file, 4)[3:] in (b"\3", b"\4")


def is_labels_file(file: Path) -> bool:
    """Return whether a path is an IDX file of labels."""
    if not file.is_file():
        return False
    try:
        head = beginning(file, 4)
    except OSError:
        return False
    return head[:2] == b"\0\0" and head[3:] in (b"\1", b"\2") and bool(_ENDINGS.search(file.name))


def is_lake(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is a lake: it contains the heartbeats of writers, or a table's log."""
    if Path(folder, ".writers").is_dir():
        return True
    try:
        with os.scandir(folder) as found:
            return any(entry.is_dir() and Path(entry.path, "_delta_log").is_dir() for entry in found)
    except OSError:
        return False


def _files(folder: Path, excluded: Path | None) -> Iterator[str]:
    rest = [(os.fspath(folder), "")]
    excluded_path = os.fspath(excluded) if excluded else None
    while rest:
        place, prefix = rest.pop()
        try:
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise SourceError(
                f"{place}: the folder cannot be listed ({error.strerror}). Check its permissions."
            ) from error
        for entry in entries:
            if not is_folder(entry):
                yield f"{prefix}{readable_name(entry.name)}"
            elif not (entry.is_symlink() or is_system_folder(entry.name) or entry.path == excluded_path):
                rest.append((entry.path, f"{prefix}{readable_name(entry.name)}/"))
