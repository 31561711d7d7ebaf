"""Splits of whole groups, and policies, through whole builds."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from lakes import read_meta, versions
from making import as_folder, encoded, files_of, pictures, recipe

from pipeline.builder import build as build_module
from pipeline.builder.build import Built, build, plan
from pipeline.builder.splits import describe_unit
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.verify import verify

SPLIT: dict[str, Any] = {
    "name": "main",
    "groups": ["exact", "sign"],
    "train": {"from": "train", "share": 0.7},
    "valid": {"from": "train", "share": 0.3},
    "test": {"from": "test"},
}
COLUMNS = ("role", "rank", "image_id", "label_index", "kept", "dropped_by", "dropped_for", "reason")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write 60 train images, four of them twice, and 20 test images with ten copies of train images."""
    train = files_of(60)
    again = {f"B/again{i}.png": train[f"A/{2 * i:05d}.png"] for i in range(20, 24)}
    copies = {f"A/copy{i}.png": train[f"A/{2 * i:05d}.png"] for i in range(10)}
    as_folder(tmp_path / "train", {**train, **again})
    as_folder(tmp_path / "test", {**files_of(20, seed=1), **copies})
    return tmp_path


def make(base: Path, split: dict[str, Any] = SPLIT) -> Built:
    listed = ({"uri": "train"}, {"uri": "test", "split": "test", "dataset": "bench"})
    return build(recipe(base, *listed, split=[split], dedup={"rules": ["exact", "sign"]}), engine=LocalEngine(1))


def rows(base: Path) -> pl.DataFrame:
    return Lake(base / "lake").scan("splits").collect()


def paths(base: Path) -> dict[str, str]:
    """By dataset and path, the role in which an image is kept."""
    images = Lake(base / "lake").scan("images").select("image_id", key=pl.format("{}/{}", "dataset", "path")).collect()
    return dict(rows(base).filter("kept").join(images, on="image_id").select("key", "role").rows())


def unit(base: Path) -> dict[str, Any]:
    return dict(read_meta(str(base / "lake"), "splits").units["main"])


def why(built: Built) -> str:
    (reason,) = [item.reason for item in built.done if item.stage == "splits"]
    return reason


def no_faults(base: Path) -> bool:
    return not any(check.faults for check in verify(str(base / "lake")))


def test_a_build_draws_groups_tells_what_it_missed_and_then_has_nothing_to_do(base: Path) -> None:
    built = make(base)
    assert why(built) == "new; test got 20 of 30 images"
    assert unit(base)["deviation"]["test"] == {"asked": 30, "got": 20, "labels": [["A", 20, 10]]}
    assert unit(base)["moves"] is None
    dropped = rows(base).filter(~pl.col("kept"))
    assert dropped.select("role", "dropped_by", "reason").unique().rows() == [("test", "exact", "overlap")]
    clusters = Lake(built.root).scan("clusters").collect()
    straddling = clusters.join(rows(base).filter("kept"), on="image_id").group_by("rule", "cluster_id")
    assert straddling.agg(pl.col("role").n_unique())["role"].max() == 1
    assert no_faults(base)
    before = versions(built.root)
    asked = recipe(
        base,
        {"uri": "train"},
        {"uri": "test", "split": "test", "dataset": "bench"},
        split=[SPLIT],
        dedup={"rules": ["exact", "sign"]},
    )
    assert plan(asked) == []
    again = make(base)
    assert again.done == ()
    assert versions(built.root) == before


@pytest.mark.slow
def test_new_images_move_nobody_and_new_links_only_what_they_link(base: Path) -> None:
    make(base)
    first = paths(base)
    as_folder(base / "train", {f"A/new{i}.png": data for i, data in enumerate(files_of(15, seed=5).values())})
    assert why(make(base)) == "its input changed; test got 20 of 30 images; 15 images joined the split"
    second = paths(base)
    assert first.items() <= second.items()
    assert unit(base)["moves"] == {"moved": 0, "forced": 0, "left": 0, "joined": 15}

    in_valid = next(key for key, role in sorted(second.items()) if role == "valid" and "/0" in key)
    as_folder(base / "train", {"A/link.png": (base / "train" / in_valid.removeprefix("d/")).read_bytes()})
    make(base)
    assert paths(base) == {**paths(base), **second, "d/A/link.png": "valid"}

    # keep begins with test now: what a new test image shows, train loses
    turned = {**SPLIT, "keep": ["test", "valid", "train"]}
    make(base, turned)
    third = paths(base)
    in_test, in_train = "bench/B/00001.png", next(key for key, role in sorted(third.items()) if role == "train")
    as_folder(base / "test", {"A/00000.png": (base / "train" / in_train.removeprefix("d/")).read_bytes()})
    assert "moved to another role" in why(make(base, turned))
    now = paths(base)
    assert now[in_test] == "test"
    assert in_train not in now
    assert unit(base)["moves"]["moved"] == unit(base)["moves"]["forced"] == 1
    assert no_faults(base)


