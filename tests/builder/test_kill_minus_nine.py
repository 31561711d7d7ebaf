"""Law 3 with the real thing: kill -9 a build at random moments, read, build again, compare."""

import os
import random
import time
from pathlib import Path

import polars as pl
import pytest
from forked import Forked, start_command
from lakes import rows_by_content
from making import as_folder, files_of

from pipeline.builder.build import build
from pipeline.demo import synth
from pipeline.engines.local import LocalEngine
from pipeline.errors import NoReleaseError
from pipeline.lake.writers.heartbeats import delete_orphan_files
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum
from pipeline.recipe import read_recipe
from pipeline.verify import verify

pytestmark = pytest.mark.slow

TABLES = ("images", "rejects", "shards", "index", "clusters", "splits")
RECIPE = """
[lake]
root = "{root}"
[[source]]
uri = "train.tar.gz"
dataset = "g"
split = "train"
[[source]]
uri = "test"
dataset = "g"
split = "test"
[decode]
size = [28, 28]
[dedup]
rules = ["exact", "sign", "maxpool:4", "cosine:0.9", "hamming:2"]
[[split]]
name = "main"
sanitize = "sign"
train = {{ from = "train" }}
test = {{ from = "test" }}
[[baseline]]
model = "logistic"
split = "main"
train_sizes = [50]
max_iter = 5
"""


def start(recipe: Path, workers: int = 2) -> Forked:
    return start_command("build", recipe, "--workers", workers)


def recipe_at(base: Path, root: str) -> Path:
    file = base / f"{root}.toml"
    file.write_text(RECIPE.format(root=root))
    return file


def rows_of(root: Path, release: int | None = None) -> dict[str, pl.DataFrame]:
    return {name: rows_by_content(str(root), name, release) for name in TABLES}


def same(left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame]) -> bool:
    return all(left[name].equals(right[name]) for name in TABLES)


def made(recipe: Path) -> None:
    build(read_recipe(recipe), engine=LocalEngine(1))


def kill_rounds(base: Path, rounds: int, seed: int, rows: int) -> None:
    """Change the source, kill the build somewhere, look; after the last round finish, and compare with a fresh lake."""
    synth(base, rows=rows, seed=1, form="tar", workers=1)
    as_folder(base / "test", files_of(rows // 16, seed=2))
    recipe, chance = recipe_at(base, "lake"), random.Random(seed)
    running, started = start(recipe, 1), time.monotonic()
    assert running.wait() == 0
    span = time.monotonic() - started
    releases: dict[int, dict[str, pl.DataFrame]] = {}
    for number in range(rounds):
        before, release = rows_of(base / "lake"), Lake(base / "lake").release
        releases[release] = before
        as_folder(base / "test", {f"A/new{number}.png": files_of(1, seed=100 + number)["A/00000.png"]})
        os.utime(base / "train.tar.gz", ns=(number + 1, number + 1))
        running = start(recipe, 1 + number % 2)
        time.sleep(chance.uniform(0, span))
        running.kill()
        running.wait()
        if Lake(base / "lake").release == release:
            assert same(rows_of(base / "lake"), before), f"round {number}: the lake reads otherwise than before"
        assert all(not check.faults for check in verify(str(base / "lake")))
    made(recipe)
    assert delete_orphan_files(str(base / "lake")) == []
    assert all(same(rows_of(base / "lake", release), rows) for release, rows in releases.items())
    fresh = recipe_at(base, "fresh")
    made(fresh)
    assert same(rows_of(base / "lake"), rows_of(base / "fresh"))
    vacuum(str(base / "lake"), older_than_hours=0, dry_run=False)
    assert vacuum(str(base / "lake"), older_than_hours=0, dry_run=True) == []
    assert same(rows_of(base / "lake"), rows_of(base / "fresh"))


def test_a_few_kills(tmp_path: Path) -> None:
    kill_rounds(tmp_path, rounds=2, seed=1, rows=500)


@pytest.mark.stress
def test_many_kills(tmp_path: Path) -> None:
    kill_rounds(tmp_path, rounds=50, seed=2, rows=2500)


def test_the_very_first_build_killed_leaves_no_half_lake(tmp_path: Path) -> None:
    synth(tmp_path, rows=500, seed=1, form="tar", workers=1)
    as_folder(tmp_path / "test", files_of(30, seed=2))
    recipe = recipe_at(tmp_path, "lake")
    for delay in (0.1, 0.3, 0.5):
        running = start(recipe, 1)
        time.sleep(delay)
        running.kill()
        running.wait()
        try:
            Lake(tmp_path / "lake")
        except NoReleaseError:
            continue
        assert all(not check.faults for check in verify(str(tmp_path / "lake")))
    made(recipe)
    assert delete_orphan_files(str(tmp_path / "lake")) == []
    fresh = recipe_at(tmp_path, "fresh")
    made(fresh)
    assert same(rows_of(tmp_path / "lake"), rows_of(tmp_path / "fresh"))
