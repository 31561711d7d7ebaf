"""Law 3 with the real thing: kill -9 a build at random moments, read, build again, compare."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from making import as_folder, files_of

from pipeline.demo import synth
from pipeline.errors import NoReleaseError
from pipeline.lake.writers.heartbeats import delete_orphan_files
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum
from pipeline.verify import verify

COMMAND = Path(sys.executable).with_name("imagelake")
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


def start(recipe: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, "build", recipe, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def recipe_at(base: Path, root: str) -> Path:
    file = base / f"{root}.toml"
    file.write_text(RECIPE.format(root=root))
    return file


def rows_of(root: Path, release: int | None = None) -> dict[str, pl.DataFrame]:
    lake = Lake(root, release)
    return {name: lake.scan(name).collect() for name in TABLES}


def same(left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame]) -> bool:
    return all(left[name].equals(right[name]) for name in TABLES)


def kill_rounds(base: Path, rounds: int, seed: int) -> None:
    """Change the source, kill the build somewhere, look; after the last round finish, and compare with a fresh lake."""
    synth(base, rows=600, seed=1, form="tar", workers=2)
    as_folder(base / "test", files_of(60, seed=2))
    recipe, chance = recipe_at(base, "lake"), random.Random(seed)
    started = time.monotonic()
    assert start(recipe).wait() == 0
    span = time.monotonic() - started
    releases: dict[int, dict[str, pl.DataFrame]] = {}
    for number in range(rounds):
        before, release = rows_of(base / "lake"), Lake(base / "lake").release
        releases[release] = before
        as_folder(base / "test", {f"A/new{number}.png": files_of(1, seed=100 + number)["A/00000.png"]})
        os.utime(base / "train.tar.gz", ns=(number + 1, number + 1))
        build = start(recipe)
        time.sleep(chance.uniform(0, span))
        build.send_signal(signal.SIGKILL)
        build.wait()
        if Lake(base / "lake").release == release:
            assert same(rows_of(base / "lake"), before), f"round {number}: the lake reads otherwise than before"
        assert all(not check.faults for check in verify(str(base / "lake")))
    assert start(recipe).wait() == 0
    assert delete_orphan_files(str(base / "lake")) == []
    assert all(same(rows_of(base / "lake", release), rows) for release, rows in releases.items())
    fresh = recipe_at(base, "fresh")
    assert start(fresh).wait() == 0
    assert same(rows_of(base / "lake"), rows_of(base / "fresh"))
    vacuum(str(base / "lake"), older_than_hours=0, dry_run=False)
    assert vacuum(str(base / "lake"), older_than_hours=0, dry_run=True) == []
    assert same(rows_of(base / "lake"), rows_of(base / "fresh"))


def test_a_few_kills(tmp_path: Path) -> None:
    kill_rounds(tmp_path, rounds=2, seed=1)


@pytest.mark.stress
def test_many_kills(tmp_path: Path) -> None:
    kill_rounds(tmp_path, rounds=50, seed=2)


def test_the_very_first_build_killed_leaves_no_half_lake(tmp_path: Path) -> None:
    synth(tmp_path, rows=300, seed=1, form="tar", workers=2)
    as_folder(tmp_path / "test", files_of(20, seed=2))
    recipe = recipe_at(tmp_path, "lake")
    for delay in (0.3, 0.9, 1.5):
        build = start(recipe)
        time.sleep(delay)
        build.kill()
        build.wait()
        try:
            Lake(tmp_path / "lake")
        except NoReleaseError:
            continue
        assert all(not check.faults for check in verify(str(tmp_path / "lake")))
    assert start(recipe).wait() == 0
    assert delete_orphan_files(str(tmp_path / "lake")) == []
    assert start(recipe_at(tmp_path, "fresh")).wait() == 0
    assert same(rows_of(tmp_path / "lake"), rows_of(tmp_path / "fresh"))
