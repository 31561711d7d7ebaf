"""Types of the values of attributes: find them, convert to them, and write values as text and back.

Text is in Unicode form C without white space at its ends; empty text, NaN and null mean that the image has no value.
Times are UTC: a time with an offset is converted.
"""

from collections.abc import Mapping, Sequence
from functools import reduce

import polars as pl

TYPES: dict[str, pl.DataType] = {
    "text": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
}
_INT = r"^-?(0|[1-9][0-9]{0,17})$"
# A longer number may be an id, which a float would round.
_FLOAT = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
# As ISO 8601 writes a time, and as EXIF does; a date among them is its midnight.
_TIME = r"^[0-9]{4}[-:][0-9]{2}[-:][0-9]{2}([T ][0-9]{2}:[0-9]{2}|$)"
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")


def with_types(rows: pl.DataFrame, types: Mapping[str, str], *, infer: bool) -> tuple[pl.DataFrame, dict[str, int]]:
    """Give every attribute one of the types of `TYPES`.

    Args:
        rows: column key, and a column for each attribute.
        types: by attribute, the type that the recipe requires.
        infer: whether the type of text follows from its values.

    Returns:
        The same columns, and how many values do not have the required type, by attribute.
    """
    columns, invalid = [rows["key"]], dict[str, int]()
    for column in rows.drop("key"):
        lists = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
        is_list = isinstance(lists.dtype, pl.List)
        long = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "value": lists})
        long = long.explode("value") if is_list else long
        values = _normalized(long["value"])
        kind = types.get(column.name) or (_infer(values) if infer and values.dtype == pl.String else type_of(values))
        typed = cast(values, kind)
        lost = typed.null_count() - values.null_count()
        if lost:
            invalid[column.name] = lost
        if is_list:
            found = long.select("row", value=typed).drop_nulls().group_by("row", maintain_order=True).agg("value")
            rows_of_lists = pl.DataFrame({"row": pl.int_range(len(lists), eager=True)})
            typed = rows_of_lists.join(found, on="row", how="left", maintain_order="left")["value"]
        columns.append(typed.alias(column.name))
    return pl.DataFrame(columns), invalid


def as_text(values: pl.Series) -> pl.Series:
    """Write values of a type of `TYPES` as the attributes table stores them."""
    if values.dtype == pl.Datetime:
        return values.dt.strftime("%Y-%m-%dT%H:%M:%S%.f")
    return values.cast(pl.String)


# Columns of the table originals that are attributes too, in lakes whose `[[attributes]]` have none of that name.
EXIF = ("taken_at", "camera")


def from_text(values: pl.Expr, kind: str) -> pl.Expr:
    """Read values that `as_text` wrote; null where one is not of the type."""
    if kind == "datetime":
        return values.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    if kind == "date":
        return values.str.to_date("%Y-%m-%d", strict=False)
    if kind == "bool":
        return pl.when(values.is_in(["true", "false"])).then(values == "true")
    return values.cast(TYPES[kind], strict=False)


def common_type(kinds: Sequence[str]) -> str:
    """Return the type of an attribute whose parts have several types: float for numbers, text for anything else."""
    return reduce(lambda one, other: one if one == other else _either(one, other), kinds)


def _either(one: str, other: str) -> str:
    if {one, other} == {"int", "float"}:
        return "float"
    return "datetime" if {one, other} == {"date", "datetime"} else "text"


def _normalized(column: pl.Series) -> pl.Series:
    """Return values of a type of `TYPES`; text is normalised, and empty text is null."""
    kind = column.dtype
    if isinstance(kind, pl.Struct):
        column = pl.select(pl.when(column.is_not_null()).then(column.struct.json_encode())).to_series()
    elif kind.is_integer():
        as_int = column.cast(pl.Int64, strict=False)
        column = as_int if as_int.null_count() == column.null_count() else column.cast(pl.String)
    elif kind.is_decimal() or kind.is_float():
        column = column.cast(pl.Float64).fill_nan(None)
    elif isinstance(kind, pl.Datetime):
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if kind.time_zone else column
        column = column.dt.cast_time_unit("us")
    elif kind not in (pl.Boolean, pl.Date):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        text = column.str.normalize("NFC").str.strip_chars()
        column = text.replace({"": None})
    return column


def _infer(text: pl.Series) -> str:
    """Choose the type of text: the first that every value has."""
    if text.null_count() == len(text):
        return "text"
    for kind, pattern in (("int", _INT), ("float", _FLOAT), ("bool", r"^(?i:true|false)$"), ("date", _DATE)):
        if text.str.contains(pattern).all() and (
            kind != "date" or cast(text, "date").null_count() == text.null_count()
        ):
            return kind
    is_time = text.str.contains(_TIME).all() and cast(text, "datetime").null_count() == text.null_count()
    return "datetime" if is_time else "text"


def type_of(values: pl.Series) -> str:
    """Return the type of values: one of `TYPES`."""
    return next((kind for kind, dtype in TYPES.items() if values.dtype == dtype), "text")


def cast(values: pl.Series, kind: str) -> pl.Series:
    """Convert values to a type of `TYPES`, by way of text; null where the text is not of that type."""
    if type_of(values) == kind:
        return values
    text = as_text(values)
    match kind:
        case "int":
            found = text.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
        case "float":
            found = text.cast(pl.Float64, strict=False).fill_nan(None)
        case "bool":
            known = {"true": True, "1": True, "false": False, "0": False}
            found = text.str.to_lowercase().replace_strict(known, default=None, return_dtype=pl.Boolean)
        case "date":
            found = text.str.to_date("%Y-%m-%d", strict=False)
        case "datetime":
            found = _times(text)
        case _:
            found = text
    return found


def _times(text: pl.Series) -> pl.Series:
    """Read times as ISO 8601 and EXIF write them; one with an offset is converted to UTC."""
    iso = text.str.replace(r"^(\d{4}):(\d{2}):(\d{2})", "$1-$2-$3").str.replace("T", " ", literal=True)
    iso = iso.str.replace(r"^(\d{4}-\d{2}-\d{2})$", "$1 00:00").str.replace(r"[zZ]$", "+00:00")
    plain_times = [pl.lit(iso).str.to_datetime(form, time_unit="us", strict=False) for form in _TIME_FORMATS]
    offset = [
        pl.lit(iso).str.to_datetime(f"{form}%z", time_unit="us", strict=False).dt.replace_time_zone(None)
        for form in _TIME_FORMATS
    ]
    return pl.select(pl.coalesce(*plain_times, *offset).alias(text.name)).to_series()
