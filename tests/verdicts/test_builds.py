"""Builds honour verdicts: in clusters and splits, for copies and moved files, and until they are taken back."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import rows_by_content
from making import as_folder, encoded, files_of, pictures, recipe

from pipeline.builder.build import Built, build, plan
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.maintenance import vacuum_releases
from pipeline.verdicts.files import export_verdicts, import_verdicts
from pipeline.verdicts.journal import withdraw
from pipeline.verify import verify

TABLES = ("images", "clusters", "splits")
SPLIT = {"name": "main", "sanitize": "exact", "train": {"from": "train"}, "test": {"from": "test"}}


class Made:
    """A lake of a folder of pictures in the splits train and test."""

    def __init__(self, base: Path, files: Mapping[str, bytes], **parts: Any) -> None:
        self.base = base
        self.parts = {
            "dedup": {"rules": ["exact", "cosine:0.95"]},
            "split": [SPLIT],
            "decode": {"size": [28, 28]},
            **parts,
        }
        as_folder(base, files)
        self.build()

    def build(self) -> Built:
        sources = [{"uri": name, "split": name} for name in ("train", "test") if (self.base / name).exists()]
        return build(recipe(self.base, *sources, **self.parts), engine=LocalEngine(1))

    @property
    def lake(self) -> Lake:
        return Lake(self.base / "lake")

    def clusters(self, rule: str) -> list[set[str]]:
        joined = self.lake.scan("clusters").filter(rule=rule).join(self.lake.scan("images"), on="image_id")
        found = joined.with_columns(name=pl.format("{}/{}", "split", "path")).group_by("cluster_id").agg("name")
        return sorted((set(names) for names in found.collect()["name"]), key=min)

    def split(self) -> dict[str, tuple[bool, str | None, str | None]]:
        rows = self.lake.scan("splits").join(
            self.lake.scan("images").select("image_id", "split", "path"), on="image_id"
        )
        named = rows.with_columns(name=pl.format("{}/{}", "split", "path")).collect()
        return {row["name"]: (row["kept"], row["reason"], row["corrected_label"]) for row in named.to_dicts()}

    def rows(self) -> dict[str, pl.DataFrame]:
        return {table: rows_by_content(self.lake.root, table) for table in TABLES}

    def is_whole(self) -> bool:
        return not [str(fault) for check in verify(self.lake.root) for fault in check.faults]


def near(picture: np.ndarray[Any, Any], shade: int) -> np.ndarray[Any, Any]:
    """Change a picture a little: its cosine stays above 0.95."""
    changed = picture.copy()
    changed[:2, :2] = shade
    return changed


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Train has ten pictures and a near copy; test has copies of two, near copies of two, and others."""
    train, drawn = files_of(10), pictures(10)
    test = {f"test/{name}": data for name, data in files_of(6, seed=9).items()}
    more = {
        "test/A/copy0.png": train["A/00000.png"],
        "test/A/near2.png": encoded(near(drawn[2], 255)),
        "test/B/near3.png": encoded(near(drawn[3], 255)),
        "train/A/near2.png": encoded(near(drawn[2], 0)),
    }
    return Made(tmp_path, {**{f"train/{name}": data for name, data in train.items()}, **test, **more})


def test_a_build_without_verdicts_commits_none(made: Made) -> None:
    assert made.lake.versions["verdicts"] == 0
    assert not (made.base / "lake" / ".verdicts").exists()


