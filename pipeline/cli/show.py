"""Print results: data frames as tables for people, and as JSON or CSV for programs. `terminal` prints single lines.

A table has its columns side by side if they fit into the width of the terminal, else one block of lines per row.
"""

import json
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import click
import polars as pl

from pipeline.cli.streams import lost_output
from pipeline.cli.terminal import is_terminal, print_line
from pipeline.progress import plain

# Longer text is cut, in characters: it would fill the screen.
_MAX_TEXT, _MAX_TEXT_IN_BLOCK = 200, 1000
# A cell is broken into lines of at least the first width. Words up to the second width are not broken.
_MIN_LINE, _MAX_WORD = 24, 40
# A cell may be broken after these characters, and at spaces.
_BREAK_AFTER = "/,;_-=&?"


class Column(NamedTuple):
    """A column of text.

    Attributes:
        name: name of the column.
        cells: text of every row, without line breaks or control characters.
        is_text: whether cells may be broken into lines; numbers may not.
    """

    name: str
    cells: Sequence[str]
    is_text: bool


def lay_out(columns: Sequence[Column], width: int) -> list[str] | None:
    """Lay out a table with one line per row, or several if long cells are broken.

    Args:
        columns: of equal length.
        width: characters per line.

    Returns:
        The lines; None if the columns do not fit into the width.
    """
    short = [column._replace(cells=[_cut(cell, _MAX_TEXT) for cell in column.cells]) for column in columns]
    natural = [max(map(wide, (column.name, *column.cells))) for column in short]
    room = width - 3 * len(columns) - 1
    widths = natural if sum(natural) <= room else _share_out(short, natural, room)
    if widths is None:
        return None
    lines = [_rule("┌─", "─┬─", "─┐", "─", widths), *_row([column.name for column in short], widths)]
    lines.append(_rule("╞═", "═╪═", "═╡", "═", widths))
    for cells in zip(*(column.cells for column in short), strict=True):
        lines += _row(cells, widths)
    return [*lines, _rule("└─", "─┴─", "─┘", "─", widths)]


def stack(columns: Sequence[Column], width: int) -> Iterator[str]:
    """Lay out one block of lines per row: one line per column, or several for long text."""
    names = [_head(column.name, width // 2) for column in columns]
    indent = max(map(wide, names), default=0)
    room = width - indent - 3
    for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True), start=1):
        title = f"── row {number:,} "
        yield title + "─" * max(0, min(width, indent + 3 + _MAX_WORD) - len(title))
        for name, cell in zip(names, cells, strict=True):
            for at, part in enumerate(_broken(_cut(cell, _MAX_TEXT_IN_BLOCK), room)):
                yield f"{_padded('' if at else name, indent)} │ {part}"


