"""Every command, run as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Run

from pipeline import cli
from pipeline.builder.build import ENGINES
from pipeline.engines.local import LocalEngine
from pipeline.errors import ImagelakeError
from pipeline.lake_handle import Lake

COMMAND = Path(sys.executable).with_name("imagelake")
README = Path(__file__).parents[2] / "README.md"


def test_status_shows_tables_rejects_and_what_is_next(small_lake: Lake, run: Run) -> None:
    text = run("status", small_lake.root).stdout
    assert "release 1" in text
    assert "not_an_image" in text
    assert "has nothing to do" in text
    data = json.loads(run("status", small_lake.root, "--json").stdout)
    assert {row["table"]: row["rows"] for row in data["tables"]}["images"] == 160
    assert data["todo"] == []


def test_overlap_shows_both_matrices(small_lake: Lake, run: Run) -> None:
    data = json.loads(run("overlap", small_lake.root, "--json").stdout)
    cells = {(row["rule"], row["role"]): row for row in data["matrix"]}
    assert cells["exact", "d/test"]["d/train"] == 10
    by_role = json.loads(run("overlap", small_lake.root, "--split", "main", "--json").stdout)
    assert {row["role"] for row in by_role["matrix"]} == {"train", "test"}
    assert "Label conflicts" in run("overlap", small_lake.root).stdout


def test_sql_prints_rows(small_lake: Lake, run: Run) -> None:
    query = "select split, count(*) n from images group by all order by all"
    assert json.loads(run("sql", small_lake.root, query, "--json").stdout) == [
        {"split": "test", "n": 40},
        {"split": "train", "n": 120},
    ]
    assert "│ train ┆ 120 │" in run("sql", small_lake.root, query).stdout
    assert "<784 bytes>" in run("sql", small_lake.root, "select image_id, pixels from images limit 1").stdout


def test_verify_history_and_vacuum(small_lake: Lake, run: Run) -> None:
    result = run("verify", small_lake.root)
    assert result.exit_code == 0
    assert "FAIL" not in result.stdout
    assert json.loads(run("history", small_lake.root, "--json").stdout)[0]["release"] == 1
    assert "ingest d/train (train): new" in run("history", small_lake.root, "--json").stdout
    assert "0 files would be deleted" in run("vacuum", small_lake.root, "--dry-run").stdout


def test_report_is_written_where_it_is_asked_for(small_lake: Lake, run: Run, tmp_path: Path) -> None:
    run("report", small_lake.root, "--out", tmp_path / "page.html")
    assert '<meta name="imagelake-release" content="1">' in (tmp_path / "page.html").read_text()


def test_synth_draws_the_same_bytes_for_the_same_seed(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("synth", tmp_path / name, "--rows", 150, "--seed", 3, "--workers", 1)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["test.tar.gz", "train.tar.gz", "truth.parquet"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    data = json.loads(run("synth", tmp_path / "c", "--rows", 150, "--to", "folder", "--workers", 1, "--json").stdout)
    assert data["files"] == len(list((tmp_path / "c").rglob("*.png")))


def test_a_built_synth_set_is_the_demo_in_three_commands(run: Run, tmp_path: Path) -> None:
    run("synth", tmp_path, "--rows", 150, "--workers", 1)
    (tmp_path / "r.toml").write_text(
        '[lake]\nroot = "lake"\n'
        '[[source]]\nuri = "train.tar.gz"\ndataset = "g"\nsplit = "train"\n'
        '[[source]]\nuri = "test.tar.gz"\ndataset = "g"\nsplit = "test"\n'
    )
    text = run("build", tmp_path / "r.toml", "--workers", 1).stdout
    assert "built release 1: " in text
    assert "nothing to do; release 1" in run("build", tmp_path / "r.toml").stdout
    again = json.loads(run("build", tmp_path / "r.toml", "--json").stdout)
    assert again["done"] == []


def test_an_engine_is_chosen_by_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def other(workers: int | None) -> LocalEngine:
        asked.append(workers)
        return LocalEngine(1)

    run("synth", tmp_path, "--rows", 100, "--workers", 1)
    (tmp_path / "r.toml").write_text(
        '[lake]\nroot = "lake"\n[[source]]\nuri = "test.tar.gz"\ndataset = "g"\nsplit = "test"\n'
    )
    monkeypatch.setitem(ENGINES, "local", other)
    assert run("build", tmp_path / "r.toml", "--engine", "local", "--workers", 7).exit_code == 0
    assert asked == [7]
    assert run("build", tmp_path / "r.toml", "--engine", "other").exit_code == 2
    nowhere = run("build", tmp_path / "r.toml", "--ray-address", "127.0.0.1:1")
    assert nowhere.exit_code == 2
    assert "--engine ray" in nowhere.stderr


def test_errors_are_one_line_on_stderr_and_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> None:
        def command(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(cli, "_imagelake", command)

    fail(ImagelakeError("what, where, what next"))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    fail(KeyError("a bug"))
    with pytest.raises(KeyError):
        cli.main()


def test_a_backend_of_jupyter_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter names one that another environment may not have. matplotlib then fails when it is imported."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setattr("sys.argv", ["imagelake", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(word: str) -> None:
    code = (
        f"import sys; sys.argv = ['imagelake', '{word}']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'polars', 'pyarrow', 'deltalake', 'duckdb', 'sklearn', 'matplotlib', 'PIL', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_a_small_build_imports_no_model_no_plots_and_no_pandas(tmp_path: Path) -> None:
    rows = "".join(f"{'ab'[row % 2]}{f',{row}' * 64}\n" for row in range(30))
    (tmp_path / "letters.csv").write_text("label" + "".join(f",pixel{n}" for n in range(64)) + "\n" + rows)
    code = (
        "import sys; sys.argv = ['imagelake', 'build', sys.argv[1], '--into', sys.argv[2], '--workers', '1']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit as stopped: assert not stopped.code\n"
        "print(sorted({'sklearn', 'matplotlib', 'duckdb', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "letters.csv"), str(tmp_path / "lake")]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (tmp_path / "lake" / "report.html").exists()
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", cli._COMMANDS)  # noqa: SLF001 - the list itself
def test_every_command_is_in_the_readme_and_explains_itself(name: str, run: Run) -> None:
    assert f"imagelake {name}" in README.read_text()
    assert len(run(name, "--help").stdout.splitlines()) > 5


def test_an_unknown_command_is_refused() -> None:
    done = subprocess.run([COMMAND, "bild"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "No such command 'bild'" in done.stderr
