"""The demo, as a stranger runs it: what was planted is what is found."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.demo import compare_with_truth, demo_recipe
from pipeline.lake_handle import Lake
from pipeline.sources import resolve
from pipeline.sources.generated import plan_of
from pipeline.sources.glyphs import truth

COMMAND = Path(sys.executable).with_name("imagelake")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "lake"


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[dict[str, Any]]]:
    run = subprocess.run([COMMAND, "demo", folder, "--json"], check=True, capture_output=True, text=True)
    result: dict[str, list[dict[str, Any]]] = json.loads(run.stdout)
    return result


def test_everything_planted_is_found_and_nothing_else(found: dict[str, list[dict[str, Any]]]) -> None:
    assert [row["planted"] for row in found["truth"]] == [
        "exact copies",
        "the same picture under two labels",
        "bad files: empty",
        "bad files: truncated",
        "bad files: not_an_image",
    ]
    assert all(row["files"] == row["found"] > 0 for row in found["truth"])
    assert all(row["wrong"] == 0 for row in found["truth"])


def test_the_count_can_fail(folder: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    """Hold another truth against the lake: files that were not planted are found missing, and found ones wrong."""
    assert found
    planted = pl.DataFrame(truth(plan_of(resolve(demo_recipe(folder))[0])))
    swapped = planted.with_columns(kind=pl.col("kind").reverse(), of_path=pl.col("of_path").reverse())
    counted = compare_with_truth(Lake(folder), swapped)
    assert (counted["found"] < counted["files"]).any()
    assert (counted["wrong"] > 0).any()


def test_a_second_demo_does_nothing_and_says_the_same(folder: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    run = subprocess.run([COMMAND, "demo", folder], check=True, capture_output=True, text=True)
    assert "nothing to do; release 1: 20,693 images, 15 rejects" in run.stdout
    assert run.stdout.count("505") == 2
    assert (folder / "report.html").exists()
    assert str(folder / "report.html") in run.stdout
    assert found["scores"]


def test_the_recipe_in_data_is_the_one_that_ships() -> None:
    root = Path(__file__).parents[1]
    assert (root / "data" / "demo.toml").read_bytes() == (root / "pipeline" / "demo.toml").read_bytes()