def wide(text: str) -> int:
    """Count the terminal columns of a text: two for an East Asian wide character, none for a combining mark."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) or char in "\u200c\u200d" else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _least(column: Column, natural: int) -> int:
    if not column.is_text:
        return natural
    words = max((wide(word) for cell in column.cells for word in _words(cell)), default=0)
    return min(natural, max(wide(column.name), _MIN_LINE, min(words, _MAX_WORD)))


def _words(text: str) -> Iterator[str]:
    """Split a text after the characters at which it may be broken."""
    start = 0
    for at, char in enumerate(text, start=1):
        if char == " " or char in _BREAK_AFTER:
            yield text[start:at]
            start = at
    yield text[start:]


def _share_out(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[int] | None:
    """Give each column its natural width, or an equal share if that is smaller; None if columns become too narrow."""
    least = [_least(column, most) for column, most in zip(columns, natural, strict=True)]
    if sum(least) > room:
        return None
    level = max(natural)
    while sum(widths := [min(n, max(m, level)) for n, m in zip(natural, least, strict=True)]) > room:
        level -= 1
    return widths


def _rule(start: str, between: str, end: str, line: str, widths: Sequence[int]) -> str:
    return start + between.join(line * width for width in widths) + end


def _row(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    parts = [list(_broken(cell, width)) for cell, width in zip(cells, widths, strict=True)]
    for at in range(max(map(len, parts))):
        inside = (_padded(part[at] if at < len(part) else "", width) for part, width in zip(parts, widths, strict=True))
        yield f"│ {' ┆ '.join(inside)} │"


def _padded(text: str, width: int) -> str:
    return text + " " * (width - wide(text))


def _broken(text: str, width: int) -> Iterator[str]:
    """Break a text into lines of a width, between words unless a word is longer than a line."""
    if wide(text) <= width:
        yield text
        return
    line = ""
    for word in _words(text):
        rest = word
        if wide(line + rest.rstrip(" ")) > width and line:
            yield line.rstrip(" ")
            line = ""
        while wide(rest) > width:
            head = _head(rest, width)
            yield head
            rest = rest[len(head) :]
        line += rest
    if line:
        yield line.rstrip(" ")


def _head(text: str, width: int) -> str:
    """Return the start of a text that fits into the width, and at least one character."""
    size = 1
    while size < len(text) and wide(text[: size + 1]) <= width:
        size += 1
    return text[:size]


# Bytes of this length and shorter are shown as hexadecimal digits: ids and hashes. Longer ones as their length.
_ID_BYTES = 16
# Rows to print at most: as a table, and as one block of lines per row.
ROWS, _BLOCKS = 1000, 100
_MIN_WIDTH = 40
# Outside of these bounds floating-point numbers are printed with an exponent.
_SMALL, _LARGE = 1e-4, 1e15


def show_json(value: Any) -> None:  # noqa: ANN401 - any result of a command
    """Print a value as JSON: frames as lists of rows, ids as hexadecimal digits.

    The output is ASCII without control characters, and exact: parsing it gives the text of the tables.
    """
    _print_json(json.dumps(_without_nan(value), default=_plain, indent=2, allow_nan=False))


def show_json_rows(frames: Iterable[pl.DataFrame]) -> None:
    """Print the rows of frames as one JSON list, one row per line, one frame at a time; see `show_json`."""
    between = "[\n"
    for frame in frames:
        if lost_output():
            return
        rows = [json.dumps(row, default=_plain, allow_nan=False) for row in _without_nan(frame).iter_rows(named=True)]
        if rows:
            _print_json(between + ",\n".join(rows), end="")
            between = ",\n"
    _print_json("[]" if between == "[\n" else "\n]")


def show_csv(frames: Iterable[pl.DataFrame]) -> None:
    """Print frames as one CSV file in UTF-8, one frame at a time. Lists and structs become JSON.

    The output is exact. Only on a terminal control characters are escaped.
    """
    for number, frame in enumerate(frames):
        if lost_output():
            return
        text = _with_lists_as_json(frame).write_csv(include_header=number == 0)
        if is_terminal():
            text = "\n".join(map(plain, text.split("\n")))
        click.echo(text.encode(), nl=False)


def show_frame(
    frame: pl.DataFrame, rows: int = ROWS, *, total: int | None = None, rest: str = "--json gives all"
) -> None:
    """Print a frame as a table; if it is wider than the terminal, as one block of lines per row.

    Ids are hexadecimal digits, and text is escaped as `terminal.print_line` does. If rows are left out, a line on
    stderr gives the number.

    Args:
        frame: the rows.
        rows: number of rows to print at most.
        total: number of all rows; None for those of the frame.
        rest: how to get all rows, for that line.
    """
    width = max(_MIN_WIDTH, shutil.get_terminal_size((120, 24)).columns)
    shown = frame.head(rows)
    table = lay_out(_columns(shown), width)
    if table is not None:
        lines: Iterable[str] = table
    elif shown.is_empty():
        lines = [f"No rows. Columns: {', '.join(map(plain, shown.columns))}"]
    else:
        shown = shown.head(_BLOCKS)
        lines = stack(_columns(shown), width)
    for line in lines:
        print_line(line)
    count = len(frame) if total is None else total
    if len(shown) < count:
        print_line(f"{len(shown):,} of {count:,} rows shown; {rest}.", err=True)


def _columns(frame: pl.DataFrame) -> list[Column]:
    return [
        Column(
            plain(column.name),
            [plain(_cell(value)) for value in column],
            column.dtype == pl.String or column.dtype.is_nested(),
        )
        for column in _with_lists_as_json(frame)
    ]


def _cell(value: Any) -> str:  # noqa: ANN401, PLR0911 - any value of a table
    """Format one value for people."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, float):
        size = abs(value)
        return f"{value:.6g}" if size and not _SMALL <= size < _LARGE else f"{round(value, 6):,}"
    if isinstance(value, int | Decimal):
        return f"{value:,}"
    return str(value)


def _bytes(value: bytes) -> str:
    return value.hex() if len(value) <= _ID_BYTES else f"<{len(value):,} bytes>"


def _with_lists_as_json(frame: pl.DataFrame) -> pl.DataFrame:
    """Convert columns of lists, structs and objects to columns of JSON text."""
    nested = [column for column in frame if column.dtype.is_nested() or column.dtype == pl.Object]
    return frame.with_columns(pl.Series(column.name, list(_as_json(column)), dtype=pl.String) for column in nested)


def _as_json(column: pl.Series) -> Iterator[str | None]:
    for value in column.to_list():
        yield None if value is None else json.dumps(value, default=_plain, ensure_ascii=False)


def _print_json(text: str, end: str = "\n") -> None:
    # DEL, the only control character that JSON does not escape.
    click.echo(text.replace("\x7f", "\\u007f") + end, nl=False)


def _plain(value: Any) -> Any:  # noqa: ANN401 - the signature that json needs
    if isinstance(value, pl.DataFrame):
        return _without_nan(value).to_dicts()
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    # Dates, times, paths and other types of DuckDB.
    return str(value)


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any value
    """Replace NaN and infinity, which JSON does not have, by null."""
    if isinstance(value, pl.DataFrame):
        numbers = pl.col(pl.Float64, pl.Float32)
        return value.with_columns(pl.when(numbers.is_finite()).then(numbers).name.keep())
    return value
