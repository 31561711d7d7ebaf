"""A list of files and their labels: one file a row, with or without a header.

Fields are separated by commas, semicolons, tabs or `|`, and may be quoted. The recipe's `images` and `labels` name the
columns: by the header, or as `"first"`, `"last"` or a position from 0; `labels = ""` says that there are no labels.
Otherwise:

- Paths are the column with a usual name (`path`, `file`, `filename`, `image`, ...), else the only column whose values
  end as picture files do.
- Labels are the column with a usual name (`label`, `class`, `category`, `target`, `y`, ...; see `label_names`). Without
  a header they are the only column beside the paths, on either side.
- The first row is a header if it holds a usual name of paths or a name from the recipe, or if its field in the column
  of paths is no picture file while those below are.

Where two columns could be meant, that is an error that names the key. An empty label or NaN is no label.

Paths start from the folder of the list. The owner of the machine wrote the list, so it may name files above that
folder, or by their whole path; a list that was fetched from an address may not name files of this machine at all. A
path that is not there is looked for with `/` in place of every backslash, and in other Unicode forms (NFC, NFD) among
the files of its folder; the image then has the path that the file has. Files that are not there, and addresses, are
rejects: addresses in a list are not fetched. A file listed twice with one label is one file; with two labels it is an
error.

Files are looked at but not opened, and cut into shards as those of a folder are: one that changes costs its shard.
"""

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import polars as pl

from pipeline.errors import SourceError
from pipeline.shard import Encoded, Survey
from pipeline.sources.folder import Entry, fault_of, read_files, survey_files
from pipeline.sources.labels import usual_labels
from pipeline.sources.source import DAMAGED, Source, is_picture_name, one_line, opened
from pipeline.sources.tables.delimited import (
    BLANKS,
    BOM,
    NO_VALUE,
    check_encoding,
    fields_of,
    first_line,
    is_utf16,
    listed,
    position_of,
    separators_of,
)

_PATH_NAMES = frozenset(["path", "file", "filename", "filepath", "image", "img", "imagepath", "imagefile", "imgpath"])
_ADDRESS = r"^[A-Za-z][A-Za-z0-9+.-]*://"
_IS_ADDRESS = re.compile(_ADDRESS)
_FETCH = "Download it and list its path, or name it as the uri of a [[source]]."
# Of the first lines, so much is looked at.
_LONGEST = 2**16
# Rows that tell which column holds paths.
_SAMPLE = 1_000
# Labels of fewer rows may well be 0, 1, 2, ...
_FEWEST_COUNTED = 20
# A header or row with so many of these holds pixels: numbers, x0, r0c0, 1x1, pixel0.
_PIXELS = 16
_PIXEL = re.compile(r"[-+.\d]+|\w?\d+(\w\d+)?|.*pi?x.*\d.*", re.IGNORECASE)
_SPLIT_NAMES = frozenset(["split", "subset", "partition", "fold", "role", "usage", "set"])
_DRIVE = re.compile(r"([A-Za-z]:)[\\/]")
# Listing of a folder: the names of its files by their NFC form.
_Listing = dict[str, list[str]]


class _Layout(NamedTuple):
    """Where in a row the path and the label stand, and whether the first row is a header."""

    path: int
    label: int | None
    header: bool


class _Table(NamedTuple):
    """A list as rows of text.

    Attributes:
        source: which errors name.
        names: fields of the first row.
        rows: the first rows behind it.
    """

    source: Source
    names: Sequence[str]
    rows: pl.DataFrame


def recognises(path: Path, head: bytes) -> bool:
    """Tell a list by a header with a column of paths, or by two fields or more of which one is a picture's name."""
    if path.is_dir() or is_utf16(head) or b"\0" in head.split(b"\n", 1)[0]:
        return False
    return _separator(head) is not None


