"""Which columns of a CSV are pixels, which is the label, and whether the first line is a header.

Nothing is guessed: where the names of a header, or the values of a file without one, leave two readings open, the
error names the key of the recipe that decides.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from pipeline.errors import SourceError
from pipeline.sources.csv_label import LARGEST, NUMBER, WITH_POINT, End, choose_end, end_of, is_pixel
from pipeline.sources.csv_series import (
    FEWEST,
    FEWEST_IN_GRID,
    Pixels,
    Shape,
    fit,
    series_of,
    shapes_of,
    single_series,
    why_no_series,
)
from pipeline.sources.delimited import fields_of, first_line, listed, position_of, separators_of
from pipeline.sources.label_names import is_id, usual_labels
from pipeline.sources.source import Source

_RANGE = re.compile(r"(\d{1,9})\s*-\s*(\d{1,9})")
# A first line that counts up is compared with so many rows.
_COMPARED = 1_000


class Layout(NamedTuple):
    """How the rows of a file are to be read.

    Attributes:
        columns: fields in a row.
        separator: character between two fields.
        label: position of the label in a row, or None.
        pixels: positions of the pixels in a row, in the order (height, width, channels).
        shape: height, width and channels of a picture.
        header: whether the first line that is not blank is a header.
        sure: whether names or the recipe say that these are pixels; otherwise the values must show it.
    """

    columns: int
    separator: str
    label: int | None
    pixels: tuple[int, ...]
    shape: Shape
    header: bool
    sure: bool


class _Table(NamedTuple):
    """The first line of a file that is not blank, split, and the lines behind it as they are."""

    source: Source
    names: list[str]
    separator: str
    first: bytes
    rows: Sequence[bytes]


def choose_layout(source: Source, lines: Sequence[bytes]) -> Layout:
    """Find out how the rows of a file are to be read.

    Args:
        source: its `labels` and `images` name the columns, and its size is tried first.
        lines: the first lines of the file, the first of them not blank.

    Raises:
        SourceError: naming the columns and the key of the recipe that decides: they are no pixels, or it is not clear
            which are, which column is the label, or whether the first line is a header.
    """
    line = first_line(lines[0])
    separator = separators_of(line)[0]
    rows = [row for row in lines[1:] if row.strip()]
    table = _Table(source, fields_of(line, separator), separator, lines[0], rows)
    header = _is_header(table)
    label, pixels = _by_names(table) if header else _by_positions(table._replace(rows=[table.first, *rows]))
    return Layout(len(table.names), separator, label, *pixels[:2], header, pixels.sure)


def no_pixels(source: Source, names: Sequence[str], why: str) -> SourceError:
    """Make the error that says what a table is not, what it has, and which keys or forms would help."""
    return SourceError(
        f"{source.title}: {source.path} is no CSV of pixels: {why}. It has {len(names)} columns: {listed(names)}. "
        "Expected one picture a row: numbered columns such as label,pixel0,pixel1,... or, without a header, only "
        "numbers, as many as a picture has pixels (64 or more in a square, or set decode.size). To name the columns, "
        'set images = "PREFIX" (or "FIRST-LAST", positions from 0) for the pixels and labels = "COLUMN" for the label, '
        'or labels = "" for none. If it is a list of image files, set format = "list", images = "COLUMN" for their '
        'paths and labels = "COLUMN".'
    )


def _is_header(table: _Table) -> bool:
    """Tell a header from a row: a row holds numbers, and a header only where they number the columns."""
    names = table.names
    texts = [at for at, name in enumerate(names) if not NUMBER.fullmatch(name)]
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    if not numbers:
        return any(names)
    if len(numbers) > LARGEST + 1 and len(set(numbers)) == len(numbers):
        return True  # there are not so many different pixels
    known = any(names[at] and _is_known(table, names[at]) for at in texts)
    if not _counts_up(numbers):
        # Rows and columns may be written 1.1, 1.2, ...
        return known and len(set(numbers)) == len(numbers) > 2 * sum(map(is_pixel, numbers))
    if not table.rows:
        return known
    return _is_named(table, texts, numbers)


def _is_named(table: _Table, texts: Sequence[int], numbers: Sequence[str]) -> bool:
    """Tell a header from a row where both could hold the same numbers, 0, 1, 2, ..."""
    names = table.names
    others = [fields_of(first_line(row), table.separator) for row in table.rows[:_COMPARED]]
    if any(names[at] in {row[at] for row in others if len(row) == len(names)} for at in texts):
        return False  # the first label comes again, so it is one
    if any(_is_known(table, names[at]) for at in texts) or _is_styled_alone(table, numbers[0], others):
        return True
    if not any(list(shapes_of(len(numbers) - less, table.source.size)) for less in (0, 1)):
        return False
    raise SourceError(
        f"{table.source.title}: the first line of {table.source.path} counts from {numbers[0]} to {numbers[-1]}: it is "
        "a header or a picture. If it is a header, write names such as pixel0,pixel1,... in it; otherwise add one."
    )


def _counts_up(numbers: Sequence[str]) -> bool:
    """Tell whether numbers count from 0 or 1 on, by value or as sorted words; pandas names columns so."""
    if not all(number.isdecimal() for number in numbers) or len(numbers) < 2:  # noqa: PLR2004 - one counts nothing
        return False
    start = numbers[0]
    counted = [str(number) for number in range(int(start[:1]), int(start[:1]) + len(numbers))]
    return start in ("0", "1") and list(numbers) in (counted, sorted(counted))


def _is_known(table: _Table, name: str) -> bool:
    part = table.source.part
    return is_id(name) or bool(usual_labels([name])) or (bool(name) and name in (part.labels, part.images))


def _is_styled_alone(table: _Table, number: str, others: Sequence[Sequence[str]]) -> bool:
    """Tell whether only the first line has quotes, or only it has whole numbers without .0 behind them."""
    if f'"{number}"'.encode() in table.first:
        return not any(b'"' in row for row in table.rows)
    return all(any(WITH_POINT.fullmatch(value) for value in row) for row in others)


def _by_names(table: _Table) -> tuple[int | None, Pixels]:
    """Find label and pixels by the header and the recipe."""
    source, names = table.source, table.names
    label = _named_label(table)
    if source.part.images:
        pixels = _asked_pixels(table, label)
    else:
        pixels, label = _numbered_pixels(table, label)
    known = {label, *pixels.positions}
    odd = [name for at, name in enumerate(names) if at not in known and not is_id(name)]
    if odd and source.part.labels is None and (label is None or not source.part.images):
        raise SourceError(
            f"{source.title}: {source.path} has columns that are neither pixels nor {_label_named(names, label)} nor a "
            f'usual name of an id: {listed(odd)}. Name the column of the label with labels = "COLUMN" in the recipe, '
            'or none with labels = "": the others are then left out.'
        )
    return label, pixels


def _label_named(names: Sequence[str], label: int | None) -> str:
    return "a usual name of a label" if label is None else f"the label '{names[label]}'"


def _named_label(table: _Table) -> int | None:
    """Find the label in a header, by the recipe or a usual name."""
    asked, names = table.source.part.labels, table.names
    if asked == "":
        return None
    found = usual_labels(names) if asked is None else [at for at, name in enumerate(names) if name == asked]
    if len(found) > 1:
        _raise_unclear(table, f"columns {listed([names[at] for at in found])} may all be the label")
    if not found and asked is not None:
        return _position(table, asked)
    return found[0] if found else None


def _position(table: _Table, asked: str) -> int:
    found = position_of(asked, len(table.names))
    if found is None:
        _raise_unclear(table, f"there is no column '{asked}'")
    return found


def _raise_unclear(table: _Table, what: str) -> NoReturn:
    raise SourceError(
        f"{table.source.title}: {what} in {table.source.path}, whose columns are {listed(table.names)}. Name the "
        'column of the label in the recipe with labels = "COLUMN" as the header has it, or labels = "first", "last" or '
        'its position from 0, or labels = "" for none.'
    )


def _asked_pixels(table: _Table, label: int | None) -> Pixels:
    """Find the pixels that the recipe's `images` names: by a prefix of names, or by positions."""
    source, names, asked = table.source, table.names, table.source.part.images or ""
    where = [at for at, name in enumerate(names) if name.startswith(asked) and at != label]
    if not where and (ends := _RANGE.fullmatch(asked)):
        where = [at for at in range(int(ends[1]), min(int(ends[2]) + 1, len(names))) if at != label]
        if int(ends[2]) >= len(names):
            raise no_pixels(source, names, f'images = "{asked}" goes beyond the last column, {len(names) - 1}')
    if not where:
        raise no_pixels(source, names, f'no column is called as images = "{asked}" has it')
    series = series_of(names, where, source.size, asked=True)
    if len(series) == 1:
        return series[0]
    shape = next(shapes_of(len(where), source.size), None)
    if shape is None:
        raise no_pixels(source, names, f'images = "{asked}" names {len(where)} columns, which make no picture')
    return Pixels(tuple(where), shape)


