"""The laws of ARCHITECTURE.md that only a whole build can break: 1, 2, 3 and 5."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from deltalake import DeltaTable
from lakes import rows_by_content, versions
from making import as_folder, as_tar, files_of, recipe

import schemas
from pipeline.builder import ingest
from pipeline.builder import worker as work
from pipeline.builder.build import Built, build, plan
from pipeline.engines import Engine
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum
from pipeline.recipe import Recipe
from pipeline.verify import verify

PARTS: dict[str, Any] = {
    "decode": {"size": [28, 28]},
    "dedup": {"rules": ["exact", "sign", "maxpool:4"]},
    "split": [{"name": "main", "seed": 3, "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}],
    "baseline": [{"model": "logistic", "split": "main", "train_sizes": [30, "all"], "max_iter": 20}],
}
# What differs between equal builds on purpose: when, how long, and where the lake is.
VOLATILE = {"scores": ["seconds", "memory", "release"], "misses": ["release"], "models": ["release"]}
# What a lake that grew has in other shards than one from nothing.
BY_SHARD = ("images", "originals", "rejects", "index", "shards")
COMPARED = [name for name in schemas.TABLES if name != "releases"]


def sources(base: Path) -> Recipe:
    """Two sources: a tar of 60 train files and a folder of 40 test files, with copies and bad files."""
    if not (base / "train.tar.gz").exists():
        train = files_of(60)
        as_tar(base / "train.tar.gz", {**train, "A/bad.png": b"no image", "B/cut.png": train["A/00000.png"][:90]})
        as_folder(
            base / "test", {**files_of(30, seed=1), **{f"copy/{i}.png": train[f"A/{2 * i:05d}.png"] for i in range(10)}}
        )
    return recipe(base, {"uri": "train.tar.gz"}, {"uri": "test", "split": "test"}, **PARTS)


def tables(root: str) -> dict[str, pl.DataFrame]:
    lake = Lake(root)
    found = {name: lake.scan(name).drop(VOLATILE.get(name, [])).collect() for name in COMPARED if name not in BY_SHARD}
    return found | {name: rows_by_content(root, name) for name in BY_SHARD}


class World(NamedTuple):
    """A folder with sources, the lake that was built of them undisturbed, and its tables; tests take a copy."""

    base: Path
    made: Built
    rows: dict[str, pl.DataFrame]

    def copied(self, base: Path, *without: str) -> Recipe:
        """Copy sources and lake, times included: for a build there, nothing is new."""
        shutil.copytree(self.base, base, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*without))
        return sources(base)


def undisturbed(asked: Recipe) -> World:
    made = build(asked, engine=LocalEngine(1))
    return World(asked.base, made, tables(made.root))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> World:
    return undisturbed(sources(tmp_path_factory.mktemp("first")))


@pytest.fixture(scope="module")
def shorter(first: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The sources when copy/1.png is gone, built from nothing."""
    return undisturbed(first.copied(tmp_path_factory.mktemp("shorter"), "lake", "1.png"))