def survey(source: Source) -> Survey:
    """Look at every file that is listed; see `pipeline.sources`."""
    return survey_files(source, _entries(source))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Hand out the wanted shards by file name; see `pipeline.sources`."""
    return read_files(source, _entries(source), wanted)


def note(source: Source) -> str:
    """Say that a column of splits is not read; see `pipeline.sources.forms`."""
    if source.part.split is not None or "://" in source.uri:
        return ""
    line = first_line(_content(source))
    names = fields_of(line, (separators_of(line) or [","])[0])
    found = next((name for name in names if _plain(name) in _SPLIT_NAMES), None)
    if found is None:
        return ""
    return (
        f"column '{found}' of the list is not read: all its files are of split '{source.split}'. Write a list for each "
        "split to tell them apart."
    )


def _separator(data: bytes) -> str | None:
    """Find the separator with which the first lines look like a list, or None where they do not."""
    line, below = (first_line(part) for part in _first_two(data))
    for separator in separators_of(line):
        names, values = fields_of(line, separator), fields_of(below, separator)
        if len(names) < 2 or sum(bool(_PIXEL.fullmatch(name)) for name in names) >= _PIXELS:  # noqa: PLR2004
            continue
        if any(_plain(name) in _PATH_NAMES or _is_picture(name) for name in names):
            return separator
        if len(values) == len(names) and any(map(_is_picture, values)):
            return separator
    # As ImageNet's lists have it: the path, a space, the label.
    spaced = fields_of(line, " ")
    return " " if len(spaced) == 2 and _is_picture(spaced[0]) and not _is_picture(spaced[1]) else None  # noqa: PLR2004


def _first_two(data: bytes) -> tuple[bytes, bytes]:
    first, _, rest = data[: 2 * _LONGEST].removeprefix(BOM).lstrip(b"\r\n").partition(b"\n")
    return first, rest


def _is_picture(value: str) -> bool:
    return ("." in value and is_picture_name(value)) or bool(_IS_ADDRESS.match(value))


def _entries(source: Source) -> list[Entry]:
    folder = os.fspath(source.path.parent)
    listings: dict[str, _Listing] = {}
    found = [_look(folder, path, label, listings) for path, label in _listed(source).rows()]
    found.sort(key=lambda entry: entry.path)
    return list(_once(source, found))


def _once(source: Source, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Drop entries that name a file again, in another spelling of its path."""
    last: Entry | None = None
    for entry in entries:
        if last is None or entry.path != last.path:
            yield entry
        elif _meant(entry.label) != _meant(last.label):
            raise _two_labels(source, entry.path, last.label, entry.label)
        last = entry


def _meant(label: str | None) -> str:
    return re.sub(r"^(\d+)\.0+$", r"\1", unicodedata.normalize("NFC", label or ""))


def _two_labels(source: Source, path: str, one: str | None, other: str | None) -> SourceError:
    return SourceError(
        f"{source.title}: {source.path} lists '{path}' with two labels, {one!r} and {other!r}. Take one out."
    )


def _look(folder: str, path: str, label: str | None, listings: dict[str, _Listing]) -> Entry:
    if _IS_ADDRESS.match(path):
        return Entry(
            path, path, 0, 0, f"{path[:200]} is an address, and addresses in a list are not fetched. {_FETCH}", label
        )
    tried: list[str] = []
    for spelled in _spellings(folder, path, listings):
        name = os.path.join(folder, spelled)  # noqa: PTH118 - a Path for each of a million files is slow
        try:
            found = os.stat(name)  # noqa: PTH116
        except PermissionError:  # the worker that cannot open it either makes it a reject, which is tried again
            return Entry(spelled, name, 0, 0, "", label)
        except (OSError, ValueError) as error:
            tried.append(_fault_of(error, name, spelled))
            continue
        fault = "a folder" if stat.S_ISDIR(found.st_mode) else fault_of(found.st_mode)
        return Entry(spelled, name, found.st_size, found.st_mtime_ns, fault, label)
    return Entry(path, os.path.join(folder, path), 0, 0, _not_found(path, tried), label)  # noqa: PTH118


def _spellings(folder: str, path: str, listings: dict[str, _Listing]) -> Iterator[str]:
    """Spell a path as the list has it, then with slashes, then as a file is called that differs in Unicode form."""
    yield path
    turned = re.sub(r"(^|/)(?:\.?/)+", r"\1", path.replace("\\", "/")) if "\\" in path else path
    if turned != path:
        yield turned
    if not turned.isascii() and (found := _in_other_form(folder, turned, listings)) not in (None, turned):
        yield found


