"""Write the verdicts of a lake to a CSV or Parquet file, to keep in git or to share, and read such a file."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl
import xxhash

from pipeline import storage
from pipeline.errors import LakeError, one_line
from pipeline.storage.atomic import atomic_file
from pipeline.verdicts.journal import (
    BINARY,
    SCHEMA,
    TEXT,
    append,
    fault_of,
    from_text,
    in_order,
    normal_row,
    read_verdicts,
    user_name,
)

_FORMS = (".csv", ".parquet")


class Imported(NamedTuple):
    """What was imported.

    Attributes:
        new: number of verdicts that the lake did not have.
        known: number of those that it had.
    """

    new: int
    known: int


def export_verdicts(place: str, file: str | Path) -> int:
    """Write all verdicts of a lake to a file, ordered by time, who and digest, so that two files can be compared.

    Args:
        place: the lake's place.
        file: a .csv or .parquet file; an existing one is replaced. Digests are hexadecimal digits, times ISO 8601.

    Returns:
        The number of verdicts.

    Raises:
        LakeError: the name ends otherwise, or the file cannot be written.
        DiskFullError: no space is left.
    """
    form = _form(file)
    rows = read_verdicts(place)
    time = pl.col("created_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    text = rows.with_columns(time, pl.col(BINARY).bin.encode("hex"))
    with atomic_file(file, "the verdicts", outside_lakes=True) as draft:
        text.write_csv(draft) if form == ".csv" else text.write_parquet(draft)
    return len(rows)


def import_verdicts(place: str, file: str | Path, who: str | None = None) -> Imported:
    """Add the verdicts of a file to the journal of a lake. Those that the lake has are left out.

    Args:
        place: the lake's place.
        file: a .csv or .parquet file as `export_verdicts` writes it. Only the column verdict and a digest are needed:
            a verdict without an id gets one that is made from its other values, and one without a time that of now.
        who: who decided, for rows that do not say.

    Raises:
        LakeError: the file cannot be read, or a row is no verdict; nothing is imported. The message names the row.
        DiskFullError: no space is left.
        StorageError: the bucket does not answer.
    """
    rows = _with_ids(_read(file)).with_columns(
        pl.col("who").fill_null(who or user_name()), pl.col("created_at").fill_null(datetime.now(UTC).isoformat())
    )
    try:
        verdicts = from_text(rows.cast({"score": TEXT["score"]}))
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise LakeError(
            f"{file}: a value cannot be read ({one_line(error, 200)}). Digests are hexadecimal digits, times ISO 8601, "
            "and verdict is never empty."
        ) from error
    for number, row in enumerate(verdicts.iter_rows(named=True), start=1):
        if fault := fault_of(row):
            raise LakeError(f"{file}: row {number} is no verdict: {fault} Nothing was imported.")
    known = read_verdicts(place)
    new = in_order(verdicts.join(known, on="verdict_id", how="anti"))
    append(place, [normal_row(row) for row in new.iter_rows(named=True)])
    return Imported(len(new), verdicts["verdict_id"].n_unique() - len(new))


def _form(file: str | Path) -> str:
    form = Path(file).suffix.lower()
    if form not in _FORMS:
        raise LakeError(f"{file}: verdicts are kept in .csv or .parquet files. Name one.")
    return form


def _read(file: str | Path) -> pl.DataFrame:
    """Read a file as text: the columns of the verdicts table, null where the file has none."""
    form = _form(file)
    try:
        storage.check_regular(str(file), folders=False)
        found = pl.read_csv(file, infer_schema=False) if form == ".csv" else pl.read_parquet(file)
    except FileNotFoundError as error:
        raise LakeError(f"{file}: there is no such file.") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LakeError(f"{file}: cannot be read as {form[1:]} ({one_line(error, 200)}).") from error
    unknown = sorted(set(found.columns) - set(SCHEMA))
    if unknown:
        raise LakeError(f"{file}: unknown column '{unknown[0]}'. Columns: {', '.join(SCHEMA)}.")
    if "verdict" not in found.columns:
        raise LakeError(f"{file}: the column verdict is missing. Columns: {', '.join(SCHEMA)}.")
    empty = [pl.lit(None, pl.String).alias(name) for name in SCHEMA if name not in found.columns]
    return found.with_columns(*empty).select(pl.col(list(SCHEMA)).cast(pl.String).replace("", None))


def _with_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """Give rows without an id one that is made from their values, so that the same file is imported once."""
    values = rows.select(pl.concat_str(pl.col(rows.columns).cast(pl.String).fill_null(""), separator="\x1f"))
    made = pl.Series([xxhash.xxh3_128_hexdigest(value.encode()) for value in values.to_series()], dtype=pl.String)
    return rows.with_columns(pl.col("verdict_id").fill_null(made))
