"""Files of a lake are relabelled, renamed, moved and copied: no picture changes its role, and moves are counted."""

import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from lakes import read_meta, versions
from making import as_folder, files_of, recipe

from pipeline.builder.build import Built, build
from pipeline.builder.splits import describe_unit, find_previous_split
from pipeline.engines.local import LocalEngine
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.repair import repair
from pipeline.splits.previous import previous_roles
from pipeline.verify import verify

SHARES = {role: {"from": "train", "share": share} for role, share in (("train", 0.5), ("valid", 0.2), ("test", 0.3))}
SIZES = {role: {"from": "train", "size": size} for role, size in (("train", 60), ("valid", 20), ("test", 20))}
GROUPS: dict[str, Any] = {"name": "groups", "groups": ["exact"], **SHARES}
SPLITS = [GROUPS, {"name": "shares", **SHARES}, {"name": "sizes", **SIZES}]
KEEP: dict[str, Any] = {"name": "keep", "groups": ["exact"], "train": {"from": "train"}, "test": {"from": "other"}}


def make(base: Path, *splits: dict[str, Any], **source: Any) -> Built:
    listed = [{"uri": name, "split": name} for name in ("train", "other") if (base / name).exists()]
    made = recipe(base, *listed, split=list(splits or SPLITS), dedup={"rules": ["exact"]}, **source)
    return build(made, engine=LocalEngine(1))


def roles(base: Path, split: str) -> dict[tuple[bytes, int], str]:
    """By picture and number of its copy, its role; "" for none."""
    lake = Lake(base / "lake")
    rows = lake.scan("splits").filter(split_name=split).select("image_id", "role")
    images = lake.scan("images").join(rows, on="image_id", how="left").with_columns(pl.col("role").fill_null(""))
    numbered = images.sort("role").with_columns(copy=pl.int_range(pl.len()).over("file_digest"))
    return {
        (digest, copy): role for digest, copy, role in numbered.select("file_digest", "copy", "role").collect().rows()
    }


def why(built: Built) -> dict[str, str]:
    return {item.unit: item.reason for item in built.done if item.stage == "splits"}


