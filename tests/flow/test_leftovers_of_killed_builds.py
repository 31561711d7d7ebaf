"""A build that kill -9 ends at a given place: the next deletes what it left, and nothing that any release reads."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from making import as_folder, as_tar, files_of, recipe

import schemas
from pipeline.engines.local import LocalEngine
from pipeline.errors import SplitError
from pipeline.flow.build import Built, build
from pipeline.flow.verify import verify
from pipeline.handle import Lake
from pipeline.recipe import Recipe

# A build in a process of its own that kills itself when a function is entered for the nth time.
DYING = """
import os, signal, sys
from importlib import import_module
from pipeline.engines.local import LocalEngine
from pipeline.flow.build import build
from pipeline.recipe import parse_recipe
from pathlib import Path

base, root, module, name, nth = sys.argv[1:]
owner = import_module(module)
*inner, last = name.split(".")
for part in inner:
    owner = getattr(owner, part)
real, entered = getattr(owner, last), 0

def dying(*args, **options):
    global entered
    entered += 1
    if entered == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)

setattr(owner, last, dying)
uri = {"uri": "in.tar", "dataset": "d", "split": "train"}, {"uri": "in", "dataset": "d", "split": "test"}
values = {"lake": {"root": root}, "source": list(uri), "dedup": {"rules": ["exact", "sign", "maxpool:4"]}}
values["split"] = [{"name": "main", "train": {"from": "train"}, "test": {"from": "test"}}]
build(parse_recipe(values, base=Path(base)), engine=LocalEngine(1))
"""
# Where it dies: in the middle of a shard's files, between shards, before each commit, and between stages.
PLACES = {
    "before the first image": ("pipeline.lake.parts", "PartWriter.write", 1),
    "with the images of a shard open": ("pipeline.lake.parts", "PartWriter.close", 1),
    "between the files of an index": ("pipeline.lake.parts", "PartWriter.close", 3),
    "in the second shard": ("pipeline.lake.parts", "PartWriter.close", 6),
    "before checking": ("pipeline.flow.ingest", "check_paths", 1),
    **{f"before commit {n}": ("deltalake", "DeltaTable.create_write_transaction", n) for n in range(1, 8)},
    "between clusters": ("pipeline.flow.cluster", "cluster_by_keys", 3),
    "before the release": ("pipeline.flow.build", "publish", 1),
    "before the report": ("pipeline.flow.build", "write_report", 1),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    as_tar(tmp_path / "in.tar", files_of(30), "w")
    as_folder(tmp_path / "in", files_of(20, seed=1))
    return tmp_path


def the_recipe(base: Path, root: str = "lake") -> Recipe:
    return recipe(
        base,
        {"uri": "in.tar"},
        {"uri": "in", "split": "test"},
        lake={"root": root},
        dedup={"rules": ["exact", "sign", "maxpool:4"]},
        split=[{"name": "main", "train": {"from": "train"}, "test": {"from": "test"}}],
    )


def built(base: Path, root: str = "lake") -> Built:
    return build(the_recipe(base, root), engine=LocalEngine(1))


def killed(base: Path, place: str) -> None:
    module, name, nth = PLACES[place]
    run = subprocess.run(
        [sys.executable, "-c", DYING, base, "lake", module, name, str(nth)], check=False, capture_output=True, text=True
    )
    assert run.returncode == -9, run.stderr


def change(base: Path) -> None:
    as_tar(base / "in.tar", files_of(35, seed=2), "w")
    as_folder(base / "in", {"A/new.png": files_of(1, seed=9)["A/00000.png"]})


def rows_of(root: Path, release: int | None = None) -> Mapping[str, pl.DataFrame]:
    lake = Lake(root, release)
    return {name: lake.scan(name).collect() for name in schemas.TABLES if name not in ("scores", "releases")}


def unnamed(root: Path) -> list[str]:
    """List what lies in the lake and belongs to no version of any table, as Delta itself tells."""
    named = {root / "report.html", root / ".lock"}
    for name in schemas.TABLES:
        if not (root / name / "_delta_log").exists():
            continue
        for version in range(DeltaTable(root / name).version() + 1):
            table = DeltaTable(root / name, version=version)
            named |= {Path(uri.removeprefix("file://")) for uri in table.file_uris()}
            named |= {root / name / "_delta_log" / f"{version:020d}.json"}
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path not in named)


@pytest.mark.parametrize("place", PLACES)
def test_the_next_build_deletes_what_a_killed_one_left(place: str, base: Path) -> None:
    first = rows_of(Path(built(base).root))
    change(base)
    killed(base, place)
    lake = base / "lake"
    assert any(path.startswith(".writers/") for path in unnamed(lake))
    built(base)
    assert unnamed(lake) == []
    assert all(not check.faults for check in verify(str(lake)))
    built(base, "fresh")
    for release, wanted in ((1, first), (Lake(lake).release, rows_of(base / "fresh"))):
        found = rows_of(lake, release)
        assert all(found[name].equals(rows) for name, rows in wanted.items()), f"release {release}"


@pytest.mark.parametrize("place", ["between the files of an index", "before commit 1", "before commit 5"])
def test_a_lake_whose_first_build_was_killed_holds_nothing_else_after_the_next(place: str, base: Path) -> None:
    killed(base, place)
    built(base)
    assert unnamed(base / "lake") == []
    assert Lake(base / "lake").release == 1


def test_a_killed_build_does_leave_files(base: Path) -> None:
    killed(base, "before checking")
    assert len([path for path in unnamed(base / "lake") if path.endswith(".parquet")]) == 8


def test_a_later_stage_that_fails_leaves_no_file_either(base: Path) -> None:
    built(base)
    asked = the_recipe(base).split[0].model_dump(by_alias=True, exclude_none=True)
    roles = {"train": {"from": "train", "size": 20}, "test": {"from": "test", "size": 500}}
    greedy = recipe(
        base,
        {"uri": "in.tar"},
        {"uri": "in", "split": "test"},
        dedup={"rules": ["exact", "maxpool:2"]},
        split=[{**asked, "name": "other", "train": roles["train"], "test": roles["test"]}],
    )
    with pytest.raises(SplitError):
        build(greedy, engine=LocalEngine(1))
    assert unnamed(base / "lake") == []
