"""How commands print results: frames as tables for people, everything as JSON for programs. Single lines: `say`."""

import json
import shutil
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import click
import polars as pl

from pipeline.cli.say import is_terminal, say
from pipeline.cli.table import Column, lay_out, stack
from pipeline.progress import plain

# Ids and hashes are shown whole, as hexadecimal digits; of longer bytes, how many they are.
_ID_BYTES = 16
# Rows of a table, and rows as blocks of lines, that are worth printing.
ROWS, _BLOCKS = 1000, 100
_NARROWEST = 40
# From here on floating-point numbers are written with an exponent.
_SMALL, _LARGE = 1e-4, 1e15


def show_json(value: Any) -> None:  # noqa: ANN401 - whatever a command returns
    """Print a value as JSON: frames as lists of rows, ids as hexadecimal digits.

    It is ASCII without control characters, and exact: a program that parses it has the text of the tables.
    """
    _print_json(json.dumps(_without_nan(value), default=_plain, indent=2, allow_nan=False))


def show_json_rows(frames: Iterable[pl.DataFrame]) -> None:
    """Print the rows of frames as one JSON list, a row a line, a frame at a time; see `show_json`."""
    between = "[\n"
    for frame in frames:
        rows = [json.dumps(row, default=_plain, allow_nan=False) for row in _without_nan(frame).iter_rows(named=True)]
        if rows:
            _print_json(between + ",\n".join(rows), end="")
            between = ",\n"
    _print_json("[]" if between == "[\n" else "\n]")


def show_csv(frames: Iterable[pl.DataFrame]) -> None:
    """Print frames as one CSV file in UTF-8, a frame at a time; what is no single value becomes JSON.

    It is exact, also control characters; on a terminal these are escaped, as everywhere else.
    """
    for number, frame in enumerate(frames):
        text = _with_lists_as_json(frame).write_csv(include_header=number == 0)
        if is_terminal():
            text = "\n".join(map(plain, text.split("\n")))
        click.echo(text.encode(), nl=False)


def show_frame(
    frame: pl.DataFrame, rows: int = ROWS, *, total: int | None = None, rest: str = "--json gives all"
) -> None:
    """Print a frame as a table, or where that would be wider than the terminal, a block of lines for every row.

    Ids are hexadecimal digits, text is as `say` has it. Where not all rows are shown, a line on stderr says so.

    Args:
        frame: what to print.
        rows: how many rows to print at most.
        total: how many rows there are in all; None for those of the frame.
        rest: how to get all of them.
    """
    width = max(_NARROWEST, shutil.get_terminal_size((120, 24)).columns)
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
        say(line)
    count = len(frame) if total is None else total
    if len(shown) < count:
        say(f"{len(shown):,} of {count:,} rows shown; {rest}.", err=True)


def _columns(frame: pl.DataFrame) -> list[Column]:
    return [
        Column(
            plain(column.name),
            [plain(_cell(value)) for value in column],
            column.dtype == pl.String or column.dtype.is_nested(),
        )
        for column in _with_lists_as_json(frame)
    ]


def _cell(value: Any) -> str:  # noqa: ANN401, PLR0911 - whatever a table holds
    """Spell one value for people."""
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
    """Spell lists, structs and the like as JSON, in columns of text."""
    nested = [column for column in frame if column.dtype.is_nested() or column.dtype == pl.Object]
    return frame.with_columns(pl.Series(column.name, list(_as_json(column)), dtype=pl.String) for column in nested)


def _as_json(column: pl.Series) -> Iterator[str | None]:
    for value in column.to_list():
        yield None if value is None else json.dumps(value, default=_plain, ensure_ascii=False)


def _print_json(text: str, end: str = "\n") -> None:
    # The one control character that JSON need not escape.
    click.echo(text.replace("\x7f", "\\u007f") + end, nl=False)


def _plain(value: Any) -> Any:  # noqa: ANN401 - json's own signature
    if isinstance(value, pl.DataFrame):
        return _without_nan(value).to_dicts()
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    # Dates, times, paths and whatever else DuckDB knows read best as they print.
    return str(value)


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - as it comes
    """JSON knows neither NaN nor infinity: they become null."""
    if isinstance(value, pl.DataFrame):
        numbers = pl.col(pl.Float64, pl.Float32)
        return value.with_columns(pl.when(numbers.is_finite()).then(numbers).name.keep())
    return value
