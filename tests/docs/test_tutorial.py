"""The pages of the tutorial: their queries run, and the notebook is compared with what is stored."""

import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pipeline.lake_handle import Lake

PROJECT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (PROJECT / "docs" / "tutorial").glob("*.md")}
CODE = [(name, code) for name, text in PAGES.items() for code in re.findall(r"`([^`\n]+)`", text)]
QUERIES = [(name, shlex.split(code)[3]) for name, code in CODE if code.startswith("imagelake sql ")]
LINES = [(name, code) for name, code in CODE if re.match(r"lake\.(scan|sql)\(", code)]


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebook", PROJECT / "docs" / "run_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_query_of_the_pages_runs(small_lake: Lake) -> None:
    assert len(QUERIES) > 12
    for _, query in QUERIES:
        small_lake.sql(query).fetchall()
    assert len(LINES) > 8
    for _, line in LINES:
        assert eval(line, {"lake": small_lake}) is not None  # noqa: S307 - lines of our own pages


def test_the_pages_name_sections_of_the_report_that_exist() -> None:
    templates = "".join(path.read_text() for path in (PROJECT / "pipeline" / "report" / "templates").glob("*.j2"))
    named = {
        name
        for text in PAGES.values()
        for row in re.findall(r"(?m)^\| picture \| .*report, (.*)\|$", text)
        for name in re.findall(r'"([^"]+)"', row)
    }
    assert len(named) > 8
    written = re.sub(r"\{\{ \"roles\".*?\}\}", "roles", re.sub(r"\{\{ \"role\".*?\}\}", "role", templates))
    assert [name for name in sorted(named) if f">{name}</h" not in written] == []


def test_the_first_page_has_every_page_and_every_recipe_of_a_notebook() -> None:
    index = PAGES["index.md"]
    assert [name for name in PAGES if name != "index.md" and f"({name})" not in index] == []
    quick = {path.stem for path in (PROJECT / "data" / "quick").glob("*.toml")}
    assert quick == set(re.findall(r"`data/(\w+)\.toml`", index))
    for entry in ("README.md", "docs/index.md"):
        assert re.search(r"\]\((docs/)?tutorial/index\.md\)", (PROJECT / entry).read_text(encoding="utf-8"))


def cell(text: str, kind: str = "text") -> dict[str, Any]:
    if kind == "picture":
        return {"outputs": [{"data": {"image/png": text, "text/plain": "<Figure>"}}]}
    return {"outputs": [{"text": text}]}


@pytest.mark.parametrize(
    ("before", "now", "differ"),
    [
        (cell("7,197 images, 20.5 s in all"), cell("7,197 images, 3.1 s in all"), False),
        (cell("7,197 images at 2,028 images/s"), cell("7,197 images at 1 images/s"), False),
        (cell("7,197 images"), cell("7,198 images"), True),
        (cell("│ 50 ┆ 0.25  ┆"), cell("│ 50 ┆ 0.261 ┆"), False),
        (cell("│ 50 ┆ 0.25  ┆"), cell("│ 50 ┆ 0.281 ┆"), True),
        (cell("│ 50 ┆ 0.25  ┆"), cell("│ 51 ┆ 0.25  ┆"), True),
        (cell("a", "picture"), cell("b", "picture"), False),
        (cell("a", "picture"), cell("b"), True),
        (cell("a"), {"outputs": []}, True),
    ],
)
def test_counts_must_be_equal_and_times_need_not(
    runner: ModuleType, before: dict[str, Any], now: dict[str, Any], *, differ: bool
) -> None:
    assert bool(runner.differences(SimpleNamespace(cells=[before]), SimpleNamespace(cells=[now]))) == differ


@pytest.mark.parametrize("own_folder", [True, False])
def test_the_notebook_leaves_archives_as_they_are(runner: ModuleType, tmp_path: Path, *, own_folder: bool) -> None:
    """In their own folder, and in another one that links to them; each twice."""
    cells = ["".join(one["source"]) for one in json.loads(runner.NOTEBOOK.read_text(encoding="utf-8"))["cells"]]
    (cell_of_archives,) = (text for text in cells if text.startswith("%%sh") and "NOTMNIST" in text)
    names = ("notMNIST_large.tar.gz", "notMNIST_small.tar.gz")
    archives = tmp_path / "archives"
    archives.mkdir()
    for name in names:
        (archives / name).write_text(name)
    work = archives if own_folder else tmp_path
    for _ in range(2):
        command = ["/bin/sh", "-c", cell_of_archives.removeprefix("%%sh")]
        subprocess.run(command, cwd=work, env={"NOTMNIST": str(archives), "PATH": "/usr/bin:/bin"}, check=True)
        assert [(folder / name).read_text() for folder in (work, archives) for name in names] == [*names, *names]


def test_each_fault_of_the_notebook_has_its_own_advice(runner: ModuleType) -> None:
    assert runner.faults_of([], 600_000) == []
    assert runner.faults_of(["cell 1 gives"], 600_000) == ["cell 1 gives", "Store new outputs with --write."]
    assert runner.faults_of([], 600_001) == ["it has 600,001 bytes; 600,000 are allowed. Draw smaller pictures."]


def test_the_notebook_is_stored_executed_without_errors_and_is_small(runner: ModuleType) -> None:
    assert runner.NOTEBOOK.stat().st_size <= 600_000
    cells = [one for one in json.loads(runner.NOTEBOOK.read_text(encoding="utf-8"))["cells"] if "outputs" in one]
    assert all(one["execution_count"] for one in cells)
    outputs = [output for one in cells for output in one["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 5
    for problem in range(1, 7):
        assert f"## Problem {problem}:" in runner.NOTEBOOK.read_text(encoding="utf-8")
    assert "/tmp/" not in runner.NOTEBOOK.read_text(encoding="utf-8")  # noqa: S108 - the folder is called /data there
