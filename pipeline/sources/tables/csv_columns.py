"""Choose the columns of pixels and of the label in a CSV of pixels, and whether its first line is a header.

`choose_layout` is the entry. With a header the names decide: usual names of labels, and numbered columns that make an
image (pixel0, pixel1, ...; 1x1, 1x2, ...; r0c0, r0c1, ...). Without a header the number of columns and the values
decide. If names or values allow two readings, the error names the key of the recipe that decides.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from pipeline.errors import SourceError
from pipeline.sources.labels import is_id, usual_labels
from pipeline.sources.source import Source
from pipeline.sources.tables.delimited import describe_columns, first_line, position_of, separators_of, split_fields
from pipeline.sources.tables.numbered_columns import (
    MIN_PIXELS,
    MIN_PIXELS_IN_GRID,
    PixelColumns,
    Shape,
    explain_no_series,
    find_pixel_series,
    image_shape,
    image_shapes,
    is_single_series,
)

MAX_PIXEL = 255

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DECIMAL = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?")
_POSITIONS = re.compile(r"(\d{1,9})\s*-\s*(\d{1,9})")
# A first line of consecutive numbers is compared with so many rows.
_ROWS_COMPARED = 1_000
# Fewer rows do not show which end holds labels.
_MIN_ROWS_FOR_END = 30
# No class has a larger share of the rows. The corner of an image has one value in at least so many of the rows.
_MAX_CLASS_SHARE, _MIN_CORNER_SHARE = 0.6, 0.9
_MAX_CLASSES = 100


class Layout(NamedTuple):
    """How to read the rows of a file.

    Attributes:
        columns: number of fields in a row.
        separator: character between two fields.
        label: position of the label in a row, or None.
        pixels: positions of the pixels in a row, in the order (height, width, channels).
        shape: (height, width, channels) of an image.
        header: whether the first line that is not blank is a header.
        is_certain: whether names or the recipe show that these are pixels; otherwise the values must show it.
    """

    columns: int
    separator: str
    label: int | None
    pixels: tuple[int, ...]
    shape: Shape
    header: bool
    is_certain: bool


class _EndColumn(NamedTuple):
    """What the first or the last column of a file holds.

    Attributes:
        position: its position.
        is_pixels: most values are whole numbers from 0 to 255.
        may_be_labels: the values may be labels.
        resembles_classes: the values are few small numbers, none of which prevails; pixels at a corner do not look so.
        resembles_pixels: the values are nearly always the same, or numbers with large gaps; labels do not look so.
    """

    position: int
    is_pixels: bool
    may_be_labels: bool
    resembles_classes: bool = False
    resembles_pixels: bool = False


class _Table(NamedTuple):
    """The first line of a file that is not blank, and the rows below it.

    Attributes:
        source: the source, for errors and keys of the recipe.
        names: fields of the first line.
        separator: character between two fields.
        first: the first line.
        rows: the lines below that are not blank.
    """

    source: Source
    names: list[str]
    separator: str
    first: bytes
    rows: Sequence[bytes]


def choose_layout(source: Source, lines: Sequence[bytes]) -> Layout:
    """Decide how to read the rows of a file.

    Args:
        source: its `labels` and `images` name the columns; its size is the first shape that is tried.
        lines: the first lines of the file, the first of them not blank.

    Raises:
        SourceError: the columns are not pixels, or it is not clear which are, which column is the label, or whether
            the first line is a header. The message names the columns and the key of the recipe that decides.
    """
    line = first_line(lines[0])
    separator = separators_of(line)[0]
    rows = [row for row in lines[1:] if row.strip()]
    table = _Table(source, split_fields(line, separator), separator, lines[0], rows)
    header = _is_header(table)
    if header:
        label, pixels = _columns_with_header(table)
    else:
        label, pixels = _columns_without_header(table._replace(rows=[table.first, *rows]))
    return Layout(len(table.names), separator, label, pixels.positions, pixels.shape, header, pixels.is_certain)


def not_pixels_error(source: Source, names: Sequence[str], why: str) -> SourceError:
    """Make the error for a table that is not a CSV of pixels: why, its columns, and the keys that would help."""
    return SourceError(
        f"{source.title}: {source.path} is not a CSV of pixels: {why}. It has {len(names)} columns: "
        f"{describe_columns(names)}. Expected one image a row: numbered columns such as label,pixel0,pixel1,... or, "
        "without a header, only numbers, as many as an image has pixels (64 or more in a square, or set decode.size). "
        'To name the columns, set images = "PREFIX" (or "FIRST-LAST", positions from 0) for the pixels and '
        'labels = "COLUMN" for the label, or labels = "" for none. If it is a list of image files, set '
        'format = "list", images = "COLUMN" for their paths and labels = "COLUMN".'
    )


def is_pixel(value: str) -> bool:
    """Return whether a field is a whole number from 0 to 255, also written as 255.0 or 2.55e+02."""
    if value.isascii() and value.isdecimal():  # Python refuses to read a number of thousands of digits
        return int(value.lstrip("0")[:4] or "0") <= MAX_PIXEL
    number = float(value) if _DECIMAL.fullmatch(value) else math.inf
    return 0 <= number <= MAX_PIXEL and number.is_integer()


# Is the first line a header?


def _is_header(table: _Table) -> bool:
    """Return whether the first line is a header: a row holds numbers, a header only if they number the columns."""
    names = table.names
    texts = [position for position, name in enumerate(names) if not _NUMBER.fullmatch(name)]
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    if not numbers:
        return any(names)
    if len(numbers) > MAX_PIXEL + 1 and len(set(numbers)) == len(numbers):
        return True  # there are fewer different pixels
    has_usual_name = any(names[position] and _is_usual_name(table, names[position]) for position in texts)
    if not _counts_up(numbers):
        # Rows and columns may be written 1.1, 1.2, ...
        return has_usual_name and len(set(numbers)) == len(numbers) > 2 * sum(map(is_pixel, numbers))
    if not table.rows:
        return has_usual_name
    return _is_numbered_header(table, texts, numbers)


def _is_numbered_header(table: _Table, texts: Sequence[int], numbers: Sequence[str]) -> bool:
    """Return whether a first line with the numbers 0, 1, 2, ... is a header. An image could hold them too."""
    names = table.names
    rows = [split_fields(first_line(row), table.separator) for row in table.rows[:_ROWS_COMPARED]]
    if any(names[position] in {row[position] for row in rows if len(row) == len(names)} for position in texts):
        return False  # its text occurs in a row below, so it is a label
    if any(_is_usual_name(table, names[position]) for position in texts) or _has_own_style(table, numbers[0], rows):
        return True
    if not any(list(image_shapes(len(numbers) - less, table.source.size)) for less in (0, 1)):
        return False
    raise SourceError(
        f"{table.source.title}: the first line of {table.source.path} counts from {numbers[0]} to {numbers[-1]}: it "
        "may be a header or an image. If it is a header, write names such as pixel0,pixel1,... in it; otherwise add a "
        "header."
    )


def _counts_up(numbers: Sequence[str]) -> bool:
    """Return whether numbers count from 0 or 1, by value or as sorted text; pandas names columns so."""
    if not all(number.isdecimal() for number in numbers) or len(numbers) < 2:  # noqa: PLR2004 - one does not count
        return False
    start = numbers[0]
    counted = [str(number) for number in range(int(start[:1]), int(start[:1]) + len(numbers))]
    return start in ("0", "1") and list(numbers) in (counted, sorted(counted))


def _is_usual_name(table: _Table, name: str) -> bool:
    part = table.source.part
    return is_id(name) or bool(usual_labels([name])) or (bool(name) and name in (part.labels, part.images))


def _has_own_style(table: _Table, number: str, rows: Sequence[Sequence[str]]) -> bool:
    """Return whether only the first line has quotes, or only it has whole numbers without .0."""
    if f'"{number}"'.encode() in table.first:
        return not any(b'"' in row for row in table.rows)
    return all(any(_DECIMAL.fullmatch(value) for value in row) for row in rows)


# Columns of a file with a header: the names decide.


def _columns_with_header(table: _Table) -> tuple[int | None, PixelColumns]:
    source, names = table.source, table.names
    label = _label_in_header(table)
    if source.part.images:
        pixels = _pixels_of_recipe(table, label)
    else:
        pixels, label = _pixels_by_name(table, label)
    used = {label, *pixels.positions}
    unknown = [name for position, name in enumerate(names) if position not in used and not is_id(name)]
    if unknown and source.part.labels is None and (label is None or not source.part.images):
        label_name = "a usual name of a label" if label is None else f"the label '{names[label]}'"
        raise SourceError(
            f"{source.title}: {source.path} has columns that are neither pixels nor {label_name} nor a usual name of "
            f'an id: {describe_columns(unknown)}. Name the column of the label with labels = "COLUMN" in the recipe, '
            'or set labels = "" for none. The other columns are then ignored.'
        )
    return label, pixels


def _label_in_header(table: _Table) -> int | None:
    """Find the label in a header, by the recipe or a usual name."""
    key, names = table.source.part.labels, table.names
    if key == "":
        return None
    found = usual_labels(names) if key is None else [position for position, name in enumerate(names) if name == key]
    if len(found) > 1:
        columns = describe_columns([names[position] for position in found])
        _raise_unclear_label(table, f"columns {columns} may all be the label")
    if not found and key is not None:
        return _label_position(table, key)
    return found[0] if found else None


def _label_position(table: _Table, key: str) -> int:
    position = position_of(key, len(table.names))
    if position is None:
        _raise_unclear_label(table, f"there is no column '{key}'")
    return position


def _raise_unclear_label(table: _Table, what: str) -> NoReturn:
    raise SourceError(
        f"{table.source.title}: {what} in {table.source.path}, whose columns are {describe_columns(table.names)}. Name "
        'the column of the label in the recipe with labels = "COLUMN" as the header has it, or labels = "first", '
        '"last" or its position from 0, or set labels = "" for none.'
    )


def _pixels_of_recipe(table: _Table, label: int | None) -> PixelColumns:
    """Find the pixels that the recipe's `images` names: by a prefix of names, or by positions."""
    source, names, key = table.source, table.names, table.source.part.images or ""
    found = [position for position, name in enumerate(names) if name.startswith(key) and position != label]
    if not found and (ends := _POSITIONS.fullmatch(key)):
        found = [position for position in range(int(ends[1]), min(int(ends[2]) + 1, len(names))) if position != label]
        if int(ends[2]) >= len(names):
            raise not_pixels_error(source, names, f'images = "{key}" goes beyond the last column, {len(names) - 1}')
    if not found:
        raise not_pixels_error(source, names, f'no column name begins with images = "{key}"')
    series = find_pixel_series(names, found, source.size, from_recipe=True)
    if len(series) == 1:
        return series[0]
    shape = next(image_shapes(len(found), source.size), None)
    if shape is None:
        raise not_pixels_error(source, names, f'images = "{key}" names {len(found)} columns, which make no image')
    return PixelColumns(tuple(found), shape)


