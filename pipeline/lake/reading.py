"""Read tables: one as a Polars LazyFrame, all by name in DuckDB. Always the files of one version, in one order."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

import polars as pl
import pyarrow as pa

import schemas
from pipeline import storage
from pipeline.errors import QueryError
from pipeline.lake.commits import files
from pipeline.lake.sandbox import confine, objection, quoted

if TYPE_CHECKING:
    import duckdb

# DuckDB repeats a line of the query, and draws a caret below it.
_DRAWING = re.compile(r"\n\s*LINE \d+: .*", re.DOTALL)

_unread: ContextVar[frozenset[str]] = ContextVar("unread", default=frozenset())


@contextmanager
def without(names: Collection[str]) -> Iterator[None]:
    """Scan tables as if some files were not in them: they are damaged, and what is done here is to replace them.

    Args:
        names: places of the files.
    """
    before = _unread.set(frozenset(names))
    try:
        yield
    finally:
        _unread.reset(before)


def scan_table(
    root: str, name: str, version: int | None, keep: Callable[[Mapping[str, str]], bool] | None = None
) -> pl.LazyFrame:
    """Scan a table.

    Files come in the order of their partition, so rows do too, whatever the order of commits.

    Args:
        root: the lake's folder.
        name: table name.
        version: Delta version, or None for the newest.
        keep: tells from a file's partition values whether it is read; None for all.

    Returns:
        Every column of the table's schema; no rows where the table is missing or empty.
    """
    skipped = _unread.get()
    parts = [
        part.path
        for part in files(root, name, version)
        if (keep is None or keep(part.partition)) and f"{root}/{name}/{part.path}" not in skipped
    ]
    if not parts:
        return polars_schema(schemas.TABLES[name].schema).to_frame().lazy()
    return scan_files(root, name, parts)


def scan_files(root: str, name: str, paths: Sequence[str]) -> pl.LazyFrame:
    """Scan some files of a table, committed or not.

    Args:
        root: the lake's place.
        name: table name.
        paths: at least one, relative to the table, as `Part` has them.

    Returns:
        Every column of the table's schema, rows in the order of the files.
    """
    table = schemas.TABLES[name]
    return storage.scan_parquet(
        [f"{root}/{name}/{path}" for path in paths],
        schema=polars_schema(table.file_schema),
        hive_partitioning=bool(table.partition_by),
        hive_schema={key: pl.String() for key in table.partition_by} or None,
        # Files of an older imagelake lack the columns that came since.
        missing_columns="insert",
    ).select(table.schema.names)


def file_names(
    root: str, name: str, version: int | None, keep: Callable[[Mapping[str, str]], bool] | None = None
) -> list[str]:
    """List the Parquet files of a table in the order of their partition, as paths on disk; see `scan_table`."""
    parts = files(root, name, version)
    return [f"{root}/{name}/{part.path}" for part in parts if keep is None or keep(part.partition)]


def polars_schema(schema: pa.Schema) -> pl.Schema:
    """Spell an Arrow schema in Polars' types."""
    return pl.DataFrame(schema.empty_table()).schema


def connect(
    root: str, table_versions: Mapping[str, int | None], *, ids: Literal["bytes", "hex"] = "bytes"
) -> "duckdb.DuckDBPyConnection":
    """Open DuckDB in memory with a view for every table.

    The connection reaches the files of these tables and no other, and no statement changes that.

    Args:
        root: the lake's folder.
        table_versions: Delta version of every table to show; None for the newest.
        ids: "hex" shows ids and hashes as text of 32 hexadecimal digits, lower case; in a folder, comparisons take
            upper case too.
    """
    import duckdb  # noqa: PLC0415 - only queries pay for it

    connection = duckdb.connect(":memory:")
    reachable: list[str] = []
    for name, version in table_versions.items():
        hexed = id_columns(name) if ids == "hex" else ()
        if storage.is_bucket(root):
            # DuckDB reads no bucket without an extension that it would have to download: Polars reads it for DuckDB,
            # and is told which columns and rows are wanted.
            connection.register(name, scan_table(root, name, version).with_columns(pl.col(hexed).bin.encode("hex")))
        else:
            reachable += _define(connection, name, file_names(root, name, version), hexed)
    if ids == "hex":
        # Queries written for ids as bytes spell them by hex(): of an id that is spelled already it returns the digits.
        connection.execute(
            "CREATE MACRO hex(x) AS CASE WHEN typeof(x) = 'VARCHAR' AND regexp_full_match(x::VARCHAR, '[0-9a-f]{32}') "
            "THEN upper(x::VARCHAR) ELSE system.main.hex(x) END"
        )
    confine(connection, reachable)
    return connection


