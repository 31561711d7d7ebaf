"""Splits in the order of an attribute, and over several labels an image, through whole builds."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from lakes import commit, publish, read_meta, write_part
from making import as_folder, encoded, files_of, recipe
from PIL import ExifTags, Image

from pipeline.builder.build import Built, build, plan
from pipeline.engines.local import LocalEngine
from pipeline.lake.delta_log import Metadata
from pipeline.lake_handle import Lake
from pipeline.verify import verify
from schemas import TABLES

ROLES = {"train": {"from": "train", "share": 0.5}, "test": {"from": "train", "share": 0.5}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    as_folder(tmp_path / "a", {name[2:]: data for name, data in files_of(40).items()})
    return tmp_path


def asked(base: Path, attributes: dict[str, Any], **split: Any) -> Any:
    parts = {"attributes": [attributes], "split": [{"name": "main", **ROLES, **split}], "decode": {"mode": "L"}}
    return recipe(base, {"uri": "a"}, **parts)


def make(base: Path, attributes: dict[str, Any], **split: Any) -> Built:
    built = build(asked(base, attributes, **split), engine=LocalEngine(1))
    assert not [fault for check in verify(built.root) for fault in check.faults]
    assert plan(asked(base, attributes, **split)) == []
    return built


def reason(built: Built) -> str:
    (found,) = [item.reason for item in built.done if item.stage == "splits"]
    return found


def test_train_is_before_test_in_a_lake(base: Path) -> None:
    days = [f"{number:05d}.png,2026-02-{28 - number // 2:02d}" for number in range(36)]
    (base / "days.csv").write_text("\n".join(["path,day", *days]))
    built = make(base, {"uri": "days.csv"}, order="attr:day")
    assert reason(built) == "new; 4 images without day: in train"
    query = (
        "SELECT role, max(day), min(day) FROM splits JOIN attributes_wide USING (image_id) GROUP BY role ORDER BY role"
    )
    (_, _, first_of_test), (_, last_of_train, _) = Lake(built.root).sql(query).fetchall()
    assert last_of_train <= first_of_test
    (base / "days.csv").write_text("\n".join(["path,day", *days, "00039.png,2027-01-01"]))
    built = make(base, {"uri": "days.csv"}, order="attr:day")
    assert "moved to another role" in reason(built)


def test_verify_allows_only_the_early_images_that_the_build_counted(base: Path) -> None:
    rows = [f"{number:05d}.png,{number},p{number // 8 if number % 8 else 4}" for number in range(40)]
    (base / "facts.csv").write_text("\n".join(["path,day,patient", *rows]))
    split = {"order": "attr:day", "groups": ["attr:patient"]}
    built = make(base, {"uri": "facts.csv"}, **split)
    (early,) = re.findall(r"(\d+) images? of test earlier than the latest", reason(built))
    names = Lake(built.root).sql("SELECT image_id, path FROM images").pl()
    stored = Lake(built.root).scan("splits").collect().join(names, on="image_id")
    moved = stored.with_columns(role=pl.when(pl.col("path") == "00001.png").then(pl.lit("test")).otherwise("role"))
    table = moved.sort("image_id").drop("split_name", "path").to_arrow().cast(TABLES["splits"].file_schema)
    part = write_part(built.root, "splits", {"split_name": "main"}, table)
    metadata = read_meta(built.root, "splits")
    commit(built.root, "splits", [part] if part else [], lambda _: True, Metadata("splits", metadata.units))
    publish(built.root, "", "moved", read_meta(built.root, "releases").units["recipe"])
    faults = [str(fault) for check in verify(built.root) for fault in check.faults]
    wanted = (
        f"split 'main': {int(early) + 1} images of test have a smaller day than the largest of the roles before it ("
    )
    assert any(fault.startswith(wanted) and f"; the build counted {early}" in fault for fault in faults)
    assert any(
        "1 values of attr:patient have kept rows in two roles, such as p0: 00001.png (test)" in f for f in faults
    )


def photograph(number: int, *, taken: bool) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = f"camera {number % 2}"
    if taken:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"2026:02:{20 - number:02d} 10:00:00"
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return encoded(pixels, "JPEG", exif=exif.tobytes())


def test_the_time_and_the_camera_of_photographs_are_attributes(tmp_path: Path) -> None:
    as_folder(tmp_path / "p", {f"{number}.jpg": photograph(number, taken=number < 8) for number in range(10)})

    def made(**split: Any) -> Built:
        asked = recipe(tmp_path, {"uri": "p"}, decode={"mode": "RGB"}, split=[{"name": "main", **ROLES, **split}])
        built = build(asked, engine=LocalEngine(1))
        assert not [fault for check in verify(built.root) for fault in check.faults]
        return built

    built = made(order="attr:taken_at")
    assert reason(built) == "new; 2 images without taken_at: in train"
    query = "SELECT path, role FROM splits JOIN images USING (image_id) ORDER BY role, path"
    roles = dict(Lake(built.root).sql(query).fetchall())
    # The newest are the first: 0.jpg is of 20 February.
    assert sorted(path for path, role in roles.items() if role == "test") == [f"{number}.jpg" for number in range(5)]
    made(groups=["attr:camera"])
    by_camera = "SELECT count(DISTINCT role) FROM splits JOIN originals USING (image_id) GROUP BY camera"
    assert Lake(built.root).sql(by_camera).fetchall() == [(1,), (1,)]


def test_an_order_by_text_says_so(base: Path) -> None:
    rows = [f"{number:05d}.png,{number}" for number in range(39)]
    (base / "v.csv").write_text("\n".join(["path,v", *rows, "00039.png,unknown"]))
    as_text = "; ordered by v as text, where 10 is before 9; for numbers or dates, set its type in types"
    assert as_text in reason(make(base, {"uri": "v.csv"}, order="attr:v"))
    assert as_text not in reason(make(base, {"uri": "v.csv", "types": {"v": "int"}}, order="attr:v"))


@pytest.mark.slow
def test_another_order_of_a_split_that_exists_takes_effect(base: Path) -> None:
    rows = [f"{number:05d}.png,{number},{-number},{number % 3}" for number in range(40)]
    (base / "facts.csv").write_text("\n".join(["path,up,down,kind", *rows]))
    facts = {"uri": "facts.csv"}

    def roles(**split: Any) -> list[str]:
        built = make(base, facts, **split)
        query = "SELECT role FROM splits JOIN images USING (image_id) ORDER BY path"
        return [role for (role,) in Lake(built.root).sql(query).fetchall()]

    shuffled = roles()
    assert roles(order="attr:up") == ["train"] * 20 + ["test"] * 20
    assert roles(order="attr:down") == ["test"] * 20 + ["train"] * 20
    assert roles() == shuffled
    balanced = roles(stratify="attr:kind")
    assert all(balanced[kind::3].count("train") in (6, 7) for kind in range(3))


def test_coco_annotations_are_stratified_and_stored_as_labels(base: Path) -> None:
    names = [f"{number:05d}.png" for number in range(40)]
    pairs = [(n, k) for n in range(38) for k in range(3) if n % (k + 2) == 0]
    coco = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"image_id": n, "category_id": k} for n, k in pairs],
        "categories": [{"id": k, "name": name} for k, name in enumerate(("cat", "dog", "\x1b[31m<b>"))],
    }
    (base / "annotations.json").write_text(json.dumps(coco))
    built = make(base, {"uri": "annotations.json"}, stratify="attr:labels")
    assert "images without labels" in reason(built)
    rows = (
        Lake(built.root).scan("attributes").filter(name="labels").join(Lake(built.root).scan("splits"), on="image_id")
    )
    counts = rows.group_by("value", "role").len().collect()
    wide = counts.pivot("role", index="value", values="len")
    assert wide.select((pl.col("train") - pl.col("test").cast(pl.Int64)).abs().max()).item() <= 2
    lists = Lake(built.root).sql("SELECT labels FROM attributes_wide").fetchall()
    assert max(len(labels) for (labels,) in lists) == 3
    assert len(lists) == len({n for n, _ in pairs})