def _numbered_pixels(table: _Table, label: int | None) -> tuple[Pixels, int | None]:
    """Find the only numbered columns that make a picture; one more than that is the label at one end of them."""
    source, names = table.source, table.names
    where = [at for at in range(len(names)) if at != label]
    found = series_of(names, where, source.size)
    found = [pixels for pixels in found if pixels.sure] or found
    if len(found) > 1:
        starts = listed([names[pixels.positions[0]] for pixels in found])
        raise no_pixels(source, names, f"several series of columns may be the pixels, those that begin with {starts}")
    if found:
        return found[0], label
    rest = [at for at in where if not is_id(names[at])]
    if label is None and source.part.labels is None and single_series(names, rest):
        shape = next(shapes_of(len(rest) - 1, source.size), None)
        if shape and math.prod(shape) >= FEWEST:
            label = _label_end(table, _end(table, rest[0]), _end(table, rest[-1]), shape)
            return Pixels(tuple(at for at in rest if at != label), shape, sure=False), label
    raise no_pixels(source, names, why_no_series(names, where, source.size))


def _by_positions(table: _Table) -> tuple[int | None, Pixels]:
    """Find label and pixels of a file without a header: by the recipe, the number of columns, and the values."""
    source, part = table.source, table.source.part
    columns = len(table.names)
    if columns > 1 and not any(_values(table, columns - 1)):  # a separator behind the last value
        columns -= 1
    asked = None if not part.labels else _position(table._replace(names=table.names[:columns]), part.labels)
    if part.images:
        pixels = _asked_pixels(table, asked)
        if part.labels is None and len(pixels.positions) < columns:
            _raise_unclear(table, "it is not clear which column is the label")
        return asked, pixels
    if part.labels is None:
        return _by_values(table, columns)
    where = tuple(at for at in range(columns) if at != asked)
    shape = next(shapes_of(len(where), source.size), None)
    if shape is None or (math.prod(shape) < FEWEST_IN_GRID and shape[:2] != source.size):
        beside = f'beside the label, labels = "{part.labels}", ' if asked is not None else ""
        raise no_pixels(source, table.names, f"it has {beside}{len(where)} columns, which make no picture")
    return asked, Pixels(where, shape, sure=False)