def id_columns(name: str) -> list[str]:
    """List the columns of a table that hold ids or hashes of 16 bytes."""
    return [
        field.name
        for field in schemas.TABLES[name].schema
        if pa.types.is_binary(field.type) and field.metadata[b"unit"] == b"16 bytes"
    ]


def query(connection: "duckdb.DuckDBPyConnection", text: str) -> "duckdb.DuckDBPyRelation":
    """Run one SELECT.

    Args:
        connection: made by `connect`.
        text: one SQL statement that reads.

    Raises:
        QueryError: DuckDB refuses it, it is several statements, or it would write.
    """
    import duckdb  # noqa: PLC0415

    try:
        if refused := objection(connection, text):
            raise QueryError(refused)
        whole = _without_end(text)
        return connection.sql(text) if whole == text else query(connection, whole)
    except duckdb.Error as error:
        raise QueryError(said_by_duckdb(error)) from error


def _without_end(text: str) -> str:
    """Cut a statement before the semicolon that ends it: DuckDB cannot build on one with a comment behind that."""
    import duckdb  # noqa: PLC0415

    end = len(data := text.encode())
    for place, kind in reversed(duckdb.tokenize(text)):
        if kind != duckdb.token_type.comment and data[place : place + 1] != b";":
            break
        end = place if kind != duckdb.token_type.comment else end
    return data[:end].decode()


def said_by_duckdb(error: Exception) -> str:
    """Say in one line what DuckDB says in several, without its drawing of where in the query that is."""
    text = " ".join(_DRAWING.sub("", str(error)).split())
    if not text.startswith("Catalog Error: Table"):
        return text
    return f"{text}{'' if text.endswith(('.', '!', '?')) else '.'} Tables: {', '.join(schemas.TABLES)}."


def _define(connection: "duckdb.DuckDBPyConnection", name: str, found: list[str], hexed: Collection[str]) -> list[str]:
    """Define the view of a table. Files of an older imagelake lack the columns that came since: there they are null."""
    table = schemas.TABLES[name]
    shown = ", ".join(_as_hex(column) if column in hexed else f'"{column}"' for column in table.schema.names)
    rows = _no_rows(connection, table.schema)
    if found:
        listed = ", ".join(map(quoted, found))
        types = ", ".join(f"{quoted(key)}: 'VARCHAR'" for key in table.partition_by)
        hive = f", hive_partitioning = true, hive_types = {{{types}}}" if types else ", hive_partitioning = false"
        rows = f"SELECT * FROM read_parquet([{listed}]{hive}) UNION ALL BY NAME {rows}"  # noqa: S608 - quoted
    connection.execute(f'CREATE VIEW "{name}" AS SELECT {shown} FROM ({rows})')  # noqa: S608 - own names
    return found


def _no_rows(connection: "duckdb.DuckDBPyConnection", schema: pa.Schema) -> str:
    """Spell a query without rows that has all columns of a schema, in DuckDB's types."""
    types = connection.from_arrow(schema.empty_table()).types
    columns = (f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in zip(schema.names, types, strict=True))
    return f"SELECT {', '.join(columns)} WHERE false"


def _as_hex(column: str) -> str:
    return f'lower(system.main.hex("{column}")) COLLATE NOCASE AS "{column}"'