def _in_other_form(folder: str, path: str, listings: dict[str, _Listing]) -> str | None:
    """Find the only file whose path has the same NFC form; at every step a name as the list has it comes first."""
    at, found = ("/" if path.startswith("/") else folder), list[str]()
    for part in path.split("/"):
        name = part
        if not os.path.lexists(os.path.join(at, part)):  # noqa: PTH118
            if at not in listings:
                listings[at] = _listing(at)
            names = listings[at].get(unicodedata.normalize("NFC", part), [])
            if len(names) != 1:
                return None
            name = names[0]
        found.append(name)
        at = os.path.join(at, name)  # noqa: PTH118
    return "/".join(found)


def _listing(folder: str) -> _Listing:
    found: _Listing = {}
    with suppress(OSError, ValueError):
        for name in os.listdir(folder):  # noqa: PTH208 - a Path for each of a million files is slow
            found.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return found


def _fault_of(error: OSError | ValueError, name: str, spelled: str) -> str:
    """Say why a file cannot be looked at; empty where there is none."""
    if isinstance(error, ValueError):
        return "the path has a NUL character in it"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "a link that leads nowhere" if os.path.islink(name) else ""  # noqa: PTH114
    why = {errno.ELOOP: "a link that leads to itself", errno.ENAMETOOLONG: "the path is too long for this file system"}
    return why.get(error.errno or 0, f"{spelled[:200]} cannot be looked at ({error.strerror})")


def _not_found(path: str, tried: Sequence[str]) -> str:
    fault = next(filter(None, tried), "")
    if fault:
        return fault
    sought = path[:200] if "\\" not in path else f"{path[:200]}, also with / in place of every backslash,"
    forms = "" if path.isascii() else ", and of the names in its folder not exactly one has the same Unicode form"
    drive = f" {drive[1]} is a drive of another computer." if (drive := _DRIVE.match(path)) else ""
    return f"no such file: looked for {sought} from the folder of the list{forms}.{drive}"


def _listed(source: Source) -> pl.DataFrame:
    """Read the list: path and label of every file, once, by path."""
    data = _content(source)
    line = first_line(data)
    asked = [name for name in (source.part.images, source.part.labels) if name]
    named = (separator for separator in separators_of(line) if not {*asked}.isdisjoint(fields_of(line, separator)))
    separator = next(named, None) or _separator(data) or separators_of(line)[0]
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
        raise _without_files(source)
    layout = _layout(_Table(source, names, frame.slice(start, _SAMPLE)))
    label = pl.lit(None, pl.String) if layout.label is None else pl.nth(layout.label)
    rows = frame.slice(start * layout.header).select(path=pl.nth(layout.path), label=label)
    rows = rows.with_columns(_shortest(pl.col("path"))).with_row_index("row", 1)
    rows = rows.with_columns(pl.col("path").replace("", None), pl.col("label").replace(list(NO_VALUE), None))
    rows = rows.filter(pl.any_horizontal(pl.col("path", "label").is_not_null()))
    if rows.is_empty():
        raise _without_files(source)
    nameless = rows.filter(pl.col("path").is_null())
    if len(nameless):
        raise SourceError(f"{source.title}: row {nameless['row'][0]} of {source.path} names no file. Mend it.")
    return rows.select("path", "label").unique().sort("path", "label")


def _without_files(source: Source) -> SourceError:
    return SourceError(f"{source.title}: {source.path} lists no files. Check that it is the right one.")


def _content(source: Source) -> bytes:
    if "://" in source.uri:
        raise SourceError(
            f"{source.title}: a list from elsewhere cannot name files of this machine. Fetch it yourself, look at it, "
            "and name it by its path."
        )
    try:
        with opened(source, source.path) as stream:
            data = stream.read().removeprefix(BOM).lstrip(b"\r\n")
    except DAMAGED as error:
        raise SourceError(f"{source.title}: {source.path} is damaged or cut short ({one_line(error)}).") from error
    check_encoding(source, data)
    return data


