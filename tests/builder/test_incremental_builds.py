"""What a build does again, and what it leaves alone."""

import io
import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from lakes import versions, writing
from making import as_folder, as_tar, files_of, recipe

from pipeline.builder.build import Built, build, plan
from pipeline.builder.ingest import decode_sources
from pipeline.builder.worker import ShardInput
from pipeline.engines.local import LocalEngine
from pipeline.errors import CheckError, LakeError, SourceError, SplitError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, all_files
from pipeline.lake_handle import Lake
from pipeline.maintenance import status, vacuum
from pipeline.progress import Progress

TRAIN = {"name": "main", "train": {"from": "train"}}
BOTH = {"name": "main", "train": {"from": "train"}, "test": {"from": "test"}}
LOGISTIC = {"model": "logistic", "split": "main", "train_sizes": [20], "max_iter": 5}

RUN = "logistic on main (3e2504)"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two sources."""
    as_folder(tmp_path / "train", files_of(40))
    as_folder(tmp_path / "test", files_of(20, seed=1))
    return tmp_path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, and the lake that `make` makes of them; tests take a copy."""
    folder = tmp_path_factory.mktemp("first")
    as_folder(folder / "train", files_of(40))
    as_folder(folder / "test", files_of(20, seed=1))
    make(folder)
    return folder


@pytest.fixture
def made(first: Path, tmp_path: Path) -> Path:
    """A copy of the sources and of their lake, times included: for a build there, nothing is new."""
    return Path(shutil.copytree(first, tmp_path, dirs_exist_ok=True))


def make(base: Path, *, prune: bool = False, rules: tuple[str, ...] = ("exact",), **parts: Any) -> Built:
    listed = ({"uri": "train"}, {"uri": "test", "split": "test"})
    found = recipe(base, *listed, **{"dedup": {"rules": rules}, "split": [BOTH], "baseline": [LOGISTIC], **parts})
    return build(found, engine=LocalEngine(1), prune=prune)


def done(built: Built) -> list[tuple[str, str, str]]:
    return [(item.stage, item.unit, item.reason) for item in built.done]


def test_a_changed_file_runs_everything_behind_it_and_says_why(made: Path) -> None:
    as_folder(made / "train", {"A/new.png": files_of(1, seed=7)["A/00000.png"]})
    assert done(make(made)) == [
        ("ingest", "d/train (train)", "1 of 2 shards is new or changed, 0 gone"),
        ("dedup", "exact", "its input changed; clusters: no change"),
        ("splits", "main", "its input changed; 1 image joined the split"),
        ("baselines", RUN, "its input changed"),
    ]