def test_pairs_are_linked_and_kept_apart_under_every_rule(made: Made) -> None:
    three = {"test/A/near2.png", "train/A/00002.png", "train/A/near2.png"}
    assert three in made.clusters("cosine:0.95")
    lake = made.lake
    train = {
        path: lake.scan("images").filter(split="train", path=path).collect()["image_id"][0]
        for path in ("A/00000.png", "A/00002.png", "A/near2.png", "A/00004.png")
    }
    near_test = lake.scan("images").filter(split="test", path="A/near2.png").collect()["image_id"][0]
    lake.decide("different", train["A/00002.png"], near_test)
    lake.decide("same", train["A/00004.png"], "A/copy0.png")
    done = {(todo.stage, todo.unit): todo.reason for todo in made.build().done}
    assert done["verdicts", "journal"] == "2 new verdicts"
    assert "verdicts: 1 pair linked, 1 pair kept apart" in done["dedup", "cosine:0.95"]
    clusters = made.clusters("cosine:0.95")
    assert {"test/A/copy0.png", "train/A/00000.png", "train/A/00004.png"} in clusters
    together = next(names for names in clusters if "train/A/near2.png" in names)
    assert len(together) == 2, "the closer of the two keeps its link"
    assert {"test/A/copy0.png", "train/A/00000.png", "train/A/00004.png"} in made.clusters("exact")
    # Linked with an image of test, an image of train leaks.
    assert not made.split()["train/A/00004.png"][0] or not made.split()["test/A/copy0.png"][0]
    assert made.is_whole()
    assert made.build().done == ()


def test_drops_labels_and_keeps_apply_to_splits(made: Made) -> None:
    before = made.split()
    lake = made.lake
    ids = dict(lake.scan("images").select(pl.format("{}/{}", "split", "path"), "image_id").collect().rows())
    lake.decide("drop", ids["train/B/00007.png"])
    lake.decide("label", ids["train/A/00006.png"], label="B")
    lake.decide("wrong_label", ids["train/A/00008.png"])
    # A copy of an image of another role leaks, whatever people say.
    lake.decide("keep", ids["train/A/00000.png"])
    planned = {
        todo.unit for todo in plan(recipe(made.base, {"uri": "train"}, {"uri": "test", "split": "test"}, **made.parts))
    }
    assert planned == {"journal", "main"}
    built = made.build()
    split = made.split()
    assert split["train/B/00007.png"][:2] == (False, "verdict")
    assert split["train/A/00006.png"] == (True, None, "B")
    assert split["train/A/00008.png"] == (True, None, None)
    leak = {name: split[name][0] for name in ("train/A/00000.png", "test/A/copy0.png")}
    assert leak == {name: before[name][0] for name in leak}
    assert sum(leak.values()) == 1
    assert "1 image dropped, 2 images with a corrected label" in next(t.reason for t in built.done if t.unit == "main")
    # Arrays, class names and exports have the corrected label.
    labels = {row["image_id"]: row["label_index"] for row in made.lake.members("main", "train").to_dicts()}
    names = made.lake.class_names("main")
    assert names[labels[ids["train/A/00006.png"]]] == "B"
    assert labels[ids["train/A/00008.png"]] is None
    assert made.lake.scan("images").filter(path="A/00006.png", split="train").collect()["label"][0] == "A"
    assert made.is_whole()


def test_verdicts_hold_for_copies_and_moved_files_until_they_are_taken_back(made: Made) -> None:
    untouched = made.rows()
    ids = dict(made.lake.scan("images").select(pl.format("{}/{}", "split", "path"), "image_id").collect().rows())
    verdict = made.lake.decide("drop", ids["train/A/00004.png"])
    made.build()
    folder = made.base / "train"
    (folder / "B/moved.png").write_bytes((folder / "A/00004.png").read_bytes())
    shutil.copy(folder / "B/moved.png", folder / "B/copy.png")
    (folder / "A/00004.png").unlink()
    made.build()
    assert {name: made.split()[name][1] for name in ("train/B/moved.png", "train/B/copy.png")} == {
        "train/B/moved.png": "verdict",
        "train/B/copy.png": "verdict",
    }
    for name in ("moved", "copy"):
        (folder / f"B/{name}.png").unlink()
    made.build()
    found = made.lake.verdicts()
    assert (len(found.standing), found.gone, found.waiting) == (1, 1, 0)
    as_folder(made.base, {"train/A/00004.png": files_of(10)["A/00004.png"]})
    made.build()
    vacuum_releases(made.lake.root, keep_last=1, older_than_hours=0, dry_run=False, force=True)
    assert made.split()["train/A/00004.png"][1] == "verdict"
    withdraw(made.lake.root, [verdict])
    made.build()
    assert all(made.rows()[table].equals(untouched[table]) for table in TABLES)
    assert made.is_whole()


