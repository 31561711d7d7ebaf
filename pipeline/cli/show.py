"""Print results: data frames as tables for people, and as JSON or CSV for programs. `terminal` prints single lines."""

import json
import shutil
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import click
import polars as pl

from pipeline.cli.table import Column, lay_out, stack
from pipeline.cli.terminal import is_terminal, print_line
from pipeline.progress import plain

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
