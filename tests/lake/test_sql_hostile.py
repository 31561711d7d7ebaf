"""Hostile SQL reads only the tables of the lake and writes nothing."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipeline.errors import QueryError
from pipeline.lake.duckdb_views import connect, query
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake

COMMAND = Path(sys.executable).with_name("imagelake")
HIDDEN = "not of the lake"
# Queries that read a file by its path.
READERS = (
    "from read_text('{}')",
    "from read_blob('{}')",
    "from read_csv('{}')",
    "from read_csv(['{}'], header = false)",
    "from read_json('{}')",
    "from read_ndjson_objects('{}')",
    "from read_parquet('{}')",
    "from parquet_scan('{}')",
    "from parquet_metadata('{}')",
    "from parquet_kv_metadata('{}')",
    "from sniff_csv('{}')",
    "from glob('{}')",
    "from '{}'",
    "from images, lateral (from read_text('{}'))",
    "select (select content from read_text('{}'))",
    "with x as materialized (from read_text('{}')) from x",
    "from (summarize from read_text('{}'))",
    "from query('from read_text(''{}'')')",
    "from json_execute_serialized_sql(json_serialize_sql('from read_text(''{}'')'))",
    "select * from read_duckdb('{}', table_name := 't')",
)
# Places of the file: {base} contains the secret and the lake, which is the current folder.
PLACES = (
    "{base}/secret.csv",
    "{lake}/../secret.csv",
    "{lake}//..//secret.csv",
    "../secret.csv",
    "{lake}/link.csv",
    "{lake}/out/secret.csv",
    "{lake}/images/_delta_log/../../../secret.csv",
    "file://{base}/secret.csv",
    "/proc/self/cwd/../secret.csv",
    # In the lake's folder, but not in a table.
    "{lake}/left.csv",
    "left.csv",
    "{lake}/.tmp/aside.csv",
    ".tmp/aside.csv",
)
FAR = ("/etc/passwd", "/proc/self/environ", "/dev/stdin", "http://127.0.0.1:9/x.csv", "s3://bucket/x.parquet")
STATEMENTS = (
    "copy images to '{lake}/w.csv'",
    "export database '{lake}/w'",
    "attach '{lake}/w.db'",
    "create table t as select 1",
    "create or replace view images as select 1",
    "create macro m() as table select 1",
    "create secret s (type s3)",
    "drop view images",
    "insert into images select * from images",
    "delete from images",
    "install httpfs",
    "load httpfs",
    "call enable_logging()",
    "call pragma_version()",
    "pragma database_list",
    "set memory_limit = '1KB'",
    "reset allowed_paths",
    "set variable x = 1",
    "use memory",
    "begin",
    "checkpoint",
    "vacuum",
    "prepare p as select 1",
    "execute p",
    "explain select 1",
    "explain analyze copy images to '{lake}/w.csv'",
    "select 1; copy images to '{lake}/w.csv'",
    "select 1;; select 2",
    "select 1 /* ; */; -- \n drop view images",
    "select 1 into t",
    "",
    ";",
)
WRITERS = (
    "with x as (copy (select 1) to '{lake}/w.csv') from x",
    "with x as materialized (copy (select 1) to '{lake}/w.csv') from x",
    "from (with x as (copy (select 1) to '{lake}/w.csv') from x)",
    "with x as (copy (select 1 as a) to '{file}' (format parquet, use_tmp_file false)) from x",
    "with x as (copy (select 1 as a) to '{base}/w' (format csv, partition_by (a))) from x",
    "with x as (insert into images select * from images returning *) from x",
    "with x as (delete from images returning *) from x",
    "with x as (update images set label = 'B') from x",
    "from query('with x as (copy (select 1) to ''{lake}/w.csv'') from x')",
    "from json_execute_serialized_sql(json_serialize_sql('with x as (copy (select 1) to ''{lake}/w.csv'') from x'))",
    "from destroy_external_resource('json_execute_serialized_sql', '{tree}')",
    "from Destroy_External_Resource('query', 'from read_text(''{lake}/left.csv'')')",
    "from system.main.\"json_execute_serialized_sql\"('{tree}')",
    "from register_external_resource_type('t', kind := 'x', create_function := 'query')",
    "from enable_logging(storage := 'file', storage_path := '{lake}/w')",
)


@pytest.fixture(scope="module")
def lake(small_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with a secret beside it, links to the secret, and files in its folder that belong to no table."""
    base = tmp_path_factory.mktemp("hostile")
    root = base / "lake"
    shutil.copytree(small_lake.root, root)
    for file in (base / "secret.csv", root / "left.csv", root / ".tmp" / "aside.csv"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"a\n{HIDDEN}\n")
    (root / "link.csv").symlink_to(base / "secret.csv")
    (root / "out").symlink_to(base)
    return Lake(root)


@pytest.fixture(scope="module")
def connections(lake: Lake) -> Iterator[dict[str, duckdb.DuckDBPyConnection]]:
    """One connection for each form of ids: no query may change the next one's."""
    snapshot = Snapshot(lake.root)
    with connect(snapshot) as plain, connect(snapshot, ids="hex") as hexadecimal:
        yield {"bytes": plain, "hex": hexadecimal}


