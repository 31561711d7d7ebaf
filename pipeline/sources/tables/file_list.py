"""Read a list of image files and their labels: one file a row, with or without a header.

Fields are separated by commas, semicolons, tabs or `|`, and may be quoted. The recipe's `images` and `labels` name the
columns: by the header, or as `"first"`, `"last"` or a position from 0; `labels = ""` means no labels. Otherwise:

- Paths are the column with a usual name (`path`, `file`, `filename`, `image`, ...), else the only column whose values
  end as image files do.
- Labels are the column with a usual name (`label`, `class`, `category`, `target`, `y`, ...; see `sources.labels`).
  Without a header they are the only column besides the paths, on either side.
- The first row is a header if it has a usual name of paths or a name from the recipe, or if its field in the column of
  paths is not an image file while those below are.

If two columns fit, the error names the key of the recipe that decides. An empty label or NaN means no label.

Paths are relative to the folder of the list, or absolute. A list that names a file outside of its folder, also by a
link inside of it, is an error, unless its source has `outside = true`. A list that was downloaded may not name local
files. A path that does not exist is looked up with `/` for every backslash, and in other Unicode forms (NFC, NFD) among
the files of its folder; the image then has the file's path. Missing files and addresses are rejects: nothing is
downloaded. A file listed twice with one label counts once; with two labels it is an error.

Files are not opened here. They are cut into shards as those of a folder: a changed file changes only its shard.
"""

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import SourceError, one_line
from pipeline.shard import Encoded, Survey
from pipeline.sources.folder import Entry, fault_of, read_files, survey_files
from pipeline.sources.labels import usual_labels
from pipeline.sources.source import DAMAGED, Source, is_picture_name, opened
from pipeline.sources.tables.delimited import (
    BLANKS,
    BOM,
    MISSING_VALUES,
    check_encoding,
    describe_columns,
    first_line,
    is_utf16,
    position_of,
    separators_of,
    split_fields,
)

_PATH_NAMES = frozenset(["path", "file", "filename", "filepath", "image", "img", "imagepath", "imagefile", "imgpath"])
_ADDRESS = r"^[A-Za-z][A-Za-z0-9+.-]*://"
_IS_ADDRESS = re.compile(_ADDRESS)
_ADDRESS_ADVICE = "Download it and list its path, or name it as the uri of a [[source]]."
# Only so many bytes of the first lines are inspected.
_MAX_LINE_BYTES = 2**16
# Bytes of a list, decompressed, and of the part of it that is searched for line ends at a time.
_MAX_BYTES, _SCAN_BYTES = 2**28, 2**24
# Rows that decide which column holds paths.
_SAMPLE_ROWS = 1_000
# The labels of fewer rows may be 0, 1, 2, ...
_MIN_ROWS_COUNTED = 20
# A header or row with so many of these names is a CSV of pixels: numbers, x0, r0c0, 1x1, pixel0.
_MIN_PIXEL_FIELDS = 16
_PIXEL_FIELD = re.compile(r"[-+.\d]+|\w?\d+(\w\d+)?|.*pi?x.*\d.*", re.IGNORECASE)
_SPLIT_NAMES = frozenset(["split", "subset", "partition", "fold", "role", "usage", "set"])
_DRIVE = re.compile(r"([A-Za-z]:)[\\/]")
# The names of the files of a folder, by their NFC form.
_NamesByForm = dict[str, list[str]]


class _Layout(NamedTuple):
    """Positions of the path and the label in a row, and whether the first row is a header."""

    path: int
    label: int | None
    header: bool


class _Table(NamedTuple):
    """A list as rows of text.

    Attributes:
        source: the source, for errors and keys of the recipe.
        names: fields of the first row.
        rows: the first rows below it.
    """

    source: Source
    names: Sequence[str]
    rows: pl.DataFrame


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a list by a header with a column of paths, or by two or more fields of which one names an image."""
    if path.is_dir() or is_utf16(head) or b"\0" in head.split(b"\n", 1)[0]:
        return False
    return _list_separator(head) is not None


def survey(source: Source) -> Survey:
    """Read size and time of every file in the list; see `FormModule`."""
    return survey_files(source, _entries(source))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield the wanted shards as names of files; see `FormModule`."""
    return read_files(source, _entries(source), wanted)


