"""A build that kill -9 ends at a given place: the next deletes what it left, and nothing that any release reads."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from making import as_folder, as_tar, files_of, recipe

import schemas
from pipeline.builder.build import Built, build
from pipeline.engines.local import LocalEngine
from pipeline.errors import SplitError
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe
from pipeline.verify import verify

# Builds in processes of their own, each of which kills itself when a function is entered for the nth time. What they
# import is imported once; how each ended is told as the shell does, negative where a signal ended it.
DYING = """
import os, signal, sys, traceback
from importlib import import_module
from pipeline.engines.local import LocalEngine
from pipeline.builder.build import build
from pipeline.recipe import parse_recipe
from pathlib import Path

def main(base, module, name, nth):
    owner = import_module(module)
    *inner, last = name.split(".")
    for part in inner:
        owner = getattr(owner, part)
    real, entered = getattr(owner, last), 0

    def dying(*args, **options):
        nonlocal entered
        entered += 1
        if entered == int(nth):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    setattr(owner, last, dying)
    uri = {"uri": "in.tar", "dataset": "d", "split": "train"}, {"uri": "in", "dataset": "d", "split": "test"}
    values = {"lake": {"root": "lake"}, "source": list(uri), "dedup": {"rules": ["exact", "sign", "maxpool:4"]}}
    values["split"] = [{"name": "main", "train": {"from": "train"}, "test": {"from": "test"}}]
    build(parse_recipe(values, base=Path(base)), engine=LocalEngine(1))

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            main(*line.rstrip("\\n").split("\\t"))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# Where it dies: in the middle of a shard's files, between shards, before each commit, and between stages.
PLACES = {
    "before the first image": ("pipeline.lake.parquet_writer", "PartWriter.write", 1),
    "with the images of a shard open": ("pipeline.lake.parquet_writer", "PartWriter.close", 1),
    "between the files of an index": ("pipeline.lake.parquet_writer", "PartWriter.close", 3),
    "in the second shard": ("pipeline.lake.parquet_writer", "PartWriter.close", 6),
    "before checking": ("pipeline.builder.ingest", "check_paths", 1),
    **{f"before commit {n}": ("deltalake", "DeltaTable.create_write_transaction", n) for n in range(1, 8)},
    "between clusters": ("pipeline.builder.clusters", "cluster_by_keys", 3),
    "before the release": ("pipeline.builder.build", "publish", 1),
    "before the report": ("pipeline.builder.build", "write_report", 1),
}


Kill = Callable[[Path, str], None]


@pytest.fixture(scope="module")
def kill() -> Iterator[Kill]:
    """Start a build in a folder, which dies at a place."""
    command = [sys.executable, "-c", DYING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def killed(base: Path, place: str) -> None:
            assert server.stdin is not None
            assert server.stdout is not None
            print(base, *PLACES[place], sep="\t", file=server.stdin, flush=True)
            assert server.stdout.readline() == "-9\n"

        yield killed


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return started(tmp_path)


def started(base: Path) -> Path:
    as_tar(base / "in.tar", files_of(30), "w")
    as_folder(base / "in", files_of(20, seed=1))
    return base


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders with sources and a lake built from nothing: before a change of the sources, and after it."""
    before, after = started(tmp_path_factory.mktemp("before")), tmp_path_factory.mktemp("after")
    built(before)
    shutil.copytree(before, after, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lake"))
    change(after)
    built(after)
    return before, after


def the_recipe(base: Path) -> Recipe:
    return recipe(
        base,
        {"uri": "in.tar"},
        {"uri": "in", "split": "test"},
        dedup={"rules": ["exact", "sign", "maxpool:4"]},
        split=[{"name": "main", "train": {"from": "train"}, "test": {"from": "test"}}],
    )


def built(base: Path) -> Built:
    return build(the_recipe(base), engine=LocalEngine(1))


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
def test_the_next_build_deletes_what_a_killed_one_left(
    place: str, lakes: tuple[Path, Path], tmp_path: Path, kill: Kill
) -> None:
    before, after = lakes
    base, lake = tmp_path / "base", tmp_path / "base" / "lake"
    shutil.copytree(after, base, ignore=shutil.ignore_patterns("lake"))
    shutil.copytree(before / "lake", lake)
    kill(base, place)
    assert any(path.startswith(".writers/") for path in unnamed(lake))
    built(base)
    assert unnamed(lake) == []
    assert all(not check.faults for check in verify(str(lake)))
    for release, wanted in ((1, rows_of(before / "lake")), (Lake(lake).release, rows_of(after / "lake"))):
        found = rows_of(lake, release)
        assert all(found[name].equals(rows) for name, rows in wanted.items()), f"release {release}"


@pytest.mark.parametrize("place", ["between the files of an index", "before commit 1", "before commit 5"])
def test_a_lake_whose_first_build_was_killed_holds_nothing_else_after_the_next(
    place: str, base: Path, kill: Kill
) -> None:
    kill(base, place)
    built(base)
    assert unnamed(base / "lake") == []
    assert Lake(base / "lake").release == 1


def test_a_killed_build_does_leave_files(base: Path, kill: Kill) -> None:
    kill(base, "before checking")
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
