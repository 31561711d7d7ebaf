"""Which columns of a CSV are pixels, which is the label, and whether the first line is a header.

Nothing is guessed: where the names of a header, or the values of a file without one, leave two readings open, the
error names the key of the recipe that decides.

Which end of the rows of a CSV without a header holds the label: the values decide, or nothing does.

Numbered columns of a CSV and the pictures that they make: pixel0, pixel1, ...; 1x1, 1x2, ...; r0c0, r0c1, ...
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

from pipeline.errors import SourceError
from pipeline.sources.labels import is_id, usual_labels
from pipeline.sources.source import Source
from pipeline.sources.tables.delimited import fields_of, first_line, listed, position_of, separators_of

LARGEST = 255
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
WITH_POINT = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?")
# Fewer rows do not show which end holds labels.
_FEWEST_ROWS = 30
# No class has a larger share of the rows; the corner of a picture has one value in so many of them.
_BALANCED, _PREVAILING = 0.6, 0.9
_MOST_CLASSES = 100


class End(NamedTuple):
    """What the first or the last column of a file holds.

    Attributes:
        at: its position.
        pixels: most values are whole numbers from 0 to 255.
        labels: the values may be labels.
        like_classes: pixels could not look so: few small numbers, none of which prevails.
        like_pixels: labels could not look so: nearly always one value, or numbers with large gaps.
    """

    at: int
    pixels: bool
    labels: bool
    like_classes: bool = False
    like_pixels: bool = False


def is_pixel(value: str) -> bool:
    """Tell whether a field holds a pixel: a whole number from 0 to 255, also as 255.0 or 2.55e+02."""
    if value.isascii() and value.isdecimal():  # Python refuses to read a number of thousands of digits
        return int(value.lstrip("0")[:4] or "0") <= LARGEST
    number = float(value) if WITH_POINT.fullmatch(value) else math.inf
    return 0 <= number <= LARGEST and number.is_integer()


def end_of(at: int, values: Sequence[str]) -> End:
    """Look at the values of the column at a position, which is the first or the last."""
    counts = Counter(values)
    rows, distinct = len(values), len(counts)
    pixels = {value: count for value, count in counts.items() if is_pixel(value)}
    if rows and sum(pixels.values()) * 2 <= rows:
        fractions = sum(count for value, count in counts.items() if _is_fraction(value))
        labels = fractions * 2 <= rows and not _is_index(values) and distinct <= max(_MOST_CLASSES, rows // 2)
        return End(at, pixels=False, labels=labels)
    if rows < _FEWEST_ROWS or _is_index(values):
        return End(at, pixels=True, labels=True)
    prevailing, largest = max(counts.values()) / rows, max(map(float, pixels))
    few = distinct <= _MOST_CLASSES and largest <= max(9, 2 * distinct)
    gaps = largest > max(_MOST_CLASSES, 2 * distinct) or (distinct > _MOST_CLASSES and largest >= LARGEST - 5)
    return End(
        at,
        pixels=True,
        labels=True,
        like_classes=few and distinct > 1 and prevailing <= _BALANCED,
        like_pixels=gaps or prevailing >= _PREVAILING,
    )


def _is_fraction(value: str) -> bool:
    return bool(NUMBER.fullmatch(value)) and not float(value).is_integer()


def _is_index(values: Sequence[str]) -> bool:
    """Tell whether values count the rows, from any number on."""
    if len(values) < 3 or not all(NUMBER.fullmatch(value) for value in values):  # noqa: PLR2004 - two count nothing
        return False
    start = float(values[0])
    return all(float(value) == start + at for at, value in enumerate(values))


def choose_end(first: End, last: End, inner: tuple[End, End]) -> tuple[int | None, str]:
    """Tell which of two ends is the label.

    Text, or numbers that no pixel has, are labels. Otherwise one end must look like classes, and both the column beside
    it and the other end like corners of a picture; where only some of this holds, nothing is decided.

    Args:
        first: the first column.
        last: the last column.
        inner: the columns beside them.

    Returns:
        Its position, or None and why.
    """
    if first.pixels != last.pixels:
        end = last if first.pixels else first
        what = f"column {end.at} holds neither pixels nor labels (fractions, row numbers or too many different values)"
        return (end.at, "") if end.labels else (None, what)
    if not first.pixels:
        return None, f"columns {first.at} and {last.at} both hold values that are no pixels"
    for end, beside, other in ((first, inner[0], last), (last, inner[1], first)):
        if end.like_classes and beside.like_pixels and other.like_pixels:
            return end.at, ""
    return None, "the label may be the first or the last column"


Shape = tuple[int, int, int]
Size = tuple[int, int] | None

# Numbered columns of any other name, or none, are taken for a picture from 8x8 on: UCI's tables of 16 measurements are
# not 4x4. A grid of numbers (r0c0, 1x1) says more.
FEWEST, FEWEST_IN_GRID = 64, 16
_DIGITS = re.compile(r"\d+")
_PIXEL_WORDS = re.compile(r"pix|px")
_COLUMN_WORDS, _ROW_WORDS = ("x", "c", "col", "column", "w", "j"), ("y", "r", "row", "h", "i")
_Group = Mapping[tuple[int, ...], int]


class Pixels(NamedTuple):
    """Columns of pixels in the order of the picture, and the (height, width, channels) that they make."""

    positions: tuple[int, ...]
    shape: Shape
    sure: bool = True


def series_of(names: Sequence[str], where: Sequence[int], size: Size, *, asked: bool = False) -> list[Pixels]:
    """List the series of numbered columns that make a picture, each in the order of its numbers.

    Args:
        names: all columns.
        where: positions of those that may be pixels.
        size: (height, width) that the recipe asks for, which is tried first.
        asked: whether the recipe names these columns; otherwise small series need a name that says pixel.
    """
    found = (_picture_of(words, group, size, asked=asked) for words, group in _groups(names, where).items())
    return [pixels for pixels in found if pixels is not None]


def single_series(names: Sequence[str], where: Sequence[int]) -> bool:
    """Tell whether columns are one series that counts up by one from each column to the next."""
    groups = _groups(names, where)
    (group,) = groups.values() if len(groups) == 1 else ({},)
    numbers = list(group)
    return len(group) == len(where) and numbers == [(numbers[0][0] + at,) for at in range(len(numbers))]


def shapes_of(pixels: int, size: Size) -> Iterator[Shape]:
    """List the (height, width, channels) that a number of pixels makes: of the recipe's size, then square."""
    return (shape for tried in dict.fromkeys((size, None)) if (shape := fit(tried, pixels)))


