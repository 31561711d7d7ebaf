"""How commands print results: frames as tables for people, everything as JSON for programs. Single lines: `say`."""

import json
import shutil
from decimal import Decimal
from functools import lru_cache
from typing import Any

import click
import polars as pl

from pipeline.cli.say import say
from pipeline.progress import plain

_ID_BYTES = 16


def show_json(value: Any) -> None:  # noqa: ANN401 - whatever a command returns
    """Print a value as JSON: frames as lists of rows, bytes as hexadecimal digits.

    It is ASCII without control characters, and exact: who parses it has the text of the tables.
    """
    text = json.dumps(_without_nan(value), default=_plain, indent=2, allow_nan=False)
    # The one control character that JSON need not escape.
    click.echo(text.replace("\x7f", "\\u007f"))


def show_frame(frame: pl.DataFrame, rows: int = 1000) -> None:
    """Print a frame in full width, ids as hexadecimal digits, text as `say` has it."""
    shown = frame.with_columns(
        # Ids and hashes whole, pixels as their beginning.
        pl.when(pl.col(pl.Binary).bin.size() > _ID_BYTES)
        .then(pl.col(pl.Binary).bin.slice(0, _ID_BYTES).bin.encode("hex") + "…")
        .otherwise(pl.col(pl.Binary).bin.encode("hex"))
        .name.keep(),
        pl.col(pl.String).str.replace_many(_spelled()),
    )
    with pl.Config(
        tbl_rows=rows,
        tbl_cols=-1,
        tbl_width_chars=max(shutil.get_terminal_size((120, 24)).columns, 80),
        fmt_str_lengths=200,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_formatting="UTF8_FULL_CONDENSED",
        thousands_separator=",",
    ):
        # Names of columns, and text in lists, are as they came: it is their lines that are plain.
        for line in str(shown).split("\n"):
            say(line)


@lru_cache(maxsize=1)
def _spelled() -> dict[str, str]:
    """What `plain` makes of characters, of those that it does not leave alone."""
    planes = (*range(0xD800), *range(0xE000, 0x10000), *range(0xE0000, 0xE0080))
    return {char: shown for char in map(chr, planes) if (shown := plain(char)) != char}


def _plain(value: Any) -> Any:  # noqa: ANN401 - json's own signature
    if isinstance(value, pl.DataFrame):
        return _without_nan(value).to_dicts()
    if isinstance(value, bytes):
        return value.hex()
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