def _layout(table: _Table) -> _Layout:
    part, names = table.source.part, table.names
    first = [at for at, name in enumerate(names) if _is_picture(name)]
    below = [at for at in range(len(names)) if _holds_pictures(table, at)]
    called = [at for at, name in enumerate(names) if _plain(name) in _PATH_NAMES]
    asked = any(name in names for name in (part.images, part.labels) if name)
    header = asked or (not first and bool(called or (below and len(names) > 1)))
    label = None if not part.labels else _column(table, part.labels, "labels")
    if part.images:
        path = _column(table, part.images, "images")
    else:
        path = _path(table, (called or below) if header else ([at for at in first if at in below] or first), label)
    if part.labels is None:
        label = _usual_label(table, path) if header else _only_label(table, path)
    return _Layout(path, label, header)


def _holds_pictures(table: _Table, at: int) -> bool:
    values = table.rows.to_series(at).drop_nulls()
    return len(values) > 0 and all(map(_is_picture, values))


def _column(table: _Table, asked: str, key: str) -> int:
    """Find the column that the recipe names."""
    found = [at for at, name in enumerate(table.names) if name == asked]
    if len(found) > 1:
        raise _unclear(table, f"{len(found)} columns are called '{asked}'", f'{key} = "first", "last" or a position')
    at = found[0] if found else position_of(asked, len(table.names))
    if at is None:
        raise _unclear(table, f"no column '{asked}'", key)
    return at


def _path(table: _Table, candidates: Sequence[int], label: int | None) -> int:
    others = [at for at in range(len(table.names)) if at != label]
    found = [at for at in candidates if at != label]
    if not found and len(others) <= (1 if label is not None else 2):
        return others[0]
    if len(found) != 1:
        what = (
            "not one column but several may be the paths" if found else "no column is called like paths, or holds them,"
        )
        raise _unclear(table, what, 'images = "COLUMN"')
    return found[0]


def _usual_label(table: _Table, path: int) -> int | None:
    others = [at for at in range(len(table.names)) if at != path]
    if not others:
        return None
    found = usual_labels([table.names[at] for at in others]) or usual_labels(
        [re.sub(r"\d", "", table.names[at]) for at in others]
    )
    if len(found) != 1:
        what = "several columns are" if found else "no column is"
        raise _unclear(table, f"{what} called like labels", 'labels = "COLUMN", or labels = "" for none,')
    return others[found[0]]


def _only_label(table: _Table, path: int) -> int | None:
    """Find the only column beside the paths of a list without a header that is neither empty nor counts the rows."""
    others = [at for at in range(len(table.names)) if at != path]
    if len(others) > 1:
        others = [at for at in others if table.names[at] and not _counts_rows(table, at, 3)]
    if len(others) == 1 and _counts_rows(table, others[0], _FEWEST_COUNTED):
        what = "the only column beside the paths counts the rows"
        raise _unclear(table, what, 'labels = "first" or "last" if it holds labels, or labels = "" for none,')
    if len(others) > 1:
        what = f"{len(others)} columns beside the paths may be the labels"
        raise _unclear(table, what, 'labels = "first", "last" or its position from 0, or labels = "" for none,')
    return others[0] if others else None


def _counts_rows(table: _Table, at: int, fewest: int) -> bool:
    values = [table.names[at], *table.rows.to_series(at)]
    return (
        len(values) >= fewest
        and values[0] in ("0", "1")
        and values == [str(int(values[0]) + row) for row in range(len(values))]
    )


def _unclear(table: _Table, what: str, how: str) -> SourceError:
    return SourceError(
        f"{table.source.title}: {what} in {table.source.path}, whose first line is '{listed(table.names)}'. "
        f"Name the column with {how} in the recipe."
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _shortest(path: pl.Expr) -> pl.Expr:
    """Spell a path without the steps that lead nowhere: one file should have one name. An address stays as it is."""
    shortest = path.str.replace_all(r"/(?:\.?/)+", "/").str.replace(r"^(?:\./)+", "")
    return pl.when(path.str.contains(_ADDRESS)).then(path).otherwise(shortest)