def fit(size: Size, pixels: int) -> Shape | None:
    """Shape a number of pixels as (height, width, channels) of a size, or of a square; None where they do not fit."""
    sides = ((c, size or (math.isqrt(max(0, pixels) // c),) * 2) for c in (1, 3))
    return next(((h, w, c) for c, (h, w) in sides if h * w * c == pixels > 1), None)


def why_no_series(names: Sequence[str], where: Sequence[int], size: Size) -> str:
    """Say why no columns are taken for a picture."""
    groups = _groups(names, where)
    largest = max(groups.values(), key=len, default={})
    if len(largest) < 2:  # noqa: PLR2004 - one column is no series
        return "its header has no numbered columns"
    ends = f"{names[min(largest.values())]} to {names[max(largest.values())]}"
    if len(min(largest)) > 1:
        return f"the numbers in its {len(largest)} columns {ends} are not the rows and columns of a picture"
    there = {number for (number,) in largest}
    missing = next((number for number in range(min(there), max(there)) if number not in there), None)
    if missing is not None:
        return f"its {len(largest)} columns {ends} are not numbered without gaps: number {missing} is missing"
    if next(shapes_of(len(largest), size), None) is None:
        return f"its {len(largest)} columns {ends} make no picture"
    return f"its {len(largest)} columns {ends} are too few to be taken for pixels by their names"


def _groups(names: Sequence[str], where: Sequence[int]) -> Mapping[tuple[str, ...], _Group]:
    """Group numbered columns by the words in their names: position by numbers, without numbers that are all equal."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for at in where:
        words = tuple(word.strip().lower() for word in _DIGITS.split(names[at]))
        if len(words) > 1:
            groups.setdefault(words, []).append(at)
    found = {}
    for words, members in groups.items():
        numbers = [tuple(int(digits[:9]) for digits in _DIGITS.findall(names[at])) for at in members]
        varied = [part for part in zip(*numbers, strict=True) if len(set(part)) > 1]
        keyed = dict(zip(zip(*varied, strict=True), members, strict=True)) if varied else {}
        if len(keyed) == len(members):
            found[words] = keyed
    return found


def _picture_of(words: Sequence[str], group: _Group, size: Size, *, asked: bool) -> Pixels | None:
    """Make a picture of numbered columns: pixel0, pixel1, ...; 1x1, 1x2, ... of row and column; or with a channel."""
    sizes = [len(set(numbers)) for numbers in zip(*group, strict=True)]
    spans = [max(numbers) - min(numbers) + 1 for numbers in zip(*group, strict=True)]
    if spans != sizes or math.prod(sizes) != len(group):
        return None
    order = sorted(group)
    shape: Shape | None = None
    if len(sizes) == 1:
        shape = next(shapes_of(sizes[0], size), None)
    elif sizes[1:] == [3]:
        shape = next((shape for shape in shapes_of(len(group), size) if shape[2] == sizes[1]), None)
    elif sizes[2:] in ([], [1], [3]):
        swapped = _is_column_first(words, list(group))
        if swapped is not None:
            order = sorted(group, key=lambda key: (key[1], key[0], *key[2:])) if swapped else order
            height, width = sizes[1::-1] if swapped else sizes[:2]
            shape = (height, width, sizes[2] if len(sizes) > 2 else 1)  # noqa: PLR2004 - row, column, channel
    if shape is None:
        return None
    sure = asked or bool(_PIXEL_WORDS.search("".join(words)))
    fewest = FEWEST if len(sizes) == 1 else FEWEST_IN_GRID
    if not sure and math.prod(shape) < fewest and shape[:2] != size:
        return None
    return Pixels(tuple(group[key] for key in order), shape, sure)


def _is_column_first(words: Sequence[str], keys: Sequence[tuple[int, ...]]) -> bool | None:
    """Tell whether names hold the column before the row, as x0y0; None where neither names nor their order say so."""
    one, two = (re.sub(r"[^a-z]", "", word) for word in words[-len(keys[0]) - 1 :][:2])
    if one.endswith(_COLUMN_WORDS) and two.endswith(_ROW_WORDS):
        return True
    if (one.endswith(_ROW_WORDS) and two.endswith(_COLUMN_WORDS)) or keys[0][0] == keys[1][0]:
        return False
    return None


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