def _pixels_by_name(table: _Table, label: int | None) -> tuple[PixelColumns, int | None]:
    """Find the only numbered columns that make an image; one column too many is the label at one end."""
    source, names = table.source, table.names
    others = [position for position in range(len(names)) if position != label]
    series = find_pixel_series(names, others, source.size)
    series = [pixels for pixels in series if pixels.is_certain] or series
    if len(series) > 1:
        starts = describe_columns([names[pixels.positions[0]] for pixels in series])
        why = f"several series of columns may be the pixels, those that begin with {starts}"
        raise not_pixels_error(source, names, why)
    if series:
        return series[0], label
    rest = [position for position in others if not is_id(names[position])]
    if label is None and source.part.labels is None and is_single_series(names, rest):
        shape = next(image_shapes(len(rest) - 1, source.size), None)
        if shape and math.prod(shape) >= MIN_PIXELS:
            label = _label_at_end(table, _end_column(table, rest[0]), _end_column(table, rest[-1]), shape)
            positions = tuple(position for position in rest if position != label)
            return PixelColumns(positions, shape, is_certain=False), label
    raise not_pixels_error(source, names, explain_no_series(names, others, source.size))


# Columns of a file without a header: the recipe, the number of columns and the values decide.


def _columns_without_header(table: _Table) -> tuple[int | None, PixelColumns]:
    source, part = table.source, table.source.part
    columns = len(table.names)
    if columns > 1 and not any(_column_values(table, columns - 1)):  # a separator behind the last value
        columns -= 1
    label = None if not part.labels else _label_position(table._replace(names=table.names[:columns]), part.labels)
    if part.images:
        pixels = _pixels_of_recipe(table, label)
        if part.labels is None and len(pixels.positions) < columns:
            _raise_unclear_label(table, "it is not clear which column is the label")
        return label, pixels
    if part.labels is None:
        return _columns_by_values(table, columns)
    others = tuple(position for position in range(columns) if position != label)
    shape = next(image_shapes(len(others), source.size), None)
    if shape is None or (math.prod(shape) < MIN_PIXELS_IN_GRID and shape[:2] != source.size):
        besides = f'besides the label, labels = "{part.labels}", ' if label is not None else ""
        raise not_pixels_error(source, table.names, f"it has {besides}{len(others)} columns, which make no image")
    return label, PixelColumns(others, shape, is_certain=False)