def _by_values(table: _Table, columns: int) -> tuple[int | None, Pixels]:
    """Find the label, if any, at one end of the rows, and the shape: first as the recipe's size has it, then square."""
    first, last = _end(table, 0), _end(table, columns - 1)
    for size in dict.fromkeys((table.source.size, None)):
        for less in (0, 1):
            shape = fit(size, columns - less)
            if shape is None or (size is None and math.prod(shape) < FEWEST):
                continue
            if less:
                label = _label_end(table, first, last, shape)
                return label, Pixels(tuple(at for at in range(columns) if at != label), shape, sure=False)
            if first.pixels and last.pixels:
                return None, Pixels(tuple(range(columns)), shape, sure=False)
    raise no_pixels(table.source, table.names, _why_no_picture(table, columns, first.pixels, last.pixels))


def _why_no_picture(table: _Table, columns: int, *ends: bool) -> str:
    fits = [number for number in (columns, columns - 1) if list(shapes_of(number, table.source.size))]
    if not fits:
        return f"it has no header, and {columns} columns make no picture, with or without a label"
    if columns in fits and not all(ends):
        value = table.names[0 if not ends[0] else -1]
        return f"it has no header, and '{value[:20]}' in its {'last' if ends[0] else 'first'} column is no pixel"
    return f"it has no header, and {columns} columns are too few to be taken for pixels"


def _label_end(table: _Table, first: End, last: End, shape: Shape) -> int:
    label, why = choose_end(first, last, (_end(table, first.at + 1), _end(table, last.at - 1)))
    if label is None:
        raise SourceError(
            f"{table.source.title}: {why} in {table.source.path}, whose other columns make a picture of {shape[0]}x"
            f'{shape[1]}. Name it in the recipe with labels = "first" or labels = "last", or its position from 0; if '
            f'there is no label, name the pixels with images = "{first.at + 1}-{last.at}" and set labels = "".'
        )
    return label


def _end(table: _Table, at: int) -> End:
    return end_of(at, _values(table, at))


def _values(table: _Table, at: int) -> list[str]:
    """List the values of a column in the rows that are whole."""
    separator, columns = table.separator.encode(), len(table.names)
    found = []
    for row in table.rows:
        if b'"' in row:
            fields = fields_of(first_line(row), table.separator)
            found += fields[at : at + 1] if len(fields) == columns else []
        elif row.count(separator) == columns - 1:
            # A row is long, and the column in question stands near one of its ends.
            parts = row.split(separator, at + 1)[at:] if at * 2 < columns else row.rsplit(separator, columns - at)[1:]
            found.append(parts[0].strip().decode("utf-8", "replace"))
    return found
