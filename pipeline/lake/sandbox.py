"""Restrict DuckDB for queries of any origin: they read the tables of a lake, read nothing else, and write nothing.

There are two barriers, because neither is enough alone. DuckDB itself refuses all files except the allowed ones. But it
may also write the files that it may read, and `WITH x AS (COPY ... TO 'file') FROM x` is a SELECT. So the parsed query
is checked first: for anything that does more than read, and for functions that run SQL which was not parsed. See
docs/decisions/0025-sql-guard.md.
"""

import json
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

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
