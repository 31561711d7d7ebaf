"""A query -> rows for people and files: ids as hexadecimal digits, other bytes as their number, a batch at a time.

This is what `imagelake sql` runs. `Lake.sql` hands out DuckDB's own relation, in which ids are bytes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import QueryError
from pipeline.lake.duckdb_views import duckdb_message
from pipeline.lake_handle import Lake
from pipeline.storage.atomic import writing_whole

if TYPE_CHECKING:
    import duckdb

# Bytes up to this many are shown as hexadecimal digits, of more their number.
_SHORT = 16
# Rows of a batch; fewer where they may hold pixels.
_BATCH, _BATCH_OF_BYTES = 2**16, 2**11
# Types that Polars or Parquet do not hold as DuckDB means them: they become text.
_ODD = re.compile(r"\b(INTERVAL|UNION|VARIANT|BIT|BIGNUM|VARINT|GEOMETRY|TIME WITH TIME ZONE)\b")


class Rows(NamedTuple):
    """The first rows of a query.

    Attributes:
        first: columns in the order of the query, ids and short bytes as hexadecimal digits, longer ones as "<n bytes>".
        total: how many rows the query has.
    """

    first: pl.DataFrame
    total: int


class Written(NamedTuple):
    """A file with the rows of a query, and its rows, columns and bytes."""

    file: str
    rows: int
    columns: int
    size: int


def first_rows(lake: Lake, text: str, *, most: int) -> Rows:
    """Run one SELECT and hold its first rows only; where there are more, count them.

    Args:
        lake: the lake as of a release.
        text: one SELECT.
        most: how many rows to hold.

    Raises:
        QueryError: DuckDB refuses it, or fails while it runs.
    """
    relation = lake.sql(text, ids="hex")
    with _query_errors():
        found = pl.concat(_frames(_project(relation, _as_text).limit(most + 1)))
        # Counting reads what the query joins and filters by, and no pixels that it only shows.
        total = len(found) if len(found) <= most else int(relation.aggregate("count(*)").fetchall()[0][0])
    return Rows(found.head(most), total)


def all_rows(lake: Lake, text: str) -> Iterator[pl.DataFrame]:
    """Run one SELECT and hand out all its rows in order, a batch at a time, as `Rows.first` has them.

    Yields:
        At least one frame, so that the columns are known where there is no row.

    Raises:
        QueryError: DuckDB refuses it, or fails while it runs.
    """
    relation = lake.sql(text, ids="hex")
    with _query_errors():
        frames = _frames(_project(relation, _as_text))
    while True:
        with _query_errors():
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def write_rows(lake: Lake, text: str, file: str | Path) -> Written:
    """Run one SELECT and write all its rows to a Parquet file, which is there whole or not at all.

    Bytes are kept as they are, also pixels; ids are text, as a query sees them (`unhex(image_id)` makes bytes of one).

    Args:
        lake: the lake as of a release.
        text: one SELECT.
        file: where to, outside every lake; a file that is there is replaced.

    Raises:
        QueryError: DuckDB refuses it, or fails while it runs.
        LakeError: the file cannot be written there.
        DiskFullError: no space is left.
    """
    relation = _project(lake.sql(text, ids="hex"), _as_stored)
    count = 0
    with writing_whole(file, "the Parquet file", outside_lakes=True) as draft:
        with _query_errors():
            reader = _reader(relation)
        with (
            closing(reader),
            draft.open("wb") as out,
            pq.ParquetWriter(out, reader.schema, compression="zstd") as writer,
        ):
            while True:
                with _query_errors():
                    batch = next(reader, None)
                if batch is None:
                    break
                writer.write_batch(batch)
                count += len(batch)
        size = draft.stat().st_size
    return Written(str(file), count, len(reader.schema), size)


def _frames(relation: "duckdb.DuckDBPyRelation") -> Iterator[pl.DataFrame]:
    """Read a relation a batch at a time; at least one frame."""
    with closing(_reader(relation)) as reader:
        first = next(reader, None)
        yield pl.DataFrame(reader.schema.empty_table() if first is None else first)
        yield from map(pl.DataFrame, reader)


def _reader(relation: "duckdb.DuckDBPyRelation") -> pa.RecordBatchReader:
    rows = _BATCH_OF_BYTES if any("BLOB" in str(kind) for kind in relation.types) else _BATCH
    # The name until DuckDB 1.4.
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    return read(rows)


def _project(relation: "duckdb.DuckDBPyRelation", spelled: Callable[[str, str], str]) -> "duckdb.DuckDBPyRelation":
    """Spell every column of a relation, and give no two the same name."""
    columns = zip(_different(relation.columns), relation.types, strict=True)
    spellings = [
        f'{spelled(f"#{place}", str(kind))} AS "{name.replace(chr(34), chr(34) * 2)}"'
        for place, (name, kind) in enumerate(columns, start=1)
    ]
    return relation.project(", ".join(spellings))


def _as_stored(column: str, kind: str) -> str:
    return f"CAST({column} AS VARCHAR)" if _ODD.search(kind) else column


def _as_text(column: str, kind: str) -> str:
    """Spell bytes as text where they are a column; those inside lists and structs are left to who prints them."""
    if kind != "BLOB":
        return _as_stored(column, kind)
    size = f"octet_length({column})"
    return (
        f"CASE WHEN {size} > {_SHORT} THEN '<' || format('{{:,}}', {size}) || ' bytes>' "
        f"ELSE lower(system.main.hex({column})) END"
    )


def _different(names: Sequence[str]) -> list[str]:
    """Number names that come again, as DuckDB does: image_id, image_id_1."""
    found: list[str] = []
    for name in names:
        number, free = 0, name
        while free in found:
            number += 1
            free = f"{name}_{number}"
        found.append(free)
    return found


@contextmanager
def _query_errors() -> Iterator[None]:
    """Turn what DuckDB, Arrow and Polars raise while a query runs into one error.

    Raises:
        QueryError: the query failed.
    """
    import duckdb  # noqa: PLC0415 - only to name its errors

    try:
        yield
    except (duckdb.Error, pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as error:
        raise QueryError(duckdb_message(error)) from error