def note(source: Source) -> str:
    """Say that a column of splits is not read; see `FormModule`."""
    if source.part.split is not None or "://" in source.uri:
        return ""
    line = first_line(_read_content(source))
    names = split_fields(line, (separators_of(line) or [","])[0])
    found = next((name for name in names if _letters(name) in _SPLIT_NAMES), None)
    if found is None:
        return ""
    return (
        f"column '{found}' of the list is not read: all its files belong to split '{source.split}'. Write one list for "
        "each split to separate them."
    )


def _list_separator(data: bytes) -> str | None:
    """Find the separator with which the first lines look like a list; None if they do not."""
    line, below = (first_line(part) for part in _first_two_lines(data))
    for separator in separators_of(line):
        names, values = split_fields(line, separator), split_fields(below, separator)
        if len(names) < 2 or sum(bool(_PIXEL_FIELD.fullmatch(name)) for name in names) >= _MIN_PIXEL_FIELDS:  # noqa: PLR2004
            continue
        if any(_letters(name) in _PATH_NAMES or _is_image_name(name) for name in names):
            return separator
        if len(values) == len(names) and any(map(_is_image_name, values)):
            return separator
    # As in ImageNet's lists: the path, a space, the label.
    spaced = split_fields(line, " ")
    return " " if len(spaced) == 2 and _is_image_name(spaced[0]) and not _is_image_name(spaced[1]) else None  # noqa: PLR2004


def _first_two_lines(data: bytes) -> tuple[bytes, bytes]:
    first, _, rest = data[: 2 * _MAX_LINE_BYTES].removeprefix(BOM).lstrip(b"\r\n").partition(b"\n")
    return first, rest


def _is_image_name(value: str) -> bool:
    return ("." in value and is_picture_name(value)) or bool(_IS_ADDRESS.match(value))


def _entries(source: Source) -> list[Entry]:
    folder = os.fspath(source.path.parent)
    listings: dict[str, _NamesByForm] = {}
    found = [_stat_entry(folder, path, label, listings) for path, label in _read_list(source).rows()]
    if not source.part.outside:
        _check_inside(source, folder, found)
    found.sort(key=lambda entry: entry.path)
    return list(_without_repeats(source, found))


def _check_inside(source: Source, folder: str, entries: Sequence[Entry]) -> None:
    """Check that every file of a list that exists lies in the folder of the list, wherever links lead.

    Raises:
        SourceError: one does not.
    """
    inside, real = f"{os.path.realpath(folder)}{os.sep}", cache(os.path.realpath)
    for entry in entries:
        above, name = os.path.split(entry.name)
        # The folder is resolved once for all of its files.
        place = real(entry.name) if os.path.islink(entry.name) or name == ".." else f"{real(above)}{os.sep}{name}"  # noqa: PTH114
        if not place.startswith(inside) and os.path.lexists(entry.name):
            raise SourceError(
                f"{source.title}: {source.path} lists '{entry.path}', which is outside of the folder of the list. If "
                "you trust the list, add outside = true to its [[source]]."
            )


