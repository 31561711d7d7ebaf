"""A list of files and their labels: CSV or TSV, with a header or as bare `path,label`.

The recipe's `images` and `labels` name the columns; `labels = ""` says that there are none. Otherwise usual names in
the header tell (`path`, `file`, `filename`, `image`, ... and `label`, `class`, `category`, `target`), and where two
columns could be meant that is an error. A list without a header has two columns, or one.

Paths start from the folder of the list. It is its owner's own word, so it may name files above that folder, or by their
whole path; a list that was fetched from an address may not name files of this machine at all. A file that is not there
is a reject. A file listed twice with one label is one file; with two labels it is an error.

Files are looked at but not opened, and cut into shards as those of a folder are: one that changes costs its shard.
"""

import csv
import os
import re
import stat
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

import polars as pl

from pipeline.encoded import Encoded, Survey
from pipeline.errors import SourceError
from pipeline.sources.folder import Entry, fault_of, read_files, survey_files
from pipeline.sources.source import DAMAGED, Source, is_picture_name, one_line, opened

_PATH_NAMES = frozenset(["path", "file", "filename", "filepath", "image", "img", "imagepath", "imagefile", "imgpath"])
_LABEL_NAMES = frozenset(["label", "labels", "class", "category", "target", "classname"])
_BOM = b"\xef\xbb\xbf"
# Of its first line, so much is looked at.
_LONGEST = 2**16
_BLANKS = " \t\r\n"


class _Layout(NamedTuple):
    """Where in a row the path and the label stand, and whether the first row is a header."""

    path: int
    label: int | None
    header: bool


def recognises(path: Path, head: bytes) -> bool:
    """Tell a list by a header with a column of paths, or by two columns of which the first is a picture's name."""
    if path.is_dir() or b"\0" in head.split(b"\n", 1)[0]:
        return False
    names = _fields(head)
    if len(names) > 1 and any(_plain(name) in _PATH_NAMES for name in names):
        return True
    return len(names) == 2 and is_picture_name(names[0])  # noqa: PLR2004 - path and label


def survey(source: Source) -> Survey:
    """Look at every file that is listed; see `pipeline.sources`."""
    return survey_files(source, _entries(source))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Hand out the wanted shards by file name; see `pipeline.sources`."""
    return read_files(source, _entries(source), wanted)


def _entries(source: Source) -> list[Entry]:
    folder = os.fspath(source.path.parent)
    return [_look(folder, path, label) for path, label in _listed(source).rows()]


def _look(folder: str, path: str, label: str | None) -> Entry:
    name = os.path.join(folder, path)  # noqa: PTH118 - a Path for each of a million files is slow
    try:
        found = os.stat(name)  # noqa: PTH116
    except PermissionError:  # the worker that cannot open it either makes it a reject, which is tried again
        return Entry(path, name, 0, 0, "", label)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return Entry(path, name, 0, 0, f"no such file ({getattr(error, 'strerror', None) or error})", label)
    fault = "a folder" if stat.S_ISDIR(found.st_mode) else fault_of(found.st_mode)
    return Entry(path, name, found.st_size, found.st_mtime_ns, fault, label)


def _listed(source: Source) -> pl.DataFrame:
    """Read the list: path and label of every file, once, by path."""
    data = _content(source)
    names = _fields(data)
    layout = _layout(source, names)
    label = pl.lit(None, pl.String) if layout.label is None else pl.nth(layout.label)
    try:
        frame = pl.read_csv(data, separator=_separator(data), has_header=layout.header, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"{source.title}: {source.path} cannot be read as a table ({str(error).splitlines()[0]}). Check its quotes "
            "and the number of columns in every row, and save it as UTF-8."
        ) from error
    rows = frame.select(path=pl.nth(layout.path), label=label).select(pl.all().str.strip_chars(_BLANKS))
    rows = rows.with_columns(_shortest(pl.col("path"))).select(pl.all().replace("", None)).with_row_index("row", 1)
    rows = rows.filter(pl.any_horizontal(pl.col("path", "label").is_not_null()))
    if rows.is_empty():
        raise SourceError(f"{source.title}: {source.path} lists no files. Check that it is the right one.")
    _check(source, rows)
    return rows.select("path", "label").unique().sort("path")


def _content(source: Source) -> bytes:
    if "://" in source.uri:
        raise SourceError(
            f"{source.title}: a list from elsewhere cannot name files of this machine. Fetch it yourself, look at it, "
            "and name it by its path."
        )
    try:
        with opened(source, source.path) as stream:
            return stream.read().removeprefix(_BOM)
    except DAMAGED as error:
        raise SourceError(f"{source.title}: {source.path} is damaged or cut short ({one_line(error)}).") from error


def _check(source: Source, rows: pl.DataFrame) -> None:
    nameless = rows.filter(pl.col("path").is_null())
    if len(nameless):
        raise SourceError(f"{source.title}: row {nameless['row'][0]} of {source.path} names no file. Mend it.")
    pairs = rows.select("path", "label").unique().filter(pl.col("path").is_duplicated()).sort("path", "label")
    if len(pairs):
        (path, one), (_, other) = pairs.head(2).rows()
        raise SourceError(
            f"{source.title}: {source.path} lists '{path}' with two labels, {one!r} and {other!r}. Take one out."
        )


def _layout(source: Source, names: Sequence[str]) -> _Layout:
    part = source.part
    asked = [name for name in (part.images, part.labels) if name]
    missing = [name for name in asked if name not in names]
    if missing:
        raise _unclear(source, names, f"no column '{missing[0]}'", "images or labels")
    paths = [part.images] if part.images else [name for name in names if _plain(name) in _PATH_NAMES]
    if not asked and not paths:
        if len(names) > 2:  # noqa: PLR2004 - path and label
            raise _unclear(source, names, "no column is called like paths", 'images = "..."')
        return _Layout(0, 1 if len(names) > 1 and part.labels is None else None, header=False)
    paths = paths or [name for name in names if name != part.labels]
    if len(paths) != 1:
        raise _unclear(source, names, "not one column but several may be the paths", 'images = "..."')
    others = [name for name in names if name != paths[0]]
    labels = [part.labels] if part.labels else [name for name in others if _plain(name) in _LABEL_NAMES]
    if part.labels == "" or not others:
        return _Layout(names.index(paths[0]), None, header=True)
    if len(labels) != 1:
        what = "several columns are" if labels else "no column is"
        raise _unclear(source, names, f"{what} called like labels", 'labels = "...", or labels = "" for none,')
    return _Layout(names.index(paths[0]), names.index(labels[0]), header=True)


def _unclear(source: Source, names: Sequence[str], what: str, how: str) -> SourceError:
    line = ", ".join(names)
    return SourceError(
        f"{source.title}: {what} in {source.path}, whose first line is '{line}'. "
        f"Name the column with {how} in the recipe."
    )


def _fields(data: bytes) -> list[str]:
    line = data[:_LONGEST].removeprefix(_BOM).split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    try:
        return [name.strip(_BLANKS) for name in next(csv.reader([line], delimiter=_separator(data)), [])]
    except csv.Error:
        return [line]


def _separator(data: bytes) -> str:
    return "\t" if b"\t" in data[:_LONGEST].split(b"\n", 1)[0] else ","


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _shortest(path: pl.Expr) -> pl.Expr:
    """Spell a path without the steps that lead nowhere: one file should have one name."""
    return path.str.replace_all(r"/(?:\.?/)+", "/").str.replace(r"^(?:\./)+", "")