def change_60(folder: Path) -> None:
    """Relabel 20 files, rename 20, and move 20 to another folder; 10 of each class."""
    for i in range(60):
        old = folder / "AB"[i % 2] / f"{i:05d}.png"
        new = {
            0: folder / "BA"[i % 2] / old.name,
            1: old.with_name(f"renamed{i}.png"),
            2: folder / "deep" / "AB"[i % 2] / old.name,
        }
        new[i // 20].parent.mkdir(parents=True, exist_ok=True)
        old.rename(new[i // 20])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Write 120 files of two classes, and a second copy of four of them."""
    files = files_of(120)
    again = {f"A/again{i}.png": files[f"A/{2 * i:05d}.png"] for i in range(4)}
    as_folder(tmp_path / "train", {**files, **again})
    return tmp_path


def test_relabelled_renamed_and_moved_files_keep_their_roles(base: Path) -> None:
    make(base)
    before = {split["name"]: roles(base, split["name"]) for split in SPLITS}
    change_60(base / "train")
    said = why(make(base))
    for split in ("groups", "shares", "sizes"):
        # As many files left each class as came to it, so that the quotas ask for no other file than these.
        now = roles(base, split)
        moved = [picture for picture, role in before[split].items() if now[picture] != role]
        if split == "sizes":
            assert len(moved) <= 2 * 20
        else:
            assert not moved
            assert said[split] == "its input changed"
    assert not any(check.faults for check in verify(str(base / "lake")))
    # The build says of the sizes what anyone can count.
    moves = read_meta(str(base / "lake"), "splits").units["sizes"]["moves"]
    assert moves["left"] == moves["joined"]
    assert said["sizes"] == "; ".join(["its input changed", *describe_unit({"moves": moves})])


def test_renames_alone_move_nothing_in_a_sized_split(base: Path) -> None:
    make(base, SPLITS[2])
    before = roles(base, "sizes")
    for file in (base / "train").glob("*/000[0-5]*.png"):
        file.rename(file.with_name(f"x{file.name}"))
    assert why(make(base, SPLITS[2])) == {"sizes": "its input changed"}
    assert roles(base, "sizes") == before


def test_a_lake_that_grew_has_the_shares_of_one_built_at_once(base: Path, tmp_path: Path) -> None:
    make(base, SPLITS[1])
    new = {f"C/{i}.png": data for i, data in enumerate(files_of(30, seed=7).values())}
    as_folder(base / "train", new)
    assert why(make(base, SPLITS[1]))["shares"].endswith("30 images joined the split")
    as_folder(
        tmp_path / "again" / "train",
        {str(f.relative_to(base / "train")): f.read_bytes() for f in (base / "train").rglob("*.png")},
    )
    make(tmp_path / "again", SPLITS[1])
    assert roles(base, "shares") == roles(tmp_path / "again", "shares")


def test_a_changed_keep_takes_effect_and_says_what_moved(base: Path) -> None:
    copies = {f"A/{i}.png": (base / "train" / "A" / f"{2 * i:05d}.png").read_bytes() for i in range(10, 15)}
    as_folder(base / "other", {**copies, **files_of(6, seed=3)})
    make(base, KEEP)
    assert dict(Lake(base / "lake").scan("splits").filter("kept").group_by("role").len().collect().rows())["test"] == 6
    built = make(base, {**KEEP, "keep": ["test", "train", "valid"]})
    assert why(built)["keep"].startswith("its settings changed; ")
    assert "5 images moved to another role; 5 images joined the split" in why(built)["keep"]
    assert dict(Lake(base / "lake").scan("splits").filter("kept").group_by("role").len().collect().rows())["test"] == 11
    held = versions(built.root)
    assert make(base, {**KEEP, "keep": ["test", "train", "valid"]}).done == ()
    assert versions(built.root) == held


def test_images_whose_file_is_lost_are_found_by_their_names(base: Path) -> None:
    """The previous release may have a file that a repair has replaced: it is read no more."""
    built = make(base, GROUPS)
    old = Snapshot(built.root).file_places("images")
    before = find_previous_split(Snapshot(built.root), "groups").before
    assert before is not None
    (base / "train" / "A" / "00000.png").rename(base / "train" / "A" / "x.png")
    make(base)
    first = Snapshot(built.root, {"releases": 1, "splits": 1})
    for place in set(old) - set(Snapshot(built.root).file_places("images")):
        Path(place).write_bytes(b"PAR1 damaged PAR1")
    found = find_previous_split(first, "groups").before
    assert found is not None
    assert len(found.images) < len(before.images)
    assert found.rows.sort("image_id").equals(before.rows.sort("image_id"))
    images = before.images.head(20)
    assert previous_roles(images, found).equals(previous_roles(images, before))


@pytest.mark.slow
def test_a_table_of_images_that_is_made_again_keeps_the_roles_of_its_names(base: Path) -> None:
    built = make(base, GROUPS)
    before = Lake(built.root).scan("splits").collect()
    as_folder(base / "train", {f"A/new{i}.png": data for i, data in enumerate(files_of(9, seed=5).values())})
    make(base, GROUPS)
    grown = Lake(built.root).scan("splits").collect()
    shutil.rmtree(base / "lake" / "images")
    asked = recipe(base, {"uri": "train"}, split=[GROUPS], dedup={"rules": ["exact"]})
    assert not any("splits" in line for line in repair(asked, engine=LocalEngine(1)).still_damaged)
    assert Lake(built.root).scan("splits").collect().equals(grown)
    assert before.join(grown, on=["image_id", "role"], how="anti").is_empty()


def test_a_split_stays_with_the_column_it_was_drawn_by(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a lake of 0.5 the digests come one by one, as its shards are read again: that moves nothing."""
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.decode.file_digest", lambda _: None)
        make(base)
    lake = Lake(base / "lake")
    assert lake.scan("images").collect()["file_digest"].null_count() == 124
    assert {unit["drawn_by"] for unit in read_meta(lake.root, "splits").units.values()} == {"content_hash"}
    before = lake.scan("splits").collect()
    os.utime(next((base / "train" / "A").iterdir()), ns=(1, 1))
    assert why(make(base)) == dict.fromkeys(("groups", "shares", "sizes"), "its input changed")
    after = Lake(base / "lake")
    assert after.scan("images").collect()["file_digest"].null_count() == 0
    assert after.scan("splits").collect().equals(before)
    assert why(make(base, *({**split, "seed": 1} for split in SPLITS)))
    assert {unit["drawn_by"] for unit in read_meta(lake.root, "splits").units.values()} == {"file_digest"}


def test_moves_of_older_and_newer_splits_are_described() -> None:
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"moves": {"moved": 0, "forced": 0, "left": 0, "joined": 0}}, []),
        (
            {"moves": {"moved": 1, "forced": 0, "left": 0, "joined": 2}},
            ["1 image moved to another role", "2 images joined the split"],
        ),
        (
            {"moves": {"moved": 2, "forced": 1, "left": 3}},
            [
                "2 images moved to another role, 1 of them because of new links, protected datasets or other sources",
                "3 images left the split",
            ],
        ),
        ({"empty": ["test"]}, ["test got no image, as its share is too small"]),
    ]
    for unit, expected in cases:
        assert describe_unit(unit) == expected