@pytest.fixture(scope="module")
def changed(first: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The sources when copy/1.png is gone, one file is new and one is bad now, built from nothing."""
    asked = first.copied(tmp_path_factory.mktemp("changed"), "lake", "1.png")
    as_folder(asked.base / "test", {"A/new.png": files_of(1, seed=9)["A/00000.png"], "copy/0.png": b""})
    return undisturbed(asked)


def assert_equal(left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame]) -> None:
    for name, rows in left.items():
        assert rows.equals(right[name]), f"table {name} differs"


def test_law_1_every_file_is_one_image_or_one_reject(first: World) -> None:
    assert (first.made.images, first.made.rejects) == (100, 2)
    paths = pl.concat([first.rows[name].select("dataset", "split", "path") for name in ("images", "rejects")])
    assert len(paths.unique()) == len(paths) == 102


def test_law_1_is_checked_at_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "decode_shard", lambda *_: iter(()))
    with pytest.raises(AssertionError, match="files became 0 rows"):
        build(sources(tmp_path), engine=LocalEngine(1))
    assert versions(sources(tmp_path).root) == {}


def test_law_2_engines_and_listings_make_the_same_tables(
    first: World, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_ = first.copied(tmp_path, "lake")
    real = os.scandir

    class Shuffled:
        def __init__(self, folder: str) -> None:
            with real(folder) as found:
                entries = list(found)
            self.entries = random.Random(4).sample(entries, len(entries))

        def __enter__(self) -> list[Any]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("pipeline.sources.folder.os.scandir", Shuffled)
    second = build(recipe_, engine=engine)
    assert_equal(first.rows, tables(second.root))


def test_law_2_sources_in_another_order_make_the_same_tables(first: World, tmp_path: Path) -> None:
    forward = first.copied(tmp_path, "lake")
    build(forward.model_copy(update={"source": forward.source[::-1]}), engine=LocalEngine(1))
    assert_equal(first.rows, tables(forward.root))


class Killed(BaseException):
    """Stands for kill -9 inside one process: nothing that catches errors catches it."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> Callable[[], int]:
    """Let the build die right before or right after its commit number `step`; returns how many commits were reached."""
    reached = 0
    real = DeltaTable.create_write_transaction

    def dying(self: Any, *args: Any, **options: Any) -> None:
        nonlocal reached
        reached += 1
        if reached == step and not after:
            raise Killed
        real(self, *args, **options)
        if reached == step:
            raise Killed

    monkeypatch.setattr(DeltaTable, "create_write_transaction", dying)
    return lambda: reached


# images, index, rejects, shards, clusters, splits, misses, scores, releases.
COMMITS = 10


def moments() -> Iterator[Any]:
    """Before some commits and after the last; more by `make test-slow`, and before and after each by `make stress`."""
    for step in range(1, COMMITS + 1):
        marks = [] if step in (1, 4) else [pytest.mark.slow if step in (3, 7, COMMITS) else pytest.mark.stress]
        yield pytest.param(step, False, id=f"before commit {step}", marks=marks)
        marks = [pytest.mark.stress] if step < COMMITS else []
        yield pytest.param(step, True, id=f"after commit {step}", marks=marks)


@pytest.mark.parametrize(("step", "after"), list(moments()))
def test_law_3_killed_around_any_commit(  # noqa: PLR0913 - two lakes and two ways to die
    first: World, changed: World, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """A lake has a release and its source changes: the next build is killed, the one after ends as if nothing was."""
    recipe_ = changed.copied(tmp_path, "lake")
    shutil.copytree(first.made.root, recipe_.root)
    with monkeypatch.context() as patch:
        kill_at(step, patch, after=after)
        with pytest.raises(Killed):
            build(recipe_, engine=LocalEngine(1))
    if not (after and step == COMMITS):
        assert_equal(first.rows, tables(recipe_.root))
        assert Lake(recipe_.root).release == 1

    made = build(recipe_, engine=LocalEngine(1))
    assert made.release == 2
    if step in (2, 5, COMMITS):
        assert all(not check.faults for check in verify(recipe_.root))
    assert_equal(changed.rows, tables(recipe_.root))


def test_law_3_a_killed_build_whose_source_is_put_back(
    first: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half replaced shard has the fingerprint that the shards table names, and still is not believed."""
    recipe_ = first.copied(tmp_path)
    victim = tmp_path / "test" / "A" / "00000.png"
    data, stat = victim.read_bytes(), victim.stat()
    victim.write_bytes(files_of(1, seed=9)["A/00000.png"])
    with monkeypatch.context() as patch:
        kill_at(1, patch, after=True)
        with pytest.raises(Killed):
            build(recipe_, engine=LocalEngine(1))
    victim.write_bytes(data)
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    build(recipe_, engine=LocalEngine(1))
    assert_equal(first.rows, tables(recipe_.root))


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [1, *(pytest.param(step, marks=pytest.mark.stress) for step in (2, 3)), pytest.param(4, marks=pytest.mark.slow)],
)
def test_law_3_a_killed_build_followed_by_another_recipe(
    first: World, shorter: World, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left half done belongs to a source that the next recipe does not name."""
    both = shorter.copied(tmp_path, "lake")
    shutil.copytree(first.made.root, both.root)
    with monkeypatch.context() as patch:
        kill_at(step, patch, after=True)
        with pytest.raises(Killed):
            build(both, engine=LocalEngine(1))
    vacuum(both.root, older_than_hours=0, dry_run=False)
    build(both.model_copy(update={"source": both.source[:1], "split": (), "baseline": ()}), engine=LocalEngine(1))
    assert all(not check.faults for check in verify(both.root))
    if step < 4:
        assert_equal(first.rows, tables(both.root))
    build(both, engine=LocalEngine(1))
    assert_equal(shorter.rows, tables(both.root))


def test_commits_of_a_build_are_as_many_as_the_kill_test_thinks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = kill_at(0, monkeypatch, after=True)
    build(sources(tmp_path), engine=LocalEngine(1))
    assert reached() == COMMITS


def test_law_5_a_build_with_nothing_to_do_commits_nothing_and_decodes_nothing(
    first: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_ = first.copied(tmp_path)
    before, root = versions(recipe_.root), recipe_.root
    kept = {path: path.stat().st_mtime_ns for path in Path(root).rglob("*") if path.is_file()}

    def opened(*_: object) -> None:
        raise AssertionError("a pixel was opened")

    monkeypatch.setattr(ingest, "ingest_shard", opened)
    monkeypatch.setattr("pipeline.builder.index.index_shard", opened)
    monkeypatch.setattr("pipeline.lake_handle.gather", opened)
    assert plan(recipe_) == []
    second = build(recipe_, engine=LocalEngine(1))
    assert second.done == ()
    assert second.release == 1
    assert versions(root) == before
    assert {path: path.stat().st_mtime_ns for path in Path(root).rglob("*") if path.is_file()} == kept
