"""`imagelake sql` as people use it: ids in hexadecimal digits, tables that can be read, and files with all rows."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from commands import Run
from damaged_lakes import Case, copy_of
from lakes import shared_connections

from pipeline.cli.show import wide
from pipeline.errors import LakeError, QueryError
from pipeline.lake.duckdb_views import id_columns
from pipeline.lake_handle import Lake
from pipeline.sql import all_rows
from schemas import TABLES

COMMAND = Path(sys.executable).with_name("imagelake")
IDS = [(table, column) for table in TABLES for column in id_columns(table)]


def rows(run: Run, lake: str, query: str) -> list[dict[str, object]]:
    done = run("sql", lake, query, "--json")
    assert done.stderr == ""
    return json.loads(done.stdout)  # type: ignore[no-any-return] # a list of rows


@pytest.fixture(scope="module", autouse=True)
def _shared_connections() -> Iterator[None]:
    with shared_connections():
        yield


@pytest.fixture(scope="module")
def ids(small_lake: Lake) -> list[str]:
    return small_lake.scan("images").select(pl.col("image_id").bin.encode("hex")).collect().to_series().to_list()


def test_ids_and_hashes_are_the_columns_that_the_schemas_say() -> None:
    assert set(IDS) == {
        ("images", "image_id"),
        ("images", "content_hash"),
        ("images", "file_digest"),
        ("originals", "image_id"),
        ("originals", "file_digest"),
        ("attributes", "image_id"),
        ("index", "image_id"),
        ("pairs", "left_id"),
        ("pairs", "right_id"),
        ("clusters", "cluster_id"),
        ("clusters", "image_id"),
        ("measurements", "content_hash"),
        ("issues", "image_id"),
        ("issues", "other_id"),
        ("splits", "image_id"),
        ("splits", "dropped_for"),
        ("misses", "image_id"),
        ("misses", "nearest_id"),
        ("predictions", "image_id"),
        ("verdicts", "verdict_id"),
        ("verdicts", "file_digest"),
        ("verdicts", "content_hash"),
        ("verdicts", "other_file_digest"),
        ("verdicts", "other_content_hash"),
        ("verdicts", "withdraws"),
    }


@pytest.mark.parametrize(("table", "column"), IDS)
def test_ids_are_shown_and_accepted_as_digits(whole_case: Case, run: Run, table: str, column: str) -> None:
    stored = Lake(whole_case.root).scan(table).select(pl.col(column).drop_nulls().bin.encode("hex")).collect()
    assert [row[column] for row in rows(run, whole_case.root, f"select {column} from {table}") if row[column]] == (
        stored.to_series().to_list()
    )
    wanted = stored.item(0, 0)
    ways = (
        f"{column} = '{wanted}'",
        f"{column} = '{wanted.upper()}'",
        f"{column} in ('{wanted}', 'x')",
        f"{column} like '{wanted[:9]}%'",
        f"lower(hex({column})) = '{wanted}'",
        f"unhex({column}) = unhex('{wanted}')",
    )
    found = ", ".join(f'list(distinct {column}) filter (where {way}) as "{at}"' for at, way in enumerate(ways))
    assert rows(run, whole_case.root, f"select {found} from {table}") == [
        {str(at): [wanted] for at in range(len(ways))}
    ]


def test_tables_are_joined_by_ids(small_lake: Lake, run: Run, ids: list[str]) -> None:
    text = f"select i.path from images i join splits s using (image_id) where s.image_id = '{ids[3]}'"
    assert len(rows(run, small_lake.root, text)) == 1
    text = "select count(*) n from clusters c join images i on c.cluster_id = i.image_id"
    assert rows(run, small_lake.root, text)[0]["n"] == Lake(small_lake.root).scan("clusters").collect().height


def test_python_keeps_bytes(small_lake: Lake, ids: list[str]) -> None:
    (found,) = small_lake.sql(f"select image_id from images where image_id = unhex('{ids[0]}')").fetchall()
    assert found == (bytes.fromhex(ids[0]),)
    assert small_lake.sql("select image_id from images limit 1", ids="hex").fetchall()[0][0] == ids[0]


def test_what_compares_ids_with_bytes_is_told_that_they_are_text(small_lake: Lake, run: Run, ids: list[str]) -> None:
    for right in (f"unhex('{ids[0]}')", r"'\x93'::blob", "cast('a' as BYTEA)"):
        done = run("sql", small_lake.root, f"select path from images where image_id = {right}")
        assert "Ids are text here" in done.stderr
    assert run("sql", small_lake.root, "select path from images where label = 'blob'").stderr != ""
    assert run("sql", small_lake.root, "select path from images where label = 'no'").stderr == ""


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ("select pixels as x from images limit 1", 784),
        ("select vector as x from index where rule = 'cosine:0.95' limit 1", None),
        ("select basis as x from bases", None),
        ("select encode(repeat('a', 5000)) as x", 5000),
    ],
)
def test_long_bytes_are_summarised_in_every_form_for_people(
    whole_case: Case, run: Run, query: str, size: int | None
) -> None:
    stored = Lake(whole_case.root).sql(query).fetchall()[0][0]
    text = f"<{len(stored):,} bytes>"
    assert size in (None, len(stored))
    assert rows(run, whole_case.root, query) == [{"x": text}]
    assert f"│ {text} │" in run("sql", whole_case.root, query).stdout
    assert list(csv.reader(io.StringIO(run("sql", whole_case.root, query, "--csv").stdout))) == [["x"], [text]]


@pytest.mark.parametrize("wrapped", ["list(pixels)", "{{'p': any_value(pixels)}}", "map(['p'], [any_value(pixels)])"])
def test_bytes_inside_of_lists_and_structs_are_too(small_lake: Lake, run: Run, wrapped: str) -> None:
    query = f"select {wrapped} as x from (select pixels from images limit 2)".replace("{{", "{").replace("}}", "}")
    for form in ([], ["--json"], ["--csv"]):
        assert "<784 bytes>" in run("sql", small_lake.root, query, *form).stdout


def test_json_is_all_rows_and_nothing_else(small_lake: Lake, run: Run) -> None:
    for count in (0, 1, 2_500, 70_000):
        query = f"select i, i::varchar as t from range({count}) t(i) order by i"
        assert rows(run, small_lake.root, query) == [{"i": i, "t": str(i)} for i in range(count)]


@pytest.mark.parametrize("end", ["", ";", " ; ;", "; -- all", " -- all", ";/* all; */ -- ä", " -- ;"])
def test_a_statement_may_end_in_a_semicolon_and_comments(small_lake: Lake, run: Run, end: str) -> None:
    assert rows(run, small_lake.root, f"select ';ä' as x{end}") == [{"x": ";ä"}]


def test_csv_is_all_rows_with_their_names(small_lake: Lake, run: Run) -> None:
    query = "select label, path, image_id, null as nothing, '' as empty, 'a,\"b\"' as quoted from images order by all"
    text = run("sql", small_lake.root, query, "--csv").stdout
    known = small_lake.scan("images").sort("label", "path", "image_id").collect()
    found = list(csv.DictReader(io.StringIO(text)))
    assert [row["image_id"] for row in found] == known["image_id"].bin.encode("hex").to_list()
    assert [row["path"] for row in found] == known["path"].to_list()
    assert {(row["nothing"], row["empty"], row["quoted"]) for row in found} == {("", "", 'a,"b"')}
    assert run("sql", small_lake.root, "select 1 as a, 'x' as b where false", "--csv").stdout == "a,b\n"
    assert run("sql", small_lake.root, "select i from range(70000) t(i)", "--csv").stdout.count("\n") == 70_001


def test_csv_is_exact_in_a_file_and_harmless_on_a_terminal(small_lake: Lake, run: Run) -> None:
    query = "select 'a' || chr(27) || '[2J' as x, 'two' || chr(10) || 'lines' as \"\x1b[2J\", 1 as \"\\x1b[2J\""
    words = ("sql", small_lake.root, query, "--csv")
    exact = b'x,\x1b[2J,\\x1b[2J\na\x1b[2J,"two\nlines",1\n'
    assert run(*words).stdout_bytes == exact
    ours, theirs = pty.openpty()
    with subprocess.Popen((COMMAND, *words), stdout=theirs) as done:
        os.close(theirs)
        shown = os.read(ours, 4096)
        done.wait()
    os.close(ours)
    assert b"\x1b" not in shown
    assert shown.replace(b"\r\n", b"\n") == exact.replace(b"\x1b", b"\\x1b")


@pytest.mark.parametrize(
    ("count", "told"), [(1_000, ""), (1_001, "1,000 of 1,001 rows"), (9**8, "1,000 of 43,046,721")]
)
def test_a_table_that_is_cut_says_so(small_lake: Lake, run: Run, count: int, told: str) -> None:
    done = run("sql", small_lake.root, f"select i from range({count}) t(i)")
    assert done.stdout.count("\n") == 1_004
    assert done.stderr.startswith(told)
    assert (done.stderr == "") == (not told)
    if told:
        assert done.stderr.endswith("rows shown; --csv, --json or --parquet FILE give all.\n")


@pytest.mark.parametrize("statement", ["show tables", "SHOW TABLES;", " show   tables "])
def test_show_tables_lists_the_tables_only(small_lake: Lake, run: Run, statement: str) -> None:
    assert rows(run, small_lake.root, statement) == [{"name": name} for name in sorted([*TABLES, "attributes_wide"])]
    assert small_lake.sql(statement).fetchall() == [(name,) for name in sorted([*TABLES, "attributes_wide"])]


@pytest.mark.parametrize("table", TABLES)
def test_describe_lists_the_columns(small_lake: Lake, run: Run, table: str) -> None:
    found = rows(run, small_lake.root, f"describe {table}")
    assert [row["column_name"] for row in found] == TABLES[table].schema.names


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("table", TABLES)
def test_wide_tables_fit_the_terminal(
    whole_case: Case, run: Run, monkeypatch: pytest.MonkeyPatch, table: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = run("sql", whole_case.root, f"select * from {table} limit 3")
    assert max(map(wide, done.stdout.splitlines())) <= width
    stored = Lake(whole_case.root).scan(table).collect()
    assert len(stored) or "exports" in table
    unbroken = re.sub(r"\n +│ ", "", done.stdout)
    for name in TABLES[table].schema.names:
        assert name in done.stdout
    for name in id_columns(table):
        if stored[name].drop_nulls().len() == len(stored):
            assert stored.head(1)[name].bin.encode("hex").item() in unbroken


def test_a_wide_table_of_many_rows_is_cut_earlier(small_lake: Lake, run: Run) -> None:
    done = run("sql", small_lake.root, "select * from images")
    assert done.stderr == "100 of 160 rows shown; --csv, --json or --parquet FILE give all.\n"
    assert done.stdout.count("── row ") == 100


def test_parquet_has_all_rows_and_all_bytes(small_lake: Lake, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    file.write_text("from before")
    done = run("sql", small_lake.root, "select * from images order by image_id", "--parquet", file)
    assert done.stdout == f"rows: 160, columns: 15, written to {file} ({file.stat().st_size:,} bytes)\n"
    found, known = pl.read_parquet(file), small_lake.scan("images").sort("image_id").collect()
    assert found["pixels"].equals(known["pixels"])
    assert found["image_id"].to_list() == known["image_id"].bin.encode("hex").to_list()
    run("sql", small_lake.root, "select i from range(200000) t(i) where i >= 0", "--parquet", file)
    assert pl.read_parquet(file)["i"].equals(pl.Series("i", range(200_000)))
    run("sql", small_lake.root, "select path from images where false", "--parquet", file)
    assert pl.read_parquet_schema(file) == {"path": pl.String}
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_a_query_that_fails_leaves_the_file_as_it_was(small_lake: Lake, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    file.write_text("from before")
    late = "select case when i < 150000 then i::varchar else 'x' end::int as v from range(200000) t(i)"
    for query in ("select label::int from images", "select nothing from images", "copy images to 'x'", late):
        with pytest.raises(QueryError):
            run("sql", small_lake.root, query, "--parquet", file)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.parquet", "from before")]


@pytest.fixture(scope="module")
def copied(whole_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A copy of the lake that no test may change."""
    return copy_of(whole_case, tmp_path_factory.mktemp("copied") / "base")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("{lake}/images/x.parquet", "a table of a lake"),
        ("{lake}/images/_delta_log/x.parquet", "a table of a lake"),
        ("{lake}/clusters/../splits/split_name=main/x.parquet", "a table of a lake"),
        ("{link}/x.parquet", "a table of a lake"),
        ("{lake}/report.html", "lies in the lake"),
        ("{lake}/.lock", "lies in the lake"),
        ("{lake}/new.parquet", "lies in the lake"),
        ("{folder}/none/x.parquet", "No such file or directory"),
        ("{folder}", "is a folder"),
        ("/dev/null", "is a device or pipe"),
        ("s3://bucket/x.parquet", "cannot be written to a bucket"),
    ],
)
def test_nothing_of_a_lake_is_written_over(copied: Case, run: Run, tmp_path: Path, place: str, message: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(Path(copied.root) / "images")
    before = {str(path): path.lstat().st_mtime_ns for path in copied.base.rglob("*")}
    with pytest.raises(LakeError, match=message):
        run("sql", copied.root, "select 1", "--parquet", place.format(lake=copied.root, folder=tmp_path, link=link))
    assert {str(path): path.lstat().st_mtime_ns for path in copied.base.rglob("*")} == before
    assert Path("/dev/null").is_char_device()


def test_the_forms_exclude_one_another(small_lake: Lake, run: Run, tmp_path: Path) -> None:
    for words in (("--csv", "--json"), ("--csv", "--parquet", tmp_path / "x"), ("--json", "--parquet", tmp_path / "x")):
        done = run("sql", small_lake.root, "select 1", *words)
        assert done.exit_code == 2
        assert "choose one" in done.stderr
    assert not list(tmp_path.iterdir())


def test_whatever_duckdb_returns_is_written_in_every_form(small_lake: Lake, run: Run, tmp_path: Path) -> None:
    query = (
        'select 1 as a, 2 as a, 3 as "b""c", interval 1 day as i, \'101\'::bit as bits, 1::hugeint as h, null as n, '
        "[1, 2] as l, {'k': [1]} as s, timetz '12:00:00+02' as t, union_value(k := 1) as u, 1.50::decimal(4, 2) as d, "
        "'x'::enum('x') as e, timestamptz '2026-11-21 00:00:00+00' as z, 'nan'::double as f, true as yes"
    )
    (row,) = rows(run, small_lake.root, query)
    assert (row["a"], row["a_1"], row['b"c'], row["i"], row["bits"], row["h"]) == (1, 2, 3, "1 day", "101", 1)
    assert (row["l"], row["s"], row["u"], row["d"], row["e"], row["f"]) == ([1, 2], {"k": [1]}, "1", 1.5, "x", None)
    assert run("sql", small_lake.root, query).exit_code == 0
    header, values = csv.reader(io.StringIO(run("sql", small_lake.root, query, "--csv").stdout))
    assert dict(zip(header, values, strict=True)) | {"l": "[1, 2]", "s": '{"k": [1]}', "d": "1.50", "n": ""} == dict(
        zip(header, values, strict=True)
    )
    run("sql", small_lake.root, query, "--parquet", tmp_path / "x.parquet")
    assert pq.read_schema(tmp_path / "x.parquet").names == header


def test_errors_are_one_line_and_name_what_is_near(small_lake: Lake, run: Run) -> None:
    for query, said in (
        ("select imge_id from images", 'Candidate bindings: "image_id"'),
        ("select 1 from image", 'Did you mean "images"? Tables: images, originals, rejects, '),
        ("selec 1", 'syntax error at or near "selec"'),
    ):
        for form in ([], ["--json"], ["--csv"]):
            with pytest.raises(QueryError) as caught:
                run("sql", small_lake.root, query, *form)
            assert said in str(caught.value)
            assert "LINE 1" not in str(caught.value)
            assert "\n" not in str(caught.value)


def test_rows_come_a_batch_at_a_time(small_lake: Lake) -> None:
    frames = all_rows(small_lake, "select i from range(100000000000) t(i)")
    assert len(next(frames)) < 1_000_000
    frames.close()  # type: ignore[attr-defined] # a generator