def test_only_the_changed_source_is_read(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(made / "test", {"A/00000.png": files_of(1, seed=7)["A/00000.png"]})
    read: list[str] = []
    real = decode_sources

    def spy(job: Any, plan_: Any, engine: Any, *others: Any) -> Any:
        class Spy:
            pieces = 1
            shares_disk = True

            def map(self, function: Any, items: Any) -> Any:
                def seen(items: Any) -> Any:
                    for item in items:
                        assert isinstance(item, ShardInput)
                        read.append(item.split)
                        yield item

                return engine.map(function, seen(items))

        return real(job, plan_, Spy(), *others)

    monkeypatch.setattr("pipeline.builder.build.decode_sources", spy)
    make(made)
    assert read == ["test"]


def test_a_new_rule_reads_pixels_once_leaves_images_alone_and_is_measured(made: Path) -> None:
    before = versions(str(made / "lake"))
    assert done(make(made, rules=("exact", "sign"))) == [
        ("dedup", "sign", "new"),
        ("baselines", RUN, "its input changed"),
    ]
    after = versions(str(made / "lake"))
    assert {name for name in after if after[name] != before[name]} == {
        "index",
        "clusters",
        "misses",
        "scores",
        "models",
        "releases",
    }
    fresh = Lake(str(made / "lake")).scan("index").collect()
    assert sorted(fresh["rule"].unique()) == ["exact", "sign"]
    assert len(fresh) == 120


def test_a_new_seed_draws_one_split_and_trains_what_stands_on_it(base: Path) -> None:
    other = {**BOTH, "name": "other"}
    make(base, split=[BOTH, other])
    changed = done(make(base, split=[{**BOTH, "seed": 5}, other]))
    assert changed == [
        ("splits", "main", "its settings changed"),
        ("baselines", RUN, "its input changed"),
    ]


def test_new_decode_settings_decode_everything(made: Path) -> None:
    assert done(make(made, decode={"size": [14, 14], "on_mismatch": "resize"}))[:2] == [
        ("ingest", "d/train (train)", "the decode settings changed"),
        ("ingest", "d/test (test)", "the decode settings changed"),
    ]
    assert set(Lake(made / "lake").scan("images").collect()["height"]) == {14}


def test_what_a_recipe_no_longer_names_stays_until_it_is_pruned(base: Path) -> None:
    first = make(base, rules=("exact", "sign"), split=[BOTH, {**TRAIN, "name": "other"}])
    only = recipe(base, {"uri": "train"}, split=[TRAIN], dedup={"rules": ["exact"]})
    kept = build(only, engine=LocalEngine(1))
    assert kept.images == 60
    assert sorted(Lake(first.root).scan("splits").collect()["split_name"].unique()) == ["main", "other"]
    assert Lake(first.root).scan("scores").collect().equals(Lake(first.root, 1).scan("scores").collect())
    assert ("ingest", "d/test (test)", "no longer in the recipe") in [tuple(item) for item in plan(only, prune=True)]
    pruned = build(only, engine=LocalEngine(1), prune=True)
    lake = Lake(first.root)
    assert pruned.images == 40
    assert lake.scan("splits").collect()["split_name"].unique().to_list() == ["main"]
    assert lake.scan("clusters").collect()["rule"].unique().to_list() in ([], ["exact"])
    assert lake.scan("index").collect()["rule"].unique().to_list() == ["exact"]
    assert lake.scan("scores").collect().is_empty()
    assert lake.at(1).scan("images").collect().height == 60


def test_a_pruned_lake_equals_one_built_from_nothing(base: Path) -> None:
    make(base, rules=("exact", "sign"))
    only = recipe(base, {"uri": "train"}, split=[TRAIN])
    build(only, engine=LocalEngine(1), prune=True)
    pruned = Lake(base / "lake")
    fresh = only.model_copy(update={"lake": only.lake.model_copy(update={"root": "fresh"})})
    build(fresh, engine=LocalEngine(1))
    for table in ("images", "rejects", "shards", "index", "clusters", "splits", "scores", "misses"):
        assert pruned.scan(table).collect().equals(Lake(base / "fresh").scan(table).collect()), table


def test_an_archive_is_read_again_when_it_changes(tmp_path: Path) -> None:
    as_tar(tmp_path / "in.tar.gz", files_of(20))
    found = recipe(tmp_path, {"uri": "in.tar.gz"})
    build(found, engine=LocalEngine(1))
    as_tar(tmp_path / "in.tar.gz", files_of(12))
    again = build(found, engine=LocalEngine(1))
    assert again.done[0].reason == "its file changed"
    assert again.images == 12


def test_status_tells_what_the_next_build_would_do_and_the_build_does_it(base: Path) -> None:
    found = recipe(base, {"uri": "train"}, {"uri": "test", "split": "test"}, split=[BOTH], baseline=[LOGISTIC])
    first = build(found, engine=LocalEngine(1))
    assert status(first.root).todo == []
    as_folder(base / "test", {"B/new.png": b""})
    told = status(first.root).todo
    assert [item.reason for item in told] == [
        "1 of 2 shards is new or changed, 0 gone",
        "the images change",
        "the images change",
        "only if its split changes",
    ]
    # An empty file is one reject more: the split comes out as it was, and nothing is trained.
    assert [item[:2] for item in told[:-1]] == [item[:2] for item in build(found, engine=LocalEngine(1)).done]


def test_a_stricter_check_is_held_against_what_is_there(made: Path) -> None:
    before = versions(str(made / "lake"))
    with pytest.raises(CheckError, match="A has 20, B has 20 images; the recipe asks for at least 21 a class"):
        build(recipe(made, {"uri": "train", "min_per_class": 21}), engine=LocalEngine(1))
    assert versions(str(made / "lake")) == before


def test_a_touched_file_is_decoded_again_and_trains_nothing(made: Path) -> None:
    os.utime(made / "train" / "A" / "00000.png", ns=(1, 1))
    assert [item[0] for item in done(make(made))] == ["ingest", "dedup", "splits"]


def test_a_source_that_no_split_draws_from_draws_nothing_again(made: Path) -> None:
    as_folder(made / "other", files_of(8, seed=9))
    parts: dict[str, Any] = {"dedup": {"rules": ["exact"]}, "split": [BOTH], "baseline": [LOGISTIC]}
    listed = ({"uri": "train"}, {"uri": "test", "split": "test"}, {"uri": "other", "split": "other"})
    built = build(recipe(made, *listed, **parts), engine=LocalEngine(1))
    assert [item[0] for item in done(built)] == ["ingest", "dedup"]


def test_runs_are_known_by_what_they_are_not_by_where_they_stand(base: Path) -> None:
    other = {**LOGISTIC, "seed": 5}
    make(base, baseline=[LOGISTIC, other])
    assert done(make(base, baseline=[other, LOGISTIC])) == [
        ("release", "recipe", "the recipe changed, but no result depends on the change")
    ]
    dropped = make(base, baseline=[other])
    assert done(dropped) == [("baselines", RUN, "no longer in the recipe")]
    scores = Lake(dropped.root).scan("scores").collect()
    assert scores["seed"].unique().to_list() == [5]
    assert scores.drop("value", "seconds", "memory").is_unique().all()


def test_a_file_that_could_not_be_read_is_tried_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(name: str) -> FileIO:
        if Path(name).match("train/A/00000.png"):
            raise OSError(5, "Input/output error")
        return FileIO(name)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.decode.FileIO", failing)
        first = make(base)
    assert first.rejects == 1
    again = make(base)
    assert (again.images, again.rejects) == (60, 0)
    assert make(base).done == ()


def test_keys_of_another_version_are_computed_anew(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dedup.rules", "builder.index"):
        monkeypatch.setattr(f"pipeline.{module}.KEYS_VERSION", "another")
    before = versions(str(made / "lake"))["index"]
    assert ("dedup", "exact", "its settings changed; clusters: no change") in done(make(made))
    assert versions(str(made / "lake"))["index"] == before + 1
    assert Lake(made / "lake").scan("index").collect().height == 60
    assert make(made).done == ()


def test_checks_that_are_new_are_held_against_old_sources(base: Path) -> None:
    as_tar(base / "in.tar", {**files_of(6), "C/x.png": b""}, "w")
    build(recipe(base, {"uri": "in.tar"}), engine=LocalEngine(1))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"bytes": 5}, "bytes, the recipe asks for 5"),
        ({"digest": "md5:" + "0" * 32}, "the recipe asks for md5:000"),
        ({"min_per_class": 1}, "C has 0 images"),
    ]
    for change, said in changes:
        with pytest.raises(CheckError, match=said):
            build(recipe(base, {"uri": "in.tar", **change}), engine=LocalEngine(1))
    assert Lake(base / "lake").release == 1


