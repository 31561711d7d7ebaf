"""The demo, as a stranger runs it but a tenth as large: what was planted is what is found."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from commands import run_command

from pipeline.builder.publish import try_to_write_report
from pipeline.demo import compare_with_truth, demo_recipe
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe, parse_recipe
from pipeline.sources import resolve
from pipeline.sources.generated import plan_of
from pipeline.sources.glyphs import truth


def small_recipe(directory: Path) -> Recipe:
    """Read the recipe of the demo, with a tenth of the images and two of the models."""
    values = demo_recipe(directory).model_dump(by_alias=True, exclude_unset=True)
    for source in values["source"]:
        source["rows"] = 2_000
    values["source"][0]["min_per_class"] = 150
    values["split"][0]["valid"]["size"] = 100
    values["baseline"][0]["train_sizes"] = [50, "all"]
    return parse_recipe(values, base=directory.parent)


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.demo.demo_recipe", small_recipe)
        patch.setattr("pipeline.builder.build.try_to_write_report", try_to_write_report)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "lake"


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[dict[str, Any]]]:
    run = run_command("demo", folder, "--json", "--workers", 1)
    assert run.exit_code == 0
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
    planted = pl.DataFrame(truth(plan_of(resolve(small_recipe(folder))[0])))
    swapped = planted.with_columns(kind=pl.col("kind").reverse(), of_path=pl.col("of_path").reverse())
    counted = compare_with_truth(Lake(folder), swapped)
    assert (counted["found"] < counted["files"]).any()
    assert (counted["wrong"] > 0).any()


def test_a_second_demo_does_nothing_and_says_the_same(folder: Path, found: dict[str, list[dict[str, Any]]]) -> None:
    run = run_command("demo", folder, "--workers", 1)
    assert "nothing to do; release 1: 2,065 images, 6 rejects" in run.stdout
    assert "│ exact copies                      ┆ 51    ┆ 51    ┆ 0     │" in run.stdout
    assert (folder / "report.html").exists()
    assert str(folder / "report.html") in run.stdout
    assert found["scores"]


def test_the_whole_demo_has_as_many_images_of_each_class_as_its_recipe_demands(tmp_path: Path) -> None:
    train, test = demo_recipe(tmp_path).source
    plan = plan_of(resolve(demo_recipe(tmp_path))[0])
    assert (train.rows, test.rows) == (20_000, 20_000)
    assert min(Counter(plan.labels.tolist()).values()) > (train.min_per_class or 0) > 1_000


def test_the_recipe_in_data_is_the_one_that_ships() -> None:
    root = Path(__file__).parents[1]
    assert (root / "data" / "demo.toml").read_bytes() == (root / "pipeline" / "demo.toml").read_bytes()
