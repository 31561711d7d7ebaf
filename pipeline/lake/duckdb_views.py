"""Query the tables of a snapshot by name with DuckDB, over a connection that can read nothing else.

A query of any origin reads the tables of a lake, reads nothing else, and writes nothing. There are two barriers,
because neither is enough alone. DuckDB itself refuses all files except the allowed ones. But it may also write the
files that it may read, and `WITH x AS (COPY ... TO 'file') FROM x` is a SELECT. So the parsed query is checked first:
for anything that does more than read, and for functions that run SQL which was not parsed. See
docs/decisions/0025-sql-guard.md.
"""

import json
import re
import secrets
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
import pyarrow as pa

import schemas
from pipeline import storage
from pipeline.errors import DamagedLakeError, QueryError
from pipeline.lake.snapshot import Snapshot, has_partition_names

if TYPE_CHECKING:
    import duckdb


# Kinds of queries that only read.
_READ_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
# Table functions that are allowed. Of the others, some read files and some run SQL that is given as a string.
_TABLE_FUNCTIONS = {
    "generate_series",
    "histogram",
    "histogram_values",
    "json_each",
    "json_tree",
    "range",
    "repeat",
    "unnest",
}
# Table functions that begin with these words return facts about DuckDB. They are allowed too.
_CATALOG_FUNCTIONS = ("duckdb_", "pragma_")


def restrict_connection(connection: "duckdb.DuckDBPyConnection", files: Iterable[str]) -> None:
    """Restrict a connection to some files and its own temporary files, and lock this setting.

    Args:
        connection: a connection to a database in memory.
        files: the files that its views read; none if they read registered Python objects.
    """
    temp_folder = f"{tempfile.gettempdir()}/imagelake-sql-{secrets.token_hex(8)}"
    for name, value in {
        "allowed_paths": f"[{', '.join(map(quote, files))}]",
        # The default is `.tmp` in the current folder, which may be read only. DuckDB makes the folder when it runs out
        # of memory, and removes it.
        "temp_directory": quote(temp_folder),
        # A query must not read Python variables of the caller, nor use credentials and extensions of this machine.
        "python_enable_replacements": "false",
        "allow_persistent_secrets": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "enable_external_access": "false",
        "lock_configuration": "true",
    }.items():
        connection.execute(f"SET {name} = {value}")


def refusal_reason(connection: "duckdb.DuckDBPyConnection", text: str) -> str:
    """Return why a query must not run; empty if it may.

    Args:
        connection: any connection; it parses the query.
        text: SQL.

    Raises:
        duckdb.Error: the query cannot be parsed.
    """
    import duckdb  # noqa: PLC0415 - loaded when needed

    not_one_select = "a query must be one SELECT statement. Only builds change a lake."
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "the query contains bytes that are not UTF-8."
    statements = connection.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        return not_one_select
    parsed = connection.execute("SELECT json_serialize_sql($1)", [text]).fetchall()[0][0]
    try:
        parts = list(_objects(json.loads(parsed)))
    except RecursionError:
        return "the query is nested too deeply."
    nodes = {part["type"] for part in parts if str(part.get("type")).endswith("_NODE")}
    if not nodes or not nodes <= _READ_NODES:
        return not_one_select
    tables = [part.get("function", {}) for part in parts if part.get("type") == "TABLE_FUNCTION"]
    called = {str(table.get("function_name")).lower() for table in tables}
    refused = sorted(name for name in called - _TABLE_FUNCTIONS if not name.startswith(_CATALOG_FUNCTIONS))
    return f"{', '.join(refused)}: disabled. A query can read only the tables of the lake, by name." if refused else ""


def quote(text: str) -> str:
    """Return a string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _objects(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Return every object in a JSON value, at any depth."""
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield part
            rest += part.values()
        elif isinstance(part, list):
            rest += part


# The end of a DuckDB message: a line of the query, and a caret below the place of the error.
_QUERY_EXCERPT = re.compile(r"\n\s*LINE \d+: .*", re.DOTALL)
# A view with a column for each attribute of the images.
WIDE_VIEW = "attributes_wide"
_DUCKDB_TYPES = {
    "text": "VARCHAR",
    "int": "BIGINT",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "datetime": "TIMESTAMP",
}
# The type of an attribute that has two types in two datasets, as in `sources.attributes.common_type`; else text.
_COMMON_TYPES = {frozenset({"int", "float"}): "float", frozenset({"date", "datetime"}): "datetime"}
# The unit, in a schema, of ids, hashes and digests of files.
_ID_UNITS = (b"16 bytes", b"32 bytes")


