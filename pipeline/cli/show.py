"""How commands print: frames as tables for people, everything as JSON for programs."""

import json
import shutil
from decimal import Decimal
from typing import Any

import click
import polars as pl

_ID_BYTES = 16
# What would move the cursor, break the line or turn the direction of writing.
_UNPRINTABLE = r"[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]"


def show_json(value: Any) -> None:  # noqa: ANN401 - whatever a command returns
    """Print a value as JSON: frames as lists of rows, bytes as hexadecimal digits."""
    click.echo(json.dumps(_without_nan(value), default=_plain, indent=2, allow_nan=False))


def show_frame(frame: pl.DataFrame, rows: int = 1000) -> None:
    """Print a frame in full width, ids as hexadecimal digits, text without control characters."""
    shown = frame.with_columns(
        # Ids and hashes whole, pixels as their beginning.
        pl.when(pl.col(pl.Binary).bin.size() > _ID_BYTES)
        .then(pl.col(pl.Binary).bin.slice(0, _ID_BYTES).bin.encode("hex") + "…")
        .otherwise(pl.col(pl.Binary).bin.encode("hex"))
        .name.keep(),
        pl.col(pl.String).str.replace_all(_UNPRINTABLE, "\ufffd"),
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
        click.echo(str(shown))


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