def test_a_recipe_that_only_says_more_is_kept_with_a_release_of_its_own(made: Path) -> None:
    found = recipe(made, {"uri": "train", "classes": 2}, {"uri": "test", "split": "test"}, split=[BOTH])
    assert build(found, engine=LocalEngine(1)).release == 2
    assert build(found, engine=LocalEngine(1)).release == 2


def test_a_split_of_an_earlier_recipe_that_no_longer_fits_says_how_to_drop_it(base: Path) -> None:
    make(base, split=[{**BOTH, "name": "old", "train": {"from": "train", "size": 40}}], baseline=[])
    (base / "train" / "A" / "00000.png").unlink()
    with pytest.raises(SplitError, match="of an earlier recipe. To drop it, build with --prune"):
        make(base, split=[BOTH])
    assert make(base, split=[BOTH], prune=True).release == 2


def test_a_build_waits_for_another_and_a_vacuum_does_not(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, waits = Progress.waiting, Event()

    def waiting(progress: Progress) -> None:
        real(progress)
        waits.set()

    # A thread must not read what another one prints: `readouterr` loses what is printed while it reads.
    monkeypatch.setattr(Progress, "waiting", waiting)
    with ThreadPoolExecutor(1) as pool:
        with writing(str(made / "lake")):
            second = pool.submit(make, made)
            assert waits.wait(120)
        assert second.result().done == ()
    assert "waiting for another build" in capsys.readouterr().err
    with writing(str(made / "lake")), pytest.raises(LakeError, match="another build is writing"):
        vacuum(str(made / "lake"), older_than_hours=0, dry_run=True)
    assert Lake(str(made / "lake")).scan("images").collect().height == 60
    assert make(made).done == ()


def test_a_failed_build_in_two_processes_leaves_no_files(base: Path) -> None:
    for number in range(4):
        as_folder(base / f"in{number}", files_of(30, seed=number))
    as_tar(base / "cut.tar.gz", files_of(500))
    (base / "cut.tar.gz").write_bytes((base / "cut.tar.gz").read_bytes()[:9000])
    listed = [{"uri": f"in{number}", "split": f"s{number}"} for number in range(4)]
    with pytest.raises(SourceError, match="damaged or cut short"):
        build(recipe(base, *listed, {"uri": "cut.tar.gz", "split": "z"}), engine=LocalEngine(2))
    assert not list((base / "lake").rglob("*.parquet"))


def test_one_path_as_image_and_as_reject_is_one_path_twice(base: Path) -> None:
    with tarfile.open(base / "twice.tar", "w") as archive:
        for data in (files_of(1)["A/00000.png"], b""):
            info = tarfile.TarInfo("A/x.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(SourceError, match=r"1 paths occur more than once, first 'A/x.png'"):
        build(recipe(base, {"uri": "twice.tar"}), engine=LocalEngine(1))


def test_an_image_with_the_path_of_a_reject_that_stays_is_one_path_twice(base: Path) -> None:
    as_folder(base / "first", {**files_of(4), "A/x.png": b""})
    as_folder(base / "second", {"A/x.png": files_of(1, seed=3)["A/00000.png"]})
    assert build(recipe(base, {"uri": "first"}), engine=LocalEngine(1)).rejects == 1
    with pytest.raises(SourceError, match=r"1 paths occur more than once, first 'A/x.png'"):
        build(recipe(base, {"uri": "first"}, {"uri": "second"}), engine=LocalEngine(1))


def test_rejects_that_a_killed_build_committed_alone_are_restored(base: Path) -> None:
    as_folder(base / "train", {"A/empty.png": b""})
    make(base)
    root = str(base / "lake")
    with writing(root) as lake:
        lake.commit(Commit("rejects", (), Metadata("ingest", {"shards": {"fingerprint": "another"}}), all_files))
    assert Lake.working(Snapshot(root)).scan("rejects").collect().is_empty()
    make(base)
    assert Lake(root).scan("rejects").collect()["path"].to_list() == ["A/empty.png"]


def test_without_labels_in_the_test_role_only_train_is_scored(base: Path) -> None:
    as_folder(base / "bare", {name.split("/")[1]: data for name, data in files_of(6, seed=3).items()})
    split = {**BOTH, "test": {"from": "bare"}}
    listed = ({"uri": "train"}, {"uri": "bare", "split": "bare"})
    found = recipe(base, *listed, split=[split], baseline=[{**LOGISTIC, "max_iter": 1}])
    assert set(Lake(build(found, engine=LocalEngine(1)).root).scan("scores").collect()["role"]) == {"train"}


def test_an_older_release_lists_the_releases_there_were(made: Path) -> None:
    make(made, rules=("exact", "sign"))
    assert Lake(made / "lake").scan("releases").collect().height == 2
    assert Lake(made / "lake").at(1).scan("releases").collect().height == 1