@pytest.fixture(autouse=True)
def _inside(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run every query in the lake's folder; check that no file changes."""
    monkeypatch.chdir(lake.root)
    before = listing(Path(lake.root).parent)
    yield
    assert listing(Path(lake.root).parent) == before
    assert not list(Path(tempfile.gettempdir()).glob("imagelake-sql-*"))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    found = (Path(at) / name for at, folders, files in os.walk(folder) for name in (*folders, *files))
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


def assert_refused(run: Callable[[str], duckdb.DuckDBPyRelation], text: str) -> None:
    """Run a query that must be refused, in one line."""
    with pytest.raises(QueryError) as caught:
        pytest.fail(f"it ran: {run(text).limit(3).pl().rows()}")
    assert "\n" not in str(caught.value)
    assert HIDDEN not in str(caught.value)


def filled(lake: Lake, text: str) -> str:
    return text.format(**places_in(lake.root))


@cache
def places_in(root: str) -> dict[str, str]:
    """Return the values of the names in braces: the lake, its folder, one of its files, a parsed query."""
    places = {"lake": root, "base": str(Path(root).parent)}
    places["file"] = str(next(Path(root).glob("images/**/*.parquet")))
    query = WRITERS[0].format(**places)
    tree = duckdb.connect().execute("select json_serialize_sql($1)", [query]).fetchall()[0][0]
    return places | {"tree": tree.replace("'", "''")}


@pytest.mark.parametrize("ids", ["bytes", "hex"])
@pytest.mark.parametrize("place", [*PLACES, *FAR])
def test_no_function_reads_a_file_outside_the_tables(
    lake: Lake, connections: dict[str, duckdb.DuckDBPyConnection], place: str, ids: str
) -> None:
    connection = connections[ids]
    for reader in READERS:
        text = reader.format(filled(lake, place))
        assert_refused(partial(query, connection), text)
        # DuckDB's settings alone refuse it too.
        with pytest.raises(duckdb.Error):
            pytest.fail(f"it ran: {connection.sql(text).limit(3).fetchall()}")


@pytest.mark.parametrize("text", [*STATEMENTS, *WRITERS])
def test_nothing_but_one_select_that_only_reads(
    lake: Lake, connections: dict[str, duckdb.DuckDBPyConnection], text: str
) -> None:
    for connection in connections.values():
        assert_refused(partial(query, connection), filled(lake, text))


@pytest.mark.parametrize("root", ["{lake}/", ".", "../lake", "{base}/out"])
def test_however_the_root_is_given(lake: Lake, root: str, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(lake.root)
    spelling = root.format(lake=lake.root, base=tmp_path)
    opened = Lake(spelling)
    assert opened.sql("select count(*) from images").fetchall() == [(lake.scan("images").collect().height,)]
    run = partial(query, connect(Snapshot(opened.root)))
    for place in (*PLACES, *FAR):
        assert_refused(run, f"from '{filled(lake, place)}'")


def test_python_variables_cannot_be_queried(lake: Lake) -> None:
    found = rows = pa.table({"a": [HIDDEN]})
    assert_refused(lake.sql, "from found")
    run = partial(query, connect(Snapshot(lake.root)))
    for name in ("found", "rows", "lake", "root", "connection", "text", "name", "PLACES", "environ", "_define"):
        assert_refused(run, f"from {name}")
        assert_refused(run, f"from query_table('{name}')")
    assert found is rows


def test_the_environment_and_extensions_are_out_of_reach(lake: Lake) -> None:
    for text in ("select getenv('HOME')", "from which_secret('s3://b/k', 's3')", "from sqlite_scan('a', 'b')"):
        assert_refused(lake.sql, text)


def test_no_credentials_of_the_machine_are_listed(lake: Lake) -> None:
    assert lake.sql("from duckdb_secrets()").fetchall() == []


def test_temporary_files_go_to_the_temporary_folder(lake: Lake) -> None:
    (aside,) = lake.sql("select current_setting('temp_directory')").fetchall()[0]
    assert Path(aside).parent == Path(tempfile.gettempdir())
    assert lake.sql("select current_setting('lock_configuration')").fetchall() == [(True,)]


@pytest.mark.parametrize(
    "text",
    [
        "from images",
        "table images",
        "values (1)",
        "describe images",
        "summarize splits",
        "show tables",
        "select 1 -- ; copy",
        "select '\"type\":\"COPY_QUERY_NODE\"', '; drop view images'",
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 9) from t",
        "select label from images union select role from splits order by 1",
        "from (pivot splits on role in ('train', 'test') using count(*))",
        "select unnest(range(3)), repeat('x', 3), list_transform([1], lambda x: x + 1)",
        "from range(3), generate_series(2)",
        "from duckdb_settings()",
        "select * from images qualify row_number() over (partition by label) = 1",
        " + ".join(["1"] * 200).join(("select ", "")),
    ],
)
def test_queries_that_only_read_run(connections: dict[str, duckdb.DuckDBPyConnection], text: str) -> None:
    for connection in connections.values():
        query(connection, text).pl()


def test_a_query_nested_too_deeply_is_refused_in_one_line(lake: Lake) -> None:
    assert_refused(lake.sql, "select " + " + ".join(["1"] * 900))


def test_the_command_refuses_in_one_line_and_exits_with_1(lake: Lake) -> None:
    done = subprocess.run(
        [COMMAND, "sql", lake.root, 'select * from "\x1b[2J\u202e"'], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"\x1b" not in done.stderr
    assert b"\\x1b[2J\\u202e" in done.stderr
