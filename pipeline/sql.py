"""Run SQL for `imagelake sql`: rows as text for people, or a Parquet file, a batch at a time.

Ids are hexadecimal digits here. `Lake.sql` returns DuckDB's own relation, in which ids are bytes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.lake.duckdb_views import query_errors
from pipeline.lake_handle import Lake
from pipeline.storage.atomic import atomic_file

if TYPE_CHECKING:
    import duckdb

# Bytes of at most this length are shown as hexadecimal digits; longer ones as their length.
_SHORT = 16
# Rows in a batch; fewer if a column may hold pixels.
_BATCH_ROWS, _BATCH_ROWS_OF_BYTES = 2**16, 2**11
# DuckDB types without an equal type in Polars or Parquet. Their values become text.
_TEXT_TYPES = re.compile(r"\b(INTERVAL|UNION|VARIANT|BIT|BIGNUM|VARINT|GEOMETRY|TIME WITH TIME ZONE)\b")


class Rows(NamedTuple):
    """The first rows of a query.

    Attributes:
        first: columns in the order of the query, ids and short bytes as hexadecimal digits, longer ones as "<n bytes>".
        total: number of rows of the query.
    """

    first: pl.DataFrame
    total: int


class Written(NamedTuple):
    """A file with the rows of a query: its name, numbers of rows and columns, and size in bytes."""

    file: str
    rows: int
    columns: int
    size: int


def first_rows(lake: Lake, text: str, *, most: int) -> Rows:
    """Run one SELECT, return its first rows, and count all rows.

    Args:
        lake: the lake of a release.
        text: one SELECT.
        most: return at most this many rows.

    Raises:
        QueryError: the query is refused, or fails while it runs.
    """
    relation = lake.sql(text, ids="hex")
    with query_errors():
        found = pl.concat(_frames(_project(relation, _as_text).limit(most + 1)))
        # Counting does not read columns that the query only returns, such as pixels.
        total = len(found) if len(found) <= most else int(relation.aggregate("count(*)").fetchall()[0][0])
    return Rows(found.head(most), total)


def all_rows(lake: Lake, text: str) -> Iterator[pl.DataFrame]:
    """Run one SELECT and yield all its rows in order, a batch at a time.

    Yields:
        Frames with columns as in `Rows.first`; one without rows if the query has no rows.

    Raises:
        QueryError: the query is refused, or fails while it runs.
    """
    relation = lake.sql(text, ids="hex")
    with query_errors():
        frames = _frames(_project(relation, _as_text))
    while True:
        with query_errors():
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def write_rows(lake: Lake, text: str, file: str | Path) -> Written:
    """Run one SELECT and write all its rows to a Parquet file, which appears complete or not at all.

    Bytes, such as pixels, stay bytes. Ids are text; `unhex(image_id)` turns one into bytes.

    Args:
        lake: the lake of a release.
        text: one SELECT.
        file: the file, outside every lake; an existing file is replaced.

    Raises:
        QueryError: the query is refused, or fails while it runs.
        LakeError: the file cannot be written there.
        DiskFullError: no space is left.
    """
    relation = _project(lake.sql(text, ids="hex"), _as_stored)
    count = 0
    with atomic_file(file, "the Parquet file", outside_lakes=True) as draft:
        with query_errors():
            reader = _reader(relation)
        with (
            closing(reader),
            draft.open("wb") as out,
            pq.ParquetWriter(out, reader.schema, compression="zstd") as writer,
        ):
            while True:
                with query_errors():
                    batch = next(reader, None)
                if batch is None:
                    break
                writer.write_batch(batch)
                count += len(batch)
        size = draft.stat().st_size
    return Written(str(file), count, len(reader.schema), size)


def _frames(relation: "duckdb.DuckDBPyRelation") -> Iterator[pl.DataFrame]:
    """Yield the rows of a relation a batch at a time; at least one frame."""
    with closing(_reader(relation)) as reader:
        first = next(reader, None)
        yield pl.DataFrame(reader.schema.empty_table() if first is None else first)
        yield from map(pl.DataFrame, reader)


def _reader(relation: "duckdb.DuckDBPyRelation") -> pa.RecordBatchReader:
    rows = _BATCH_ROWS_OF_BYTES if any("BLOB" in str(kind) for kind in relation.types) else _BATCH_ROWS
    # `fetch_record_batch` is the name of the method up to DuckDB 1.4.
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    return read(rows)


def _project(relation: "duckdb.DuckDBPyRelation", convert: Callable[[str, str], str]) -> "duckdb.DuckDBPyRelation":
    """Convert every column of a relation, and give every column a name of its own."""
    columns = zip(_unique(relation.columns), relation.types, strict=True)
    expressions = [
        f'{convert(f"#{number}", str(kind))} AS "{name.replace(chr(34), chr(34) * 2)}"'
        for number, (name, kind) in enumerate(columns, start=1)
    ]
    return relation.project(", ".join(expressions))


def _as_stored(column: str, kind: str) -> str:
    return f"CAST({column} AS VARCHAR)" if _TEXT_TYPES.search(kind) else column


def _as_text(column: str, kind: str) -> str:
    """Convert a column of bytes to text. Bytes inside lists and structs are converted when they are printed."""
    if kind != "BLOB":
        return _as_stored(column, kind)
    size = f"octet_length({column})"
    return (
        f"CASE WHEN {size} > {_SHORT} THEN '<' || format('{{:,}}', {size}) || ' bytes>' "
        f"ELSE lower(system.main.hex({column})) END"
    )


def _unique(names: Sequence[str]) -> list[str]:
    """Number repeated names as DuckDB does: image_id, image_id_1."""
    found: list[str] = []
    for name in names:
        number, free = 0, name
        while free in found:
            number += 1
            free = f"{name}_{number}"
        found.append(free)
    return found