def _columns_by_values(table: _Table, columns: int) -> tuple[int | None, PixelColumns]:
    """Find the shape, and the label, if any, at one end of the rows: first by the recipe's size, then as a square."""
    first, last = _end_column(table, 0), _end_column(table, columns - 1)
    for size in dict.fromkeys((table.source.size, None)):
        for less in (0, 1):
            shape = image_shape(size, columns - less)
            if shape is None or (size is None and math.prod(shape) < MIN_PIXELS):
                continue
            if less:
                label = _label_at_end(table, first, last, shape)
                positions = tuple(position for position in range(columns) if position != label)
                return label, PixelColumns(positions, shape, is_certain=False)
            if first.is_pixels and last.is_pixels:
                return None, PixelColumns(tuple(range(columns)), shape, is_certain=False)
    raise not_pixels_error(table.source, table.names, _explain_no_image(table, columns, first, last))


def _explain_no_image(table: _Table, columns: int, first: _EndColumn, last: _EndColumn) -> str:
    fitting = [number for number in (columns, columns - 1) if list(image_shapes(number, table.source.size))]
    if not fitting:
        return f"it has no header, and {columns} columns make no image, with or without a label"
    if columns in fitting and not (first.is_pixels and last.is_pixels):
        value, end = (table.names[-1], "last") if first.is_pixels else (table.names[0], "first")
        return f"it has no header, and '{value[:20]}' in its {end} column is not a pixel"
    return f"it has no header, and {columns} columns are too few to be taken for pixels"


