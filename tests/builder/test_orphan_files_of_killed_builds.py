"""The next build deletes the files that a killed build left, and no file that a release reads."""

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from dying import two_sources
from forked import Forked
from lakes import rows_by_content
from making import as_folder, as_tar, files_of, recipe

import schemas
from pipeline.builder.build import Built, build
from pipeline.engines.local import LocalEngine
from pipeline.errors import SplitError
from pipeline.lake_handle import Lake
from pipeline.verify import verify

pytestmark = pytest.mark.slow

# Where it dies: in the middle of a shard's files, between shards, before each commit, and between stages.
PLACES = {
    "before the first image": ("pipeline.lake.parquet_writer", "PartWriter.write", 1),
    "with the images of a shard open": ("pipeline.lake.parquet_writer", "PartWriter.close", 1),
    "between the files of an index": ("pipeline.lake.parquet_writer", "PartWriter.close", 4),
    "in the second shard": ("pipeline.lake.parquet_writer", "PartWriter.close", 7),
    "before checking": ("pipeline.builder.ingest", "check_paths", 1),
    **{f"before commit {n}": ("deltalake", "DeltaTable.create_write_transaction", n) for n in range(1, 10)},
    "between clusters": ("pipeline.builder.clusters", "cluster_by_keys", 3),
    "before the release": ("pipeline.builder.build", "publish", 1),
    "before the report": ("pipeline.builder.build", "try_to_write_report", 1),
}


Rows = Mapping[str, pl.DataFrame]
# What ends otherwise than its neighbours is tried each time, the rest by `make stress`.
RARE = ("in the second shard", "before checking", "between clusters", *(f"before commit {n}" for n in (2, 3, 4, 7, 8)))


def kill(base: Path, place: str) -> None:
    """Start a build in a folder, which dies at a place."""
    assert Forked("dying:build_and_die", base, *PLACES[place]).wait() == -signal.SIGKILL


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return started(tmp_path)


def started(base: Path) -> Path:
    as_tar(base / "in.tar", files_of(30), "w")
    as_folder(base / "in", files_of(20, seed=1))
    names = [f"{name},p{number % 7}" for number, name in enumerate(files_of(35))]
    (base / "facts.csv").write_text("\n".join(["path,patient", *names]))
    return base


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Rows, Rows]:
    """Folders with sources and a lake built from nothing, before and after a change of the sources; and their rows."""
    before, after = started(tmp_path_factory.mktemp("before")), tmp_path_factory.mktemp("after")
    built(before)
    shutil.copytree(before, after, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lake"))
    change(after)
    built(after)
    return before, after, rows_of(before / "lake"), rows_of(after / "lake")


def built(base: Path) -> Built:
    return build(two_sources(base), engine=LocalEngine(1))


def change(base: Path) -> None:
    as_tar(base / "in.tar", files_of(35, seed=2), "w")
    as_folder(base / "in", {"A/new.png": files_of(1, seed=9)["A/00000.png"]})


def rows_of(root: Path, release: int | None = None) -> Rows:
    tables = (name for name in schemas.TABLES if name not in ("scores", "releases"))
    return {name: rows_by_content(str(root), name, release) for name in tables}


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


@pytest.mark.parametrize(
    "place", [pytest.param(name, marks=pytest.mark.stress) if name in RARE else name for name in PLACES]
)
def test_the_next_build_deletes_what_a_killed_one_left(
    place: str, lakes: tuple[Path, Path, Rows, Rows], tmp_path: Path
) -> None:
    before, after, first, second = lakes
    base, lake = tmp_path / "base", tmp_path / "base" / "lake"
    shutil.copytree(after, base, ignore=shutil.ignore_patterns("lake"))
    shutil.copytree(before / "lake", lake)
    kill(base, place)
    assert any(path.startswith(".writers/") for path in unnamed(lake))
    built(base)
    assert unnamed(lake) == []
    if place in ("before checking", "before commit 5"):
        assert all(not check.faults for check in verify(str(lake)))
    for release, wanted in ((1, first), (Lake(lake).release, second)):
        found = rows_of(lake, release)
        assert all(found[name].equals(rows) for name, rows in wanted.items()), f"release {release}"


@pytest.mark.parametrize("place", ["between the files of an index", "before commit 6"])
def test_a_lake_whose_first_build_was_killed_holds_nothing_else_after_the_next(place: str, base: Path) -> None:
    kill(base, place)
    built(base)
    assert unnamed(base / "lake") == []
    assert Lake(base / "lake").release == 1


def test_a_killed_build_does_leave_files(base: Path) -> None:
    kill(base, "before checking")
    assert len([path for path in unnamed(base / "lake") if path.endswith(".parquet")]) == 10


def test_a_later_stage_that_fails_leaves_no_file_either(base: Path) -> None:
    built(base)
    asked = two_sources(base).split[0].model_dump(by_alias=True, exclude_none=True)
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
