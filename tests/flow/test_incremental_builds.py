"""What a build does again, and what it leaves alone."""

from pathlib import Path
from typing import Any

import pytest
from making import as_folder, as_tar, files_of, recipe

from pipeline.engines.local import LocalEngine
from pipeline.errors import CheckError
from pipeline.flow.build import Built, build, plan
from pipeline.flow.ingest import run_ingest
from pipeline.flow.inspect import status
from pipeline.flow.work import Load
from pipeline.handle import Lake
from pipeline.lake.commits import versions

TRAIN = {"name": "main", "train": {"from": "train"}}
BOTH = {"name": "main", "train": {"from": "train"}, "test": {"from": "test"}}
LOGISTIC = {"model": "logistic", "split": "main", "train_sizes": [20], "max_iter": 5}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    as_folder(tmp_path / "train", files_of(40))
    as_folder(tmp_path / "test", files_of(20, seed=1))
    return tmp_path


def make(base: Path, *, prune: bool = False, rules: tuple[str, ...] = ("exact",), **parts: Any) -> Built:
    listed = ({"uri": "train"}, {"uri": "test", "split": "test"})
    found = recipe(base, *listed, **{"dedup": {"rules": rules}, "split": [BOTH], "baseline": [LOGISTIC], **parts})
    return build(found, engine=LocalEngine(1), prune=prune)


def done(built: Built) -> list[tuple[str, str, str]]:
    return [(item.stage, item.unit, item.reason) for item in built.done]


def test_a_changed_file_runs_everything_behind_it_and_says_why(base: Path) -> None:
    make(base)
    as_folder(base / "train", {"A/new.png": files_of(1, seed=7)["A/00000.png"]})
    assert done(make(base)) == [
        ("ingest", "d/train (train)", "1 of 1 shards changed, 0 gone"),
        ("dedup", "exact", "what it reads changed"),
        ("splits", "main", "what it reads changed"),
        ("baselines", "logistic on main [0]", "what it reads changed"),
    ]


def test_only_the_changed_source_is_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(base)
    as_folder(base / "test", {"A/00000.png": files_of(1, seed=7)["A/00000.png"]})
    read: list[str] = []
    real = run_ingest

    def spy(root: str, job: Any, plan_: Any, engine: Any, progress: Any) -> None:
        class Spy:
            def map(self, function: Any, items: Any) -> Any:
                def seen(items: Any) -> Any:
                    for item in items:
                        assert isinstance(item, Load)
                        read.append(item.split)
                        yield item

                return engine.map(function, seen(items))

        real(root, job, plan_, Spy(), progress)

    monkeypatch.setattr("pipeline.flow.build.run_ingest", spy)
    make(base)
    assert read == ["test"]


def test_a_new_rule_reads_pixels_once_and_leaves_images_alone(base: Path) -> None:
    first = make(base)
    before = versions(first.root)
    assert done(make(base, rules=("exact", "sign"))) == [("dedup", "sign", "new")]
    after = versions(first.root)
    assert {name for name in after if after[name] != before[name]} == {"index", "clusters", "releases"}
    fresh = Lake(first.root).scan("index").collect()
    assert sorted(fresh["rule"].unique()) == ["exact", "sign"]
    assert len(fresh) == 120


def test_a_new_seed_draws_one_split_and_trains_what_stands_on_it(base: Path) -> None:
    other = {**BOTH, "name": "other"}
    make(base, split=[BOTH, other])
    changed = done(make(base, split=[{**BOTH, "seed": 5}, other]))
    assert changed == [
        ("splits", "main", "its settings changed"),
        ("baselines", "logistic on main [0]", "what it reads changed"),
    ]


def test_new_decode_settings_decode_everything(base: Path) -> None:
    make(base)
    assert done(make(base, decode={"size": [14, 14], "on_mismatch": "resize"}))[:2] == [
        ("ingest", "d/train (train)", "the decode settings changed"),
        ("ingest", "d/test (test)", "the decode settings changed"),
    ]
    assert set(Lake(base / "lake").scan("images").collect()["height"]) == {14}


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
    for table in ("images", "rejects", "shards", "index", "clusters", "splits", "scores"):
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
    assert [item[:2] for item in told] == [item[:2] for item in build(found, engine=LocalEngine(1)).done]
    assert told[0].reason == "1 of 1 shards changed, 0 gone"
    assert {item.reason for item in told[1:]} == {"images change"}


def test_a_stricter_check_is_held_against_what_is_there(base: Path) -> None:
    make(base)
    before = versions(str(base / "lake"))
    with pytest.raises(CheckError, match="A has 20, B has 20 images; the recipe asks for at least 21 a class"):
        build(recipe(base, {"uri": "train", "min_per_class": 21}), engine=LocalEngine(1))
    assert versions(str(base / "lake")) == before