def _label_at_end(table: _Table, first: _EndColumn, last: _EndColumn, shape: Shape) -> int:
    inner = (_end_column(table, first.position + 1), _end_column(table, last.position - 1))
    label, why = _choose_label_end(first, last, inner)
    if label is None:
        raise SourceError(
            f"{table.source.title}: {why} in {table.source.path}, whose other columns make an image of {shape[0]}x"
            f'{shape[1]}. Name it in the recipe with labels = "first" or labels = "last", or its position from 0. If '
            f'there is no label, name the pixels with images = "{first.position + 1}-{last.position}" and set '
            'labels = "".'
        )
    return label


def _choose_label_end(
    first: _EndColumn, last: _EndColumn, inner: tuple[_EndColumn, _EndColumn]
) -> tuple[int | None, str]:
    """Choose which of two ends is the label.

    Text, or numbers that no pixel has, are labels. Otherwise one end must look like classes, and both the column next
    to it and the other end like corners of an image. If only some of this holds, nothing is decided.

    Args:
        first: the first column.
        last: the last column.
        inner: the columns next to them.

    Returns:
        The position of the label and ""; or None and the reason.
    """
    if first.is_pixels != last.is_pixels:
        end = last if first.is_pixels else first
        if end.may_be_labels:
            return end.position, ""
        what = "neither pixels nor labels (fractions, row numbers or too many different values)"
        return None, f"column {end.position} holds {what}"
    if not first.is_pixels:
        return None, f"columns {first.position} and {last.position} both hold values that are not pixels"
    for end, neighbour, other in ((first, inner[0], last), (last, inner[1], first)):
        if end.resembles_classes and neighbour.resembles_pixels and other.resembles_pixels:
            return end.position, ""
    return None, "the label may be the first or the last column"


