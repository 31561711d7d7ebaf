"""An export appears complete or not at all, and pins its release."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import export_main, files_below
from lakes import newest, versions, writing
from making import as_folder, files_of, recipe

from pipeline.arrays.exports import FORMS
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import DiskFullError, LakeError, NoReleaseError
from pipeline.export import Exported, export
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum_releases
from pipeline.recipe import Recipe
from pipeline.storage.atomic import atomic_folder


def recipe_of(base: Path, **parts: Any) -> Recipe:
    return recipe(
        base,
        {"uri": "in"},
        dedup={"rules": ["exact"]},
        split=[{"name": "main", "train": {"from": "train", "size": 30}, "test": {"from": "train", "size": 10}}],
        **parts,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source of 40 images and its lake. Read only."""
    base = tmp_path_factory.mktemp("built")
    as_folder(base / "in", files_of(40))
    build(recipe_of(base), engine=LocalEngine(1))
    return base


@pytest.fixture
def lake(built: Path, tmp_path: Path) -> Lake:
    """The lake and its source, for this test alone."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return Lake(tmp_path / "lake")


def run(lake: Lake, target: Path, form: str = "npz", **options: Any) -> Exported:
    return export(lake.root, "main", target, form, engine=LocalEngine(1), **options)


def test_an_export_is_a_row_of_exports_and_no_release(lake: Lake, tmp_path: Path) -> None:
    before = versions(lake.root)
    done = run(lake, tmp_path / "out")
    assert done.unpinned == ""
    row = lake.scan("exports").collect().row(0, named=True)
    description = json.loads((tmp_path / "out" / "export.json").read_text())
    assert row["digest"] == description["digest"]
    shown = {name: row[name] for name in ("release", "split_name", "form", "sanitized", "target", "images", "roles")}
    assert shown == {
        "release": 1,
        "split_name": "main",
        "roles": "train, test",
        "form": "npz",
        "sanitized": True,
        "target": str(tmp_path / "out"),
        "images": 40,
    }
    build(recipe_of(tmp_path), engine=LocalEngine(1))
    assert newest(lake.root) == 1
    assert {name for name, version in versions(lake.root).items() if version != before[name]} == {"exports"}
    assert "exports" not in Lake(lake.root).versions
    assert lake.sql("select count(*) from exports where form = 'npz'").fetchall() == [(1,)]
    run(lake, tmp_path / "out2")
    assert lake.scan("exports").collect()["export_id"].n_unique() == 2


def test_rows_that_sanitizing_dropped_are_exported_only_where_asked(tmp_path: Path) -> None:
    files = files_of(12)
    as_folder(tmp_path / "in", {**files, "A/copy.png": files["A/00000.png"]})
    split = {"name": "main", "sanitize": "exact", "within": "first", "train": {"from": "train"}}
    build(recipe(tmp_path, {"uri": "in"}, dedup={"rules": ["exact"]}, split=[split]), engine=LocalEngine(1))
    made = Lake(tmp_path / "lake")
    assert run(made, tmp_path / "kept").images == 12
    assert run(made, tmp_path / "all", sanitized=False).images == 13
    with np.load(tmp_path / "kept" / "main.npz") as kept:
        assert len(kept["train_images"]) == 12


def test_what_was_written_is_counted(lake: Lake, tmp_path: Path) -> None:
    done = run(lake, tmp_path / "out", "imagefolder", pinned=False)
    found = files_below(tmp_path / "out")
    assert (done.files, done.size) == (len(found), sum(map(len, found.values())))
    assert (done.images, done.roles, done.left_out) == (40, {"train": 30, "test": 10}, ["valid"])
    assert lake.scan("exports").collect().is_empty()


@pytest.mark.parametrize("there", ["something", "an earlier export", "a file"])
def test_nothing_is_written_where_something_is(lake: Lake, tmp_path: Path, there: str) -> None:
    target = tmp_path / "out"
    if there == "something":
        as_folder(target, {"mine.txt": b"mine"})
    elif there == "an earlier export":
        run(lake, target)
    else:
        target.write_bytes(b"mine")
    before = files_below(tmp_path)
    with pytest.raises(LakeError, match="new or empty" if there != "a file" else "is a file"):
        run(lake, target)
    after = files_below(tmp_path)
    assert {name: data for name, data in after.items() if ".lock" not in name} == {
        name: data for name, data in before.items() if ".lock" not in name
    }


def test_an_empty_folder_is_taken_and_parents_are_made(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run(lake, tmp_path / "empty")
    run(lake, tmp_path / "a" / "b" / "c")
    assert files_below(tmp_path / "empty") == files_below(tmp_path / "a" / "b" / "c")


def test_the_lake_is_no_place_for_exports(lake: Lake) -> None:
    with pytest.raises(LakeError, match="lies in the lake"):
        run(lake, Path(lake.root) / "images" / "out")


@pytest.mark.parametrize("below", ["", "new/folder"])
def test_a_source_is_no_place_for_exports(lake: Lake, built: Path, below: str) -> None:
    with pytest.raises(LakeError, match=r"lies in .*/in, a source of the lake: the next build would read"):
        run(lake, built / "in" / below)
    assert not (built / "in" / "new").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_failed_export_leaves_nothing(lake: Lake, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("pipeline.export.Progress.advance", fail)
    with pytest.raises(DiskFullError, match="free some space, or name a folder on another disk"):
        run(lake, tmp_path / "out", form)
    assert sorted(tmp_path.iterdir()) == before
    assert lake.scan("exports").collect().is_empty()


def test_a_killed_export_leaves_nothing_that_looks_whole_and_is_cleaned_up(lake: Lake, tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom pipeline.engines.local import LocalEngine\n"
        "from pipeline import export as e\n"
        "e.Progress.advance = lambda *_: os.kill(os.getpid(), 9)\n"
        "e.export(sys.argv[1], 'main', Path(sys.argv[2]), 'npy', engine=LocalEngine(1))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, lake.root, tmp_path / "out"], check=False)
    assert killed.returncode == -9
    left, lock = tmp_path / ".out.export", tmp_path / ".out.export.lock"
    assert (left / "train_images.npy").exists()
    assert lock.exists()
    assert not (tmp_path / "out").exists()
    run(lake, tmp_path / "out", "npz")
    assert sorted(files_below(tmp_path / "out")) == ["export.json", "main.npz"]
    assert not left.exists()
    assert not lock.exists()


def test_two_exports_to_one_folder_do_not_meet(lake: Lake, tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "half").write_bytes(b"")
        with pytest.raises(LakeError, match="another export is writing to it"):
            run(lake, tmp_path / "out")
        assert (folder / "half").exists()
    assert files_below(tmp_path / "out") == {"half": b""}
    assert not list(tmp_path.glob(".out*"))


def test_a_folder_that_fills_meanwhile_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="cannot be moved there"), atomic_folder(tmp_path / "out") as folder:  # noqa: PT012 - it is the end of the block that raises
        (folder / "ours").write_bytes(b"")
        as_folder(tmp_path / "out", {"theirs": b""})
    assert files_below(tmp_path) == {"out/theirs": b""}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "mian"}, "no split 'mian'. Splits: main"),
        ({"roles": ["valid"]}, "no role 'valid'. Roles: train, test"),
        ({"form": "zarr"}, "no form 'zarr'. Forms: npz, npy"),
        ({"release": 9}, "no release 9; there is 1"),
    ],
)
def test_what_is_not_there_is_named(lake: Lake, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LakeError, match=message):
        export(lake.root, target=tmp_path / "out", **{"split": "main", "form": "npz", **options})
    assert not (tmp_path / "out").exists()


def test_a_lake_that_cannot_be_written_is_exported_and_not_pinned(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_below(Path(lake.root))
    monkeypatch.setattr(os, "access", lambda path, *_, **__: str(path) != lake.root)
    done = run(lake, tmp_path / "out")
    assert "cannot be written to" in done.unpinned
    assert (tmp_path / "out" / "main.npz").exists()
    assert files_below(Path(lake.root)) == before


def test_a_taken_lock_is_waited_for(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.lake.writers.lock._RETRY_SECONDS", 0.01)
    whole: list[bool] = []

    def hold(taken: threading.Event) -> None:
        with writing(lake.root):
            taken.set()
            while not (tmp_path / "out").exists():
                time.sleep(0.01)
            time.sleep(0.1)
            whole.append((tmp_path / "out" / "export.json").exists())

    taken = threading.Event()
    holder = threading.Thread(target=hold, args=(taken,), daemon=True)
    holder.start()
    taken.wait()
    done = run(lake, tmp_path / "out")
    holder.join()
    assert whole == [True]
    assert done.unpinned == ""
    assert len(lake.scan("exports").collect()) == 1


def test_waiting_can_be_ended_and_the_files_stay(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.lake.writers.lock.time.sleep", interrupt)
    with writing(lake.root):
        done = run(lake, tmp_path / "out")
    assert done.unpinned == "interrupted while waiting for another writer of the lake"
    assert (tmp_path / "out" / "export.json").exists()


def test_a_release_stays_exactly_as_it_was(tmp_path: Path) -> None:
    """Rows, order and pixels of arrays, scans and exports are equal after later builds changed and pruned sources."""
    model = {"model": "logistic", "split": "main", "train_sizes": [20], "max_iter": 5}
    as_folder(tmp_path / "in", files_of(40))
    build(recipe_of(tmp_path, baseline=[model]), engine=LocalEngine(1))
    lake = Lake(tmp_path / "lake")
    tables = ("images", "index", "clusters", "splits", "scores", "rejects", "shards", "releases")
    before = {name: lake.scan(name).collect() for name in tables}
    pixels = {role: lake.arrays("main", role) for role in ("train", "test")}
    export_main(lake, tmp_path / "first", "parquet")
    shutil.rmtree(tmp_path / "in")
    as_folder(tmp_path / "in", files_of(50, seed=5))
    build(recipe_of(tmp_path, baseline=[{**model, "train_sizes": [25]}]), engine=LocalEngine(1), prune=True)
    shutil.rmtree(tmp_path / "in")
    as_folder(tmp_path / "in", files_of(44, "AC", seed=6))
    build(recipe_of(tmp_path), engine=LocalEngine(1), prune=True)
    assert newest(lake.root) == 3
    for old in (lake, Lake(lake.root).at(1)):
        for name, rows in before.items():
            assert old.scan(name).collect().equals(rows), name
        for role, (x, y) in pixels.items():
            again = old.arrays("main", role)
            np.testing.assert_array_equal(again[0], x)
            np.testing.assert_array_equal(again[1], y)
    export_main(lake, tmp_path / "again", "parquet", release=1)
    assert files_below(tmp_path / "again") == files_below(tmp_path / "first")
    assert not Lake(lake.root).scan("images").collect().equals(before["images"])


def test_scores_name_the_release_that_has_their_split_and_pixels(tmp_path: Path) -> None:
    model = {"model": "logistic", "split": "main", "train_sizes": [20], "max_iter": 5}
    as_folder(tmp_path / "in", files_of(40))
    build(recipe_of(tmp_path, baseline=[model]), engine=LocalEngine(1))
    as_folder(tmp_path / "more", files_of(8, seed=7))
    grown = recipe(
        tmp_path,
        {"uri": "in"},
        {"uri": "more", "split": "other"},
        dedup={"rules": ["exact"]},
        split=[{"name": "main", "train": {"from": "train", "size": 30}, "test": {"from": "train", "size": 10}}],
        baseline=[model],
    )
    build(grown, engine=LocalEngine(1))
    lake = Lake(tmp_path / "lake")
    assert lake.release == 2
    (named,) = lake.scan("scores").select("release").unique().collect().to_series().to_list()
    assert named == 1
    then = lake.at(named)
    for role in ("train", "test"):
        assert then.members("main", role).equals(lake.members("main", role))
        np.testing.assert_array_equal(then.arrays("main", role)[0], lake.arrays("main", role)[0])


def test_a_release_given_up_under_an_export_says_so(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_folder(tmp_path / "in", {"A/00000.png": files_of(1, seed=3)["A/00000.png"]})
    build(recipe_of(tmp_path), engine=LocalEngine(1))

    def give_up(*_: object) -> None:
        vacuum_releases(lake.root, keep_last=1, older_than_hours=0, dry_run=False, force=False)

    monkeypatch.setattr("pipeline.export.Progress.stage", give_up)
    with pytest.raises(NoReleaseError, match="release 1 was deleted by vacuum"):
        run(lake, tmp_path / "out", release=1)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.export").exists()
