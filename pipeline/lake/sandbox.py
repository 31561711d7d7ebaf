"""DuckDB for the queries of anybody: it reads the tables of a lake, and nothing else; it writes nothing at all.

Two walls, as neither is enough. DuckDB itself refuses every file but those it is given; but what it may read it may
also write, and `WITH x AS (COPY ... TO 'file') FROM x` is a SELECT. So the parsed query is looked through first: for
what is more than reading, and for functions that would run what nobody has parsed.
"""

import json
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
# Functions that stand where a table would. Of the others some read files, and some run SQL that comes as a string.
_TABLES = {"generate_series", "histogram", "histogram_values", "json_each", "json_tree", "range", "repeat", "unnest"}
# What DuckDB tells about itself.
_ABOUT = ("duckdb_", "pragma_")


def confine(connection: "duckdb.DuckDBPyConnection", files: Iterable[str]) -> None:
    """Leave a connection these files and what it puts aside itself, and no way to be told otherwise.

    Args:
        connection: to a database in memory.
        files: what its views read; none where they read what Python registered.
    """
    aside = f"{tempfile.gettempdir()}/imagelake-sql-{secrets.token_hex(8)}"
    for name, value in {
        "allowed_paths": f"[{', '.join(map(quoted, files))}]",
        # Else `.tmp` in the current folder, which may be read. DuckDB makes it when memory is short, and removes it.
        "temp_directory": quoted(aside),
        # Variables of whoever calls are no tables, credentials and extensions of this machine not for queries.
        "python_enable_replacements": "false",
        "allow_persistent_secrets": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "enable_external_access": "false",
        "lock_configuration": "true",
    }.items():
        connection.execute(f"SET {name} = {value}")


def objection(connection: "duckdb.DuckDBPyConnection", text: str) -> str:
    """Say why a query may not run; empty where it may.

    Args:
        connection: any; it parses.
        text: SQL.

    Raises:
        duckdb.Error: it cannot be parsed.
    """
    import duckdb  # noqa: PLC0415 - only queries pay for it

    one_select = "a query is one SELECT statement: lakes change only through builds."
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "the query is no text: it holds bytes that are not UTF-8."
    statements = connection.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        return one_select
    parsed = connection.execute("SELECT json_serialize_sql($1)", [text]).fetchall()[0][0]
    try:
        parts = list(_parts(json.loads(parsed)))
    except RecursionError:
        return "the query is nested too deeply."
    nodes = {part["type"] for part in parts if str(part.get("type")).endswith("_NODE")}
    if not nodes or not nodes <= _READING:
        return one_select
    tables = [part.get("function", {}) for part in parts if part.get("type") == "TABLE_FUNCTION"]
    called = {str(table.get("function_name")).lower() for table in tables}
    refused = sorted(name for name in called - _TABLES if not name.startswith(_ABOUT))
    return f"{', '.join(refused)}: disabled. A query reads the tables of the lake, by name." if refused else ""


def _parts(parsed: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Every object in a JSON value."""
    rest = [parsed]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield part
            rest += part.values()
        elif isinstance(part, list):
            rest += part


def quoted(text: str) -> str:
    """Write a string in SQL."""
    return "'" + text.replace("'", "''") + "'"