def _end_column(table: _Table, position: int) -> _EndColumn:
    """Describe the values of the column at a position near one end of the rows."""
    values = _column_values(table, position)
    counts = Counter(values)
    rows, distinct = len(values), len(counts)
    pixels = {value: count for value, count in counts.items() if is_pixel(value)}
    if rows and sum(pixels.values()) * 2 <= rows:
        fractions = sum(count for value, count in counts.items() if _is_fraction(value))
        labels = fractions * 2 <= rows and not _numbers_the_rows(values) and distinct <= max(_MAX_CLASSES, rows // 2)
        return _EndColumn(position, is_pixels=False, may_be_labels=labels)
    if rows < _MIN_ROWS_FOR_END or _numbers_the_rows(values):
        return _EndColumn(position, is_pixels=True, may_be_labels=True)
    share, largest = max(counts.values()) / rows, max(map(float, pixels))
    is_few = distinct <= _MAX_CLASSES and largest <= max(9, 2 * distinct)
    has_gaps = largest > max(_MAX_CLASSES, 2 * distinct) or (distinct > _MAX_CLASSES and largest >= MAX_PIXEL - 5)
    return _EndColumn(
        position,
        is_pixels=True,
        may_be_labels=True,
        resembles_classes=is_few and distinct > 1 and share <= _MAX_CLASS_SHARE,
        resembles_pixels=has_gaps or share >= _MIN_CORNER_SHARE,
    )


def _column_values(table: _Table, position: int) -> list[str]:
    """List the values of a column in the rows that have every field."""
    separator, columns = table.separator.encode(), len(table.names)
    found = []
    for row in table.rows:
        if b'"' in row:
            fields = split_fields(first_line(row), table.separator)
            found += fields[position : position + 1] if len(fields) == columns else []
        elif row.count(separator) == columns - 1:
            # A row is long and the column is near one of its ends: split only as far as needed.
            if position * 2 < columns:
                field = row.split(separator, position + 1)[position]
            else:
                field = row.rsplit(separator, columns - position)[1]
            found.append(field.strip().decode("utf-8", "replace"))
    return found


def _is_fraction(value: str) -> bool:
    return bool(_NUMBER.fullmatch(value)) and not float(value).is_integer()


def _numbers_the_rows(values: Sequence[str]) -> bool:
    """Return whether values count up by one, from any number."""
    if len(values) < 3 or not all(_NUMBER.fullmatch(value) for value in values):  # noqa: PLR2004 - two do not count
        return False
    start = float(values[0])
    return all(float(value) == start + number for number, value in enumerate(values))