def connect(snapshot: Snapshot, *, ids: Literal["bytes", "hex"] = "bytes") -> "duckdb.DuckDBPyConnection":
    """Open DuckDB in memory with a view of every table.

    The connection can read the files of these tables and no other file. No statement can change that.

    Args:
        snapshot: the tables.
        ids: "bytes" returns ids and hashes as they are stored; "hex" returns them as text of hexadecimal digits, in
            lower case: 32, or 64 for the digest of a file. If the lake is in a folder, comparisons with such text
            ignore case.

    Raises:
        DamagedLakeError: a file of a table is missing or cannot be read.
    """
    import duckdb  # noqa: PLC0415 - loaded when needed

    connection = duckdb.connect(":memory:")
    allowed: list[str] = []
    for name in schemas.TABLES:
        hex_columns = id_columns(name) if ids == "hex" else []
        if storage.is_bucket(snapshot.place) or has_partition_names(snapshot.place):
            # DuckDB would need to download an extension to read a bucket, and would take folders above the lake for
            # partitions. Polars reads the table instead, and only the columns and rows that the query uses.
            connection.register(name, snapshot.scan(name).with_columns(pl.col(hex_columns).bin.encode("hex")))
        else:
            files = snapshot.file_places(name)
            try:
                with storage.damage_errors(f"{snapshot.place}/{name}"):
                    storage.check_readable(files)
                    _create_view(connection, name, files, hex_columns)
            except duckdb.Error as error:
                raise DamagedLakeError(
                    f"{snapshot.place}/{name}: cannot be read ({_duckdb_message(error)}). Repair it with: "
                    f"imagelake build {snapshot.place} --repair"
                ) from error
            allowed += files
    _create_wide_view(connection, snapshot)
    if ids == "hex":
        # Queries that are written for ids as bytes call hex(). It must leave an id that is already text as it is.
        connection.execute(
            "CREATE MACRO hex(x) AS CASE WHEN typeof(x) = 'VARCHAR' "
            "AND regexp_full_match(x::VARCHAR, '([0-9a-f]{32}){1,2}') "
            "THEN upper(x::VARCHAR) ELSE system.main.hex(x) END"
        )
    restrict_connection(connection, allowed)
    return connection


def id_columns(name: str) -> list[str]:
    """List the columns of a table that hold ids, hashes or digests of 16 or 32 bytes."""
    return [
        field.name
        for field in schemas.TABLES[name].schema
        if pa.types.is_binary(field.type) and field.metadata[b"unit"] in _ID_UNITS
    ]


def query(connection: "duckdb.DuckDBPyConnection", text: str) -> "duckdb.DuckDBPyRelation":
    """Run one SELECT statement.

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
        raise QueryError(_duckdb_message(error)) from error


@contextmanager
def query_errors() -> Iterator[None]:
    """Turn the errors that DuckDB, Arrow and Polars raise while a query runs into QueryError.

    Raises:
        QueryError: the query failed.
    """
    import duckdb  # noqa: PLC0415 - loaded when needed

    try:
        yield
    except (duckdb.Error, pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as error:
        raise QueryError(_duckdb_message(error)) from error


def _duckdb_message(error: Exception) -> str:
    """Return the message of a DuckDB error as one line, without the excerpt of the query."""
    text = " ".join(_QUERY_EXCERPT.sub("", str(error)).split())
    if not text.startswith("Catalog Error: Table"):
        return text
    return f"{text}{'' if text.endswith(('.', '!', '?')) else '.'} Tables: {', '.join([*schemas.TABLES, WIDE_VIEW])}."


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


def _create_wide_view(connection: "duckdb.DuckDBPyConnection", snapshot: Snapshot) -> None:
    """Create the view attributes_wide: one row per image, and a column for each attribute, of its type.

    An attribute of lists, such as labels, is a column of lists, sorted by the text of the values. Any other is null
    where an image has several values.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for unit in snapshot.metadata("attributes").units.values():
        for name, described in unit["names"].items():
            found.setdefault(name, []).append(described)
    taken, columns = {"image_id"}, ["image_id"]
    for name, parts in sorted(found.items()):
        kinds = {part["type"] for part in parts}
        kind = kinds.pop() if len(kinds) == 1 else _COMMON_TYPES.get(frozenset(kinds), "text")
        value = f"TRY_CAST(value AS {_DUCKDB_TYPES[kind]})"
        of_name = f"FILTER (name = {quote(name)})"
        if any(part["list"] for part in parts):
            made = f"list({value} ORDER BY value) {of_name}"
        else:
            made = f"CASE WHEN count(*) {of_name} = 1 THEN any_value({value}) {of_name} END"
        # DuckDB ignores case in names of columns.
        free, number = name, 0
        while free.lower() in taken:
            number += 1
            free = f"{name}_{number}"
        taken.add(free.lower())
        quoted = free.replace('"', '""')
        columns.append(f'{made} AS "{quoted}"')
    connection.execute(
        f"CREATE VIEW {WIDE_VIEW} AS SELECT {', '.join(columns)} FROM attributes GROUP BY image_id"  # noqa: S608 - quoted
    )


def _no_rows(connection: "duckdb.DuckDBPyConnection", schema: pa.Schema) -> str:
    """Return a query without rows that has all columns of a schema, in DuckDB's types."""
    types = connection.from_arrow(schema.empty_table()).types
    columns = (f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in zip(schema.names, types, strict=True))
    return f"SELECT {', '.join(columns)} WHERE false"


def _as_hex(column: str) -> str:
    return f'lower(system.main.hex("{column}")) COLLATE NOCASE AS "{column}"'