def test_a_split_goes_on_from_its_release_not_from_what_a_dead_build_drew(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(base)
    other = base / "undisturbed"
    for folder in ("train", "test", "lake"):
        as_folder(
            other / folder,
            {str(p.relative_to(base / folder)): p.read_bytes() for p in (base / folder).rglob("*") if p.is_file()},
        )
    as_folder(base / "train", {f"A/lost{i}.png": data for i, data in enumerate(files_of(15, seed=6).values())})

    class Killed(BaseException): ...

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "publish", killed)
        with pytest.raises(Killed):
            make(base)
    for i in range(15):
        (base / "train" / f"A/lost{i}.png").unlink()
    new = {f"A/new{i}.png": data for i, data in enumerate(files_of(9, seed=7).values())}
    for place in (base, other):
        as_folder(place / "train", new)
        make(place)
    assert rows(base).select(COLUMNS).equals(rows(other).select(COLUMNS))


def test_stars_do_not_tear_what_pairs_link(tmp_path: Path) -> None:
    """A chain of pictures, each a bit unlike the one before: stars cut it, groups do not."""
    chain = pictures(1).repeat(25, axis=0)
    for step, picture in enumerate(chain):
        picture[:step] = 255 - picture[:step]
    files = {f"A/{step:02d}.png": encoded(picture) for step, picture in enumerate(chain)}
    as_folder(tmp_path / "train", {**files, **files_of(20, seed=3)})
    split = {"name": "main", "groups": ["hamming:7"], "train": {"from": "train"}, "test": {"from": "train", "size": 9}}
    dedup = {"rules": ["hamming:7"], "clusters": "stars"}
    for seed in range(3):
        asked = recipe(tmp_path, {"uri": "train"}, split=[{**split, "seed": seed}], dedup=dedup)
        lake = Lake(build(asked, engine=LocalEngine(1)).root)
        roles = lake.scan("splits").select("image_id", "role")
        pairs = lake.scan("pairs").join(roles, left_on="left_id", right_on="image_id")
        both = pairs.join(roles, left_on="right_id", right_on="image_id").collect()
        assert len(both) == 17
        assert both["role"].equals(both["role_right"].alias("role"))


def test_policies_reach_the_table_and_a_leaking_benchmark_is_named(base: Path) -> None:
    as_folder(base / "train", {"B/claims.png": (base / "test" / "A" / "copy1.png").read_bytes()})
    split = {
        "name": "main",
        "sanitize": "sign",
        "conflicts": "trusted",
        "trusted": ["bench"],
        "protected": ["bench"],
        "train": {"from": "train"},
        "valid": {"from": "bench/test", "size": 10},
        "test": {"from": "test"},
    }
    as_folder(base / "test", {f"A/twice{i}.png": (base / "test" / f"A/{2 * i:05d}.png").read_bytes() for i in range(9)})
    built = make(base, split)
    images = Lake(built.root).scan("images").collect()
    found = rows(base).join(images.select("image_id", "dataset", "path"), on="image_id")
    assert found.filter(dataset="bench")["kept"].all()
    assert found.filter(path="B/claims.png").select("kept", "reason").rows() == [(False, "conflict")]
    (torn,) = unit(base)["straddling"]
    assert torn["datasets"] == ["bench"]
    assert torn["clusters"] > 0
    assert why(built) == f"new; {torn['clusters']} clusters of sign remain in two roles because bench is protected"


def test_nothing_is_told_of_a_split_as_asked_for() -> None:
    assert describe_unit({"spec": {}, "fingerprint": "", "rows": ""}) == []
    whole: dict[str, Any] = {
        "deviation": {"train": {"asked": 2, "got": 2, "labels": []}},
        "moves": None,
        "straddling": [],
    }
    assert describe_unit(whole) == []
    assert describe_unit({"moves": {"moved": 0, "forced": 0, "left": 1200}}) == ["1,200 images left the split"]
