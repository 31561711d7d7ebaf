"""Query the tables of a snapshot by name with DuckDB, in a connection that reads nothing else."""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

import polars as pl
import pyarrow as pa

import schemas
from pipeline import storage
from pipeline.errors import QueryError
from pipeline.lake.sandbox import confine, objection, quoted
from pipeline.lake.snapshot import Snapshot

if TYPE_CHECKING:
    import duckdb

# DuckDB repeats a line of the query, and draws a caret below it.
_DRAWING = re.compile(r"\n\s*LINE \d+: .*", re.DOTALL)


def connect(snapshot: Snapshot, *, ids: Literal["bytes", "hex"] = "bytes") -> "duckdb.DuckDBPyConnection":
    """Open DuckDB in memory with a view for every table.

    The connection reads the files of these tables and no other, and no statement changes that.

    Args:
        snapshot: the tables.
        ids: "hex" shows ids and hashes as text of 32 hexadecimal digits, lower case; in a folder, comparisons take
            upper case too.
    """
    import duckdb  # noqa: PLC0415 - loaded when needed

    connection = duckdb.connect(":memory:")
    reachable: list[str] = []
    for name in schemas.TABLES:
        hexed = id_columns(name) if ids == "hex" else ()
        if storage.is_bucket(snapshot.place):
            # DuckDB needs a downloaded extension to read a bucket. Polars reads it instead, only the columns and rows
            # that the query uses.
            connection.register(name, snapshot.scan(name).with_columns(pl.col(hexed).bin.encode("hex")))
        else:
            reachable += _define(connection, name, snapshot.file_places(name), hexed)
    if ids == "hex":
        # Queries written for ids as bytes call hex(): for an id that is text already it returns the digits.
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
    import duckdb  # noqa: PLC0415 - loaded when needed

    try:
        if refused := objection(connection, text):
            raise QueryError(refused)
        whole = _without_end(text)
        return connection.sql(text) if whole == text else query(connection, whole)
    except duckdb.Error as error:
        raise QueryError(duckdb_message(error)) from error


def _without_end(text: str) -> str:
    """Cut a statement before its final semicolon: DuckDB cannot use one with a comment behind it as a subquery."""
    import duckdb  # noqa: PLC0415 - loaded when needed

    end = len(data := text.encode())
    for place, kind in reversed(duckdb.tokenize(text)):
        if kind != duckdb.token_type.comment and data[place : place + 1] != b";":
            break
        end = place if kind != duckdb.token_type.comment else end
    return data[:end].decode()


def duckdb_message(error: Exception) -> str:
    """Return the message of a DuckDB error in one line, without its drawing of the place in the query."""
    text = " ".join(_DRAWING.sub("", str(error)).split())
    if not text.startswith("Catalog Error: Table"):
        return text
    return f"{text}{'' if text.endswith(('.', '!', '?')) else '.'} Tables: {', '.join(schemas.TABLES)}."


def _define(connection: "duckdb.DuckDBPyConnection", name: str, found: list[str], hexed: Collection[str]) -> list[str]:
    """Define the view of a table. Columns that files of an older imagelake lack are null."""
    table = schemas.TABLES[name]
    shown = ", ".join(_as_hex(column) if column in hexed else f'"{column}"' for column in table.schema.names)
    rows = _no_rows(connection, table.schema)
    if found:
        listed = ", ".join(map(quoted, found))
        types = ", ".join(f"{quoted(key)}: 'VARCHAR'" for key in table.partition_by)
        hive = f", hive_partitioning = true, hive_types = {{{types}}}" if types else ", hive_partitioning = false"
        rows = f"SELECT * FROM read_parquet([{listed}]{hive}) UNION ALL BY NAME {rows}"  # noqa: S608 - quoted
    connection.execute(f'CREATE VIEW "{name}" AS SELECT {shown} FROM ({rows})')  # noqa: S608 - quoted
    return found


def _no_rows(connection: "duckdb.DuckDBPyConnection", schema: pa.Schema) -> str:
    """Write a query without rows that has all columns of a schema, in DuckDB's types."""
    types = connection.from_arrow(schema.empty_table()).types
    columns = (f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in zip(schema.names, types, strict=True))
    return f"SELECT {', '.join(columns)} WHERE false"


def _as_hex(column: str) -> str:
    return f'lower(system.main.hex("{column}")) COLLATE NOCASE AS "{column}"'
