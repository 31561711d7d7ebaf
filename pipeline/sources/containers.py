"""Folders that hold no pictures but files of them: Parquet, tar, zip, npz, IDX and tables, as data sets are published.

Every such file is a source of its own; its paths begin with its path in the folder. Other files, such as a README,
become rejects of the folder's own source.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SourceError
from pipeline.sources.arrays.idx import labels_file
from pipeline.sources.arrays.npz import companions
from pipeline.sources.source import Source, beginning, is_folder, is_picture_name, readable_name
from pipeline.sources.system_files import is_system_folder, system_file

# Each of them is opened to tell its form.
_MOST = 100_000
_ENDINGS = re.compile(
    r"\.(parquet|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz)|zip|npz|npy|mat)$|[-._](images|labels)?[-._]?idx\d(-\w+)?(\.(gz|bz2|xz))?$",
    re.IGNORECASE,
)
# Only where there is nothing else: such files often stand beside data, and say something about it.
_TABLES = re.compile(r"\.(csv|tsv)(\.(gz|bz2|xz))?$", re.IGNORECASE)


class Listed(NamedTuple):
    """What a folder holds.

    Attributes:
        pictures: whether there is a picture.
        containers: files that may hold pictures, sorted, from the folder on.
        tables: CSV and TSV files, likewise.
        others: whether there are other files.
    """

    pictures: bool
    containers: list[str]
    tables: list[str]
    others: bool


def list_folder(folder: Path, without: Path | None = None, *, pictures: bool = True) -> Listed:
    """Look through a folder until a picture is found.

    Args:
        folder: an existing folder.
        without: a folder that is left out: the lake, where it lies inside.
        pictures: whether a picture ends the search.

    Raises:
        SourceError: a folder cannot be listed, or holds too many files to look at each.
    """
    containers: list[str] = []
    tables: list[str] = []
    others = 0
    for name in _files(folder, without):
        if pictures and is_picture_name(name):
            return Listed(pictures=True, containers=[], tables=[], others=False)
        if _ENDINGS.search(name):
            containers.append(name)
        elif _TABLES.search(name):
            tables.append(name)
        else:
            others += not system_file(name)
        if len(containers) + len(tables) > _MOST:
            raise SourceError(
                f"{folder}: more than {_MOST:,} archives and tables and no picture. Name them by a pattern, such as "
                f"{folder}/train-*.tar."
            )
    return Listed(pictures=False, containers=sorted(containers), tables=sorted(tables), others=others > 0)


def is_images_file(file: Path) -> bool:
    """Tell whether an IDX file holds images: three dimensions or four, and not labels."""
    return beginning(file, 4)[3:] in (b"\3", b"\4")


def is_labels_file(file: Path) -> bool:
    """Tell whether a path is an IDX file of labels."""
    if not file.is_file():
        return False
    try:
        head = beginning(file, 4)
    except OSError:
        return False
    return head[:2] == b"\0\0" and head[3:] in (b"\1", b"\2") and bool(_ENDINGS.search(file.name))


def companions_of(source: Source) -> list[Path]:
    """List the files beside a source that are read with it: labels of IDX images, and what belongs to a .npy."""
    if source.format == "npz":
        return companions(source)
    labels = labels_file(source) if source.format == "idx" else None
    return [labels] if labels is not None else []


def is_lake(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds a lake: the marks of its writers, or a table's log."""
    if Path(folder, ".writers").is_dir():
        return True
    try:
        with os.scandir(folder) as found:
            return any(entry.is_dir() and Path(entry.path, "_delta_log").is_dir() for entry in found)
    except OSError:
        return False


def _files(folder: Path, without: Path | None) -> Iterator[str]:
    rest = [(os.fspath(folder), "")]
    left_out = os.fspath(without) if without else None
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
            elif not (entry.is_symlink() or is_system_folder(entry.name) or entry.path == left_out):
                rest.append((entry.path, f"{prefix}{readable_name(entry.name)}/"))