def test_a_file_that_was_encoded_anew_has_its_verdict(made: Made) -> None:
    ids = dict(made.lake.scan("images").select(pl.format("{}/{}", "split", "path"), "image_id").collect().rows())
    made.lake.decide("drop", ids["train/A/00004.png"])
    made.lake.decide("different", ids["train/A/00004.png"], ids["train/B/00005.png"])
    file = made.base / "train/A/00004.png"
    file.write_bytes(encoded(pictures(10)[4], compress_level=0))
    made.build()
    assert made.split()["train/A/00004.png"][:2] == (False, "verdict")
    shown = made.lake.verdicts()
    assert shown.gone == 0
    assert shown.standing["path"].to_list() == ["A/00004.png of d/train"] * 2
    (image,) = made.lake.why(ids["train/A/00004.png"]).images
    assert [(one["verdict"], one["counts"]) for one in image["verdicts"]] == [("drop", True), ("different", True)]


def test_a_grown_lake_is_one_from_nothing_with_the_same_verdicts(
    made: Made, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lake = made.lake
    ids = dict(lake.scan("images").select(pl.format("{}/{}", "split", "path"), "image_id").collect().rows())
    lake.decide("different", ids["train/A/00002.png"], ids["test/A/near2.png"])
    lake.decide("same", ids["train/B/00005.png"], ids["train/B/00007.png"])
    lake.decide("label", ids["train/A/00006.png"], label="C")
    made.build()
    drawn = pictures(10)
    as_folder(
        made.base,
        {"test/A/near2b.png": encoded(near(drawn[2], 128)), "train/B/new.png": files_of(1, seed=77)["A/00000.png"]},
    )
    made.build()
    base = tmp_path_factory.mktemp("fresh")
    for name in ("train", "test"):
        shutil.copytree(made.base / name, base / name)
    fresh = Made(base, {}, **made.parts)
    export_verdicts(made.lake.root, base / "verdicts.csv")
    import_verdicts(fresh.lake.root, base / "verdicts.csv")
    fresh.build()
    left, right = made.rows(), fresh.rows()
    assert all(left[table].equals(right[table]) for table in TABLES)
    assert fresh.is_whole()


@pytest.mark.parametrize("clusters", ["components", "stars"])
def test_stricter_thresholds_and_stars_are_kept_apart_too(tmp_path: Path, clusters: str) -> None:
    drawn = pictures(4)
    files = {f"train/A/{number}.png": encoded(drawn[number]) for number in range(4)}
    files |= {f"test/A/near{number}.png": encoded(near(drawn[number], 255)) for number in range(4)}
    split = {**SPLIT, "sanitize": "cosine:0.97"}
    made = Made(tmp_path, files, dedup={"rules": ["cosine:0.95"], "clusters": clusters}, split=[split])
    assert sum(not kept for kept, *_ in made.split().values()) == 4
    made.lake.decide("different", "A/0.png", "A/near0.png")
    made.build()
    assert sum(not kept for kept, *_ in made.split().values()) == 3
    assert made.is_whole()


def test_paths_of_several_pictures_and_unknown_ones_are_refused(made: Made) -> None:
    with pytest.raises(LakeError, match="has 2 pictures 'A/near2.png': name one by its image_id"):
        made.lake.decide("drop", "A/near2.png")
    with pytest.raises(LakeError, match="has no image with the path"):
        made.lake.decide("drop", "A/none.png")


def test_a_killed_build_commits_no_verdict_twice(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.lake.decide("drop", "B/near3.png")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.builder.verdicts.storage.delete", killed)
        with pytest.raises(KeyboardInterrupt):
            made.build()
    assert len(made.lake.verdicts().standing) == 1
    made.build()
    assert len(made.lake.scan("verdicts").collect()) == 1
    (copy,) = (made.base / "lake" / ".verdicts").iterdir()
    assert copy.name.startswith("copy-")
    assert made.split()["test/B/near3.png"][1] == "verdict"
