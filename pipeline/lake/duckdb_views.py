"""Query the tables of a snapshot by name with DuckDB, over a connection that can read nothing else."""

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

import polars as pl
import pyarrow as pa

import schemas
from pipeline import storage
from pipeline.errors import QueryError
from pipeline.lake.sandbox import quote, refusal_reason, restrict_connection
from pipeline.lake.snapshot import Snapshot

if TYPE_CHECKING:
    import duckdb

# The end of a DuckDB message: a line of the query, and a caret below the place of the error.
_QUERY_EXCERPT = re.compile(r"\n\s*LINE \d+: .*", re.DOTALL)


def connect(snapshot: Snapshot, *, ids: Literal["bytes", "hex"] = "bytes") -> "duckdb.DuckDBPyConnection":
    """Open DuckDB in memory with a view of every table.

    The connection can read the files of these tables and no other file. No statement can change that.

    Args:
        snapshot: the tables.
        ids: "bytes" returns ids and hashes as they are stored; "hex" returns them as text of 32 hexadecimal digits, in
            lower case. If the lake is in a folder, comparisons with such text ignore case.
    """
    import duckdb  # noqa: PLC0415 - loaded when needed

    connection = duckdb.connect(":memory:")
    allowed: list[str] = []
    for name in schemas.TABLES:
        hex_columns = id_columns(name) if ids == "hex" else []
        if storage.is_bucket(snapshot.place):
            # DuckDB would need to download an extension to read a bucket. Polars reads it instead, and only the columns
            # and rows that the query uses.
            connection.register(name, snapshot.scan(name).with_columns(pl.col(hex_columns).bin.encode("hex")))
        else:
            files = snapshot.file_places(name)
            _create_view(connection, name, files, hex_columns)
            allowed += files
    if ids == "hex":
        # Queries that are written for ids as bytes call hex(). It must leave an id that is already text as it is.
        connection.execute(
            "CREATE MACRO hex(x) AS CASE WHEN typeof(x) = 'VARCHAR' AND regexp_full_match(x::VARCHAR, '[0-9a-f]{32}') "
            "THEN upper(x::VARCHAR) ELSE system.main.hex(x) END"
        )
    restrict_connection(connection, allowed)
    return connection


def id_columns(name: str) -> list[str]:
    """List the columns of a table that hold ids or hashes of 16 bytes."""
    return [
        field.name
        for field in schemas.TABLES[name].schema
        if pa.types.is_binary(field.type) and field.metadata[b"unit"] == b"16 bytes"
    ]


def query(connection: "duckdb.DuckDBPyConnection", text: str) -> "duckdb.DuckDBPyRelation":
    """Run one SELECT statement.

    Args:
        connection: made by `connect`.
        text: SQL.

    Raises:
        QueryError: it is not one SELECT statement, it calls a disabled function, or DuckDB reports an error.
    """
    import duckdb  # noqa: PLC0415 - loaded when needed

    try:
        if reason := refusal_reason(connection, text):
            raise QueryError(reason)
        statement = _without_semicolon(text)
        return connection.sql(text) if statement == text else query(connection, statement)
    except duckdb.Error as error:
        raise QueryError(duckdb_message(error)) from error


def duckdb_message(error: Exception) -> str:
    """Return the message of a DuckDB error as one line, without the excerpt of the query."""
    text = " ".join(_QUERY_EXCERPT.sub("", str(error)).split())
    if not text.startswith("Catalog Error: Table"):
        return text
    return f"{text}{'' if text.endswith(('.', '!', '?')) else '.'} Tables: {', '.join(schemas.TABLES)}."


def _without_semicolon(text: str) -> str:
    """Cut a statement at its last semicolon. DuckDB cannot use one that a comment follows as a subquery."""
    import duckdb  # noqa: PLC0415 - loaded when needed

    end = len(data := text.encode())
    for place, kind in reversed(duckdb.tokenize(text)):
        if kind != duckdb.token_type.comment and data[place : place + 1] != b";":
            break
        end = place if kind != duckdb.token_type.comment else end
    return data[:end].decode()


def _create_view(
    connection: "duckdb.DuckDBPyConnection", name: str, files: Sequence[str], hex_columns: Collection[str]
) -> None:
    """Create the view of a table. Columns that files of an older imagelake lack are null."""
    table = schemas.TABLES[name]
    columns = ", ".join(_as_hex(column) if column in hex_columns else f'"{column}"' for column in table.schema.names)
    rows = _no_rows(connection, table.schema)
    if files:
        listed = ", ".join(map(quote, files))
        types = ", ".join(f"{quote(key)}: 'VARCHAR'" for key in table.partition_by)
        hive = f", hive_partitioning = true, hive_types = {{{types}}}" if types else ", hive_partitioning = false"
        rows = f"SELECT * FROM read_parquet([{listed}]{hive}) UNION ALL BY NAME {rows}"  # noqa: S608 - quoted
    connection.execute(f'CREATE VIEW "{name}" AS SELECT {columns} FROM ({rows})')  # noqa: S608 - quoted


def _no_rows(connection: "duckdb.DuckDBPyConnection", schema: pa.Schema) -> str:
    """Return a query without rows that has all columns of a schema, in DuckDB's types."""
    types = connection.from_arrow(schema.empty_table()).types
    columns = (f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in zip(schema.names, types, strict=True))
    return f"SELECT {', '.join(columns)} WHERE false"


def _as_hex(column: str) -> str:
    return f'lower(system.main.hex("{column}")) COLLATE NOCASE AS "{column}"'
