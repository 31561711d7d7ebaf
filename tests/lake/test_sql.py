import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from lakes import shared_connections

from pipeline.cli.sql import sql_command
from pipeline.errors import QueryError
from pipeline.lake_handle import Lake
from pipeline.sql import first_rows
from schemas import TABLES


@pytest.fixture(scope="module", autouse=True)
def _shared_connections() -> Iterator[None]:
    with shared_connections():
        yield


def test_every_table_can_be_queried_by_name(small_lake: Lake) -> None:
    for table in ("images", "rejects", "shards", "index", "pairs", "clusters", "splits", "scores", "releases"):
        frame = small_lake.scan(table).collect()
        assert small_lake.sql(f'select count(*) from "{table}"').fetchall() == [(len(frame),)]
        assert small_lake.sql(f"from {table}").columns == frame.columns


def test_duckdb_and_polars_agree(small_lake: Lake) -> None:
    ours = small_lake.scan("clusters").group_by("rule", "label").len().sort("rule", "label").collect()
    theirs = first_rows(
        small_lake, "select rule, label, count(*) n from clusters group by all order by all", most=100
    ).first
    assert theirs.rows() == ours.rows()


@pytest.mark.parametrize(
    "text",
    [
        "drop view images",
        "create table t as select 1",
        "copy (select 1) to 'out.csv'",
        "select 1; select 2",
        "set enable_external_access = true",
        "attach 'x.db'",
        "install httpfs",
        "pragma database_list",
        "selekt 1",
        "select * from clusterz",
        "",
    ],
)
def test_anything_but_one_select_is_refused_in_one_line(small_lake: Lake, text: str, tmp_path: Path) -> None:
    with pytest.raises(QueryError) as caught:
        first_rows(small_lake, text, most=100)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_file_outside_the_lake_can_be_read(small_lake: Lake, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for text in (
        f"from read_csv('{secret}')",
        f"from '{secret}'",
        f"from read_text('{small_lake.root}/../../{secret.name}')",
    ):
        with pytest.raises(QueryError, match="Permission|disabled|No files"):
            first_rows(small_lake, text, most=100)


def test_a_query_that_fails_while_it_runs_is_one_line(small_lake: Lake) -> None:
    with pytest.raises(QueryError, match="Could not convert"):
        first_rows(small_lake, "select label::int from images", most=100)


def test_an_older_release_is_queried_as_it_was(small_lake: Lake) -> None:
    assert (
        first_rows(small_lake.at(1), "select count(*) n from images", most=100).first["n"].item()
        == small_lake.scan("images").collect().height
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("select sum(file_size) - sum(file_size) as x from images", 0),
        ("select 1.5 as x", 1.5),
        ("select 'nan'::double as x", None),
        ("select date '2026-11-21' as x", "2026-11-21"),
        (r"select '\xff'::blob as x", "ff"),
    ],
)
def test_every_sql_value_is_printed_as_json(small_lake: Lake, text: str, shown: object) -> None:
    result = CliRunner().invoke(sql_command, [small_lake.root, text, "--json"])
    assert json.loads(result.stdout) == [{"x": shown}]


@pytest.mark.parametrize("table", TABLES)
def test_every_column_can_be_named_without_quotes(small_lake: Lake, table: str) -> None:
    columns = TABLES[table].schema.names
    assert small_lake.sql(f"select {', '.join(columns)} from {table} order by {columns[-1]} limit 1").columns == columns


def test_the_queries_of_the_docs_run(small_lake: Lake) -> None:
    root = Path(__file__).parents[2]
    queries = (root / "docs" / "reference" / "scores.md").read_text(encoding="utf-8").split("\n    select")[1:]
    recipes = [file.read_text(encoding="utf-8") for file in (root / "data").glob("*.toml")]
    recipes.append((root / "docs" / "how-to" / "sql.md").read_text(encoding="utf-8"))
    queries += [query for text in recipes for query in re.findall(r'imagelake sql \S+ "select([^"]*)"', text)]
    assert len(queries) >= 2
    for query in queries:
        small_lake.sql("select" + query.replace("#", " ").split("\n\n")[0], ids="hex").fetchall()