def _without_repeats(source: Source, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Drop entries that name a file again with another spelling of its path."""
    last: Entry | None = None
    for entry in entries:
        if last is None or entry.path != last.path:
            yield entry
        elif _comparable(entry.label) != _comparable(last.label):
            raise _two_labels_error(source, entry.path, last.label, entry.label)
        last = entry


def _comparable(label: str | None) -> str:
    return re.sub(r"^(\d+)\.0+$", r"\1", unicodedata.normalize("NFC", label or ""))


def _two_labels_error(source: Source, path: str, one: str | None, other: str | None) -> SourceError:
    return SourceError(
        f"{source.title}: {source.path} lists '{path}' with two labels, {one!r} and {other!r}. Remove one."
    )


def _stat_entry(folder: str, path: str, label: str | None, listings: dict[str, _NamesByForm]) -> Entry:
    if _IS_ADDRESS.match(path):
        return Entry(
            path,
            path,
            0,
            0,
            f"{path[:200]} is an address, and addresses in a list are not fetched. {_ADDRESS_ADVICE}",
            label,
        )
    tried: list[str] = []
    for spelling in _spellings(folder, path, listings):
        name = os.path.join(folder, spelling)  # noqa: PTH118 - a Path for each of a million files is slow
        try:
            found = os.stat(name)  # noqa: PTH116
        except PermissionError:  # the worker makes it a reject, and every build retries it
            return Entry(spelling, name, 0, 0, "", label)
        except (OSError, ValueError) as error:
            tried.append(_stat_fault(error, name, spelling))
            continue
        fault = "a folder" if stat.S_ISDIR(found.st_mode) else fault_of(found.st_mode)
        return Entry(spelling, name, found.st_size, found.st_mtime_ns, fault, label)
    return Entry(path, os.path.join(folder, path), 0, 0, _missing_detail(path, tried), label)  # noqa: PTH118


def _spellings(folder: str, path: str, listings: dict[str, _NamesByForm]) -> Iterator[str]:
    """Yield a path as it is, with slashes for backslashes, and as a file whose name has another Unicode form."""
    yield path
    with_slashes = re.sub(r"(^|/)(?:\.?/)+", r"\1", path.replace("\\", "/")) if "\\" in path else path
    if with_slashes != path:
        yield with_slashes
    if with_slashes.isascii():
        return
    found = _in_other_form(folder, with_slashes, listings)
    if found not in (None, with_slashes):
        yield found


def _in_other_form(folder: str, path: str, listings: dict[str, _NamesByForm]) -> str | None:
    """Find the only file whose path has the same NFC form; a part of the path that exists as it is comes first."""
    here, found = ("/" if path.startswith("/") else folder), list[str]()
    for part in path.split("/"):
        name = part
        if not os.path.lexists(os.path.join(here, part)):  # noqa: PTH118
            if here not in listings:
                listings[here] = _names_by_form(here)
            names = listings[here].get(unicodedata.normalize("NFC", part), [])
            if len(names) != 1:
                return None
            name = names[0]
        found.append(name)
        here = os.path.join(here, name)  # noqa: PTH118
    return "/".join(found)


def _names_by_form(folder: str) -> _NamesByForm:
    found: _NamesByForm = {}
    with suppress(OSError, ValueError):
        for name in os.listdir(folder):  # noqa: PTH208 - a Path for each of a million files is slow
            found.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return found


def _stat_fault(error: OSError | ValueError, name: str, spelling: str) -> str:
    """Explain why the status of a file cannot be read; "" if it does not exist."""
    if isinstance(error, ValueError):
        return "the path has a NUL character in it"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "a link that leads nowhere" if os.path.islink(name) else ""  # noqa: PTH114
    why = {errno.ELOOP: "a link that leads to itself", errno.ENAMETOOLONG: "the path is too long for this file system"}
    return why.get(error.errno or 0, f"{spelling[:200]} cannot be looked at ({error.strerror})")


def _missing_detail(path: str, tried: Sequence[str]) -> str:
    fault = next(filter(None, tried), "")
    if fault:
        return fault
    sought = path[:200] if "\\" not in path else f"{path[:200]}, also with / in place of every backslash,"
    forms = "" if path.isascii() else ", and of the names in its folder not exactly one has the same Unicode form"
    drive = f" {drive[1]} is a drive of another computer." if (drive := _DRIVE.match(path)) else ""
    return f"no such file: looked for {sought} from the folder of the list{forms}.{drive}"


def _read_list(source: Source) -> pl.DataFrame:
    """Read path and label of every file; each pair once, sorted by path and label."""
    data = _read_content(source)
    line = first_line(data)
    recipe_names = {name for name in (source.part.images, source.part.labels) if name}
    named = (
        separator for separator in separators_of(line) if not recipe_names.isdisjoint(split_fields(line, separator))
    )
    separator = next(named, None) or _list_separator(data) or separators_of(line)[0]
    try:
        frame = pl.read_csv(data, separator=separator, has_header=False, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"{source.title}: {source.path} cannot be read as a table ({str(error).splitlines()[0]}). Check its quotes "
            "and the number of columns in every row, and save it as UTF-8."
        ) from error
    frame = frame.select(pl.all().str.strip_chars(BLANKS).replace("", None))
    start = 1 + (frame.select(pl.any_horizontal(pl.all().is_not_null()).arg_max()).item() or 0)
    names = [value or "" for value in frame.row(start - 1)]
    if not any(names):
        raise _no_files_error(source)
    layout = _choose_layout(_Table(source, names, frame.slice(start, _SAMPLE_ROWS)))
    label = pl.lit(None, pl.String) if layout.label is None else pl.nth(layout.label)
    rows = frame.slice(start * layout.header).select(path=pl.nth(layout.path), label=label)
    rows = rows.with_columns(_normal_path(pl.col("path"))).with_row_index("row", 1)
    rows = rows.with_columns(pl.col("path").replace("", None), pl.col("label").replace(list(MISSING_VALUES), None))
    rows = rows.filter(pl.any_horizontal(pl.col("path", "label").is_not_null()))
    if rows.is_empty():
        raise _no_files_error(source)
    nameless = rows.filter(pl.col("path").is_null())
    if len(nameless):
        raise SourceError(
            f"{source.title}: row {nameless['row'][0]} of {source.path} names no file. Correct or remove the row."
        )
    return rows.select("path", "label").unique().sort("path", "label")


def _no_files_error(source: Source) -> SourceError:
    return SourceError(f"{source.title}: {source.path} lists no files. Check that it is the right file.")


def _read_content(source: Source) -> bytes:
    if "://" in source.uri:
        raise SourceError(
            f"{source.title}: a downloaded list cannot name files of this machine. Download it yourself, check it, and "
            "name it by its path."
        )
    try:
        with opened(source, source.path) as stream:
            data = stream.read(_MAX_BYTES + 1).removeprefix(BOM).lstrip(b"\r\n")
    except DAMAGED as error:
        raise SourceError(
            f"{source.title}: {source.path} is damaged or cut short ({one_line(error)}). Fetch it again."
        ) from error
    if len(data) >= _MAX_BYTES:
        raise SourceError(
            f"{source.title}: {source.path} has more than {_MAX_BYTES >> 20} MiB of text. Split the list into several."
        )
    if _longest_line(data) > _MAX_LINE_BYTES:
        raise SourceError(
            f"{source.title}: {source.path} has a line of more than {_MAX_LINE_BYTES >> 10} KiB, which no list of "
            "paths has. Check that it is the right file."
        )
    check_encoding(source, data)
    return data


def _longest_line(data: bytes) -> int:
    """Return the length of the longest line; the text is searched in parts."""
    longest = last = 0
    for start in range(0, len(data), _SCAN_BYTES):
        part = np.frombuffer(data, np.uint8, min(_SCAN_BYTES, len(data) - start), start)
        ends = np.flatnonzero(part == ord("\n")) + start
        if len(ends):
            longest = max(longest, int(np.diff(ends, prepend=last).max()))
            last = int(ends[-1])
    return max(longest, len(data) - last)


def _choose_layout(table: _Table) -> _Layout:
    part, names = table.source.part, table.names
    in_first_row = [column for column, name in enumerate(names) if _is_image_name(name)]
    below = [column for column in range(len(names)) if _holds_image_names(table, column)]
    called_paths = [column for column, name in enumerate(names) if _letters(name) in _PATH_NAMES]
    in_recipe = any(name in names for name in (part.images, part.labels) if name)
    header = in_recipe or (not in_first_row and bool(called_paths or (below and len(names) > 1)))
    label = None if not part.labels else _column_of_recipe(table, part.labels, "labels")
    if part.images:
        path = _column_of_recipe(table, part.images, "images")
    elif header:
        path = _choose_path(table, called_paths or below, label)
    else:
        path = _choose_path(table, [column for column in in_first_row if column in below] or in_first_row, label)
    if part.labels is None:
        label = _usual_label(table, path) if header else _only_label(table, path)
    return _Layout(path, label, header)


def _holds_image_names(table: _Table, column: int) -> bool:
    values = table.rows.to_series(column).drop_nulls()
    return len(values) > 0 and all(map(_is_image_name, values))


def _column_of_recipe(table: _Table, name: str, key: str) -> int:
    """Find the column that a key of the recipe names."""
    found = [column for column, its_name in enumerate(table.names) if its_name == name]
    if len(found) > 1:
        raise _unclear_error(
            table, f"{len(found)} columns are called '{name}'", f'{key} = "first", "last" or a position'
        )
    column = found[0] if found else position_of(name, len(table.names))
    if column is None:
        raise _unclear_error(table, f"no column '{name}'", key)
    return column


def _choose_path(table: _Table, candidates: Sequence[int], label: int | None) -> int:
    others = [column for column in range(len(table.names)) if column != label]
    found = [column for column in candidates if column != label]
    if not found and len(others) <= (1 if label is not None else 2):
        return others[0]
    if len(found) != 1:
        what = "several columns may be the paths" if found else "no column is called like paths or holds image names"
        raise _unclear_error(table, what, 'images = "COLUMN"')
    return found[0]


def _usual_label(table: _Table, path: int) -> int | None:
    others = [column for column in range(len(table.names)) if column != path]
    if not others:
        return None
    found = usual_labels([table.names[column] for column in others]) or usual_labels(
        [re.sub(r"\d", "", table.names[column]) for column in others]
    )
    if len(found) != 1:
        what = "several columns are" if found else "no column is"
        raise _unclear_error(table, f"{what} called like labels", 'labels = "COLUMN", or labels = "" for none,')
    return others[found[0]]


def _only_label(table: _Table, path: int) -> int | None:
    """Find the only column besides the paths of a list without a header that is neither empty nor counts the rows."""
    others = [column for column in range(len(table.names)) if column != path]
    if len(others) > 1:
        others = [column for column in others if table.names[column] and not _counts_rows(table, column, 3)]
    if len(others) == 1 and _counts_rows(table, others[0], _MIN_ROWS_COUNTED):
        what = "the only column besides the paths counts the rows"
        raise _unclear_error(table, what, 'labels = "first" or "last" if it holds labels, or labels = "" for none,')
    if len(others) > 1:
        what = f"{len(others)} columns besides the paths may be the labels"
        raise _unclear_error(table, what, 'labels = "first", "last" or its position from 0, or labels = "" for none,')
    return others[0] if others else None


def _counts_rows(table: _Table, column: int, fewest: int) -> bool:
    values = [table.names[column], *table.rows.to_series(column)]
    return (
        len(values) >= fewest
        and values[0] in ("0", "1")
        and values == [str(int(values[0]) + row) for row in range(len(values))]
    )


def _unclear_error(table: _Table, what: str, how: str) -> SourceError:
    return SourceError(
        f"{table.source.title}: {what} in {table.source.path}, whose first line is '{describe_columns(table.names)}'. "
        f"Name the column with {how} in the recipe."
    )


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _normal_path(path: pl.Expr) -> pl.Expr:
    """Remove `.` and empty parts from a path, so that a file has one path. An address stays as it is."""
    normal = path.str.replace_all(r"/(?:\.?/)+", "/").str.replace(r"^(?:\./)+", "")
    return pl.when(path.str.contains(_ADDRESS)).then(path).otherwise(normal)
