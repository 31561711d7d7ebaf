"""Exports of original files: untouched, under their names, with a manifest of every image."""

import csv
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from damaged_lakes import flip
from hypothesis import given
from hypothesis import strategies as st
from lakes import file_names
from making import recipe
from PIL import Image

from pipeline.arrays.exports.file_names import name_files
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import DamagedLakeError, LakeError
from pipeline.export import export
from pipeline.lake_handle import Lake

# As they are in the source, and as imagefolder names them.
NAMES = {
    "A/IMG (1).JPG": "IMG (1).JPG",
    "A/übung.jpg": "übung.jpg",
    "A/CON.jpg": "_CON.jpg",
    "A/no extension": "no extension.jpg",
    "A/what?.jpeg": "what_.jpeg",
    "A/x/same.jpg": "same.jpg",
    "B/same.jpg": "same.jpg",
    "B/p.png": "p.png",
    "B/copy of p.png": "copy of p.png",
}


def picture(number: int, form: str) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((300, 270)).save(stream, form)
    return stream.getvalue()


@pytest.fixture(scope="module", params=["keep", "reference"])
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    base = tmp_path_factory.mktemp("originals")
    for number, path in enumerate(NAMES):
        (base / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        same = 7 if "p.png" in path else number
        (base / "in" / path).write_bytes(picture(same, "PNG" if path.endswith("png") else "JPEG"))
    split = {"name": "main", "sanitize": "exact", "within": "first", "train": {"from": "train"}}
    attributes = [{"patterns": {"stem": "/(.*)[.]", "upper": "([A-Z]+)[.]"}}]
    build(
        recipe(base, {"uri": "in"}, decode={"originals": request.param}, split=[split], attributes=attributes),
        engine=LocalEngine(1),
    )
    return Lake(base / "lake")


def source_digests(lake: Lake) -> dict[str, str]:
    source = Path(lake.root).parent / "in"
    return {path: hashlib.sha256((source / path).read_bytes()).hexdigest() for path in NAMES}


def manifest(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "manifest.csv").read_text(encoding="utf-8"))))


def test_imagefolder_has_the_files_under_their_names(lake: Lake, tmp_path: Path) -> None:
    export(lake.root, "main", tmp_path / "out", "imagefolder", engine=LocalEngine(1))
    digests = source_digests(lake)
    rows = manifest(tmp_path / "out")
    assert {row["path"] for row in rows} == set(NAMES)
    assert {row["path"]: (row["attr:stem"], row["attr:upper"]) for row in rows if "CON" in row["path"]} == {
        "A/CON.jpg": ("CON", "CON")
    }
    assert {row["attr:upper"] for row in rows} == {"CON", ""}
    dropped = [row for row in rows if not row["file"]]
    assert [(row["kept"], row["reason"], Path(row["path"]).suffix) for row in dropped] == [("false", "repeat", ".png")]
    for row in rows:
        assert row["file_digest"] == digests[row["path"]]
        if row["file"]:
            assert Path(row["file"]).name == NAMES[row["path"]]
            assert hashlib.sha256((tmp_path / "out" / row["file"]).read_bytes()).hexdigest() == row["file_digest"]
    written = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out" / "train").rglob("*.*")}
    assert written == {row["file"] for row in rows if row["file"]}


def test_links_are_made_to_files_with_the_same_bytes(lake: Lake, tmp_path: Path) -> None:
    source = Path(lake.root).parent / "in"
    target = source.parent / f"linked {tmp_path.name}"
    done = export(lake.root, "main", target, "imagefolder", engine=LocalEngine(1), link=True)
    rows = [row for row in manifest(target) if row["file"]]
    assert done.linked == len(rows) == 8
    for row in rows:
        assert (target / row["file"]).samefile(source / row["path"])
    with pytest.raises(LakeError, match="hard links are made with form imagefolder only"):
        export(lake.root, "main", tmp_path / "out", "webdataset", engine=LocalEngine(1), link=True)


def test_a_source_that_changed_is_not_linked(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / "A").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "A" / name).write_bytes(picture(ord(name[0]), "JPEG"))
    split = {"name": "main", "train": {"from": "train"}}
    build(recipe(tmp_path, {"uri": "in"}, split=[split]), engine=LocalEngine(1))
    before = (tmp_path / "in" / "A" / "a.jpg").read_bytes()
    (tmp_path / "in" / "A" / "a.jpg").write_bytes(picture(3, "JPEG"))
    done = export(str(tmp_path / "lake"), "main", tmp_path / "out", "imagefolder", engine=LocalEngine(1), link=True)
    assert done.linked == 1
    assert (tmp_path / "out" / "train" / "A" / "a.jpg").read_bytes() == before


def test_webdataset_and_huggingface_have_the_same_bytes(lake: Lake, tmp_path: Path) -> None:
    digests = source_digests(lake)
    export(lake.root, "main", tmp_path / "wds", "webdataset", engine=LocalEngine(1))
    with tarfile.open(tmp_path / "wds" / "train-000000.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr] # all are files
    found = {name: data for name, data in files.items() if not name.endswith((".cls", "__"))}
    rows = {row["file"]: row for row in manifest(tmp_path / "wds") if row["file"]}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == {
        name: digests[row["path"]] for name, row in rows.items()
    }
    assert all(name.count(".") == 1 for name in found)
    export(lake.root, "main", tmp_path / "hf", "huggingface", engine=LocalEngine(1))
    images = pq.read_table(tmp_path / "hf" / "data")["image"].to_pylist()
    rows = {row["file"]: row for row in manifest(tmp_path / "hf") if row["file"]}
    assert {item["path"]: hashlib.sha256(item["bytes"]).hexdigest() for item in images} == {
        name: digests[row["path"]] for name, row in rows.items()
    }


def test_an_export_comes_back_with_its_digests_and_labels(lake: Lake, tmp_path: Path) -> None:
    export(lake.root, "main", tmp_path / "in", "imagefolder", engine=LocalEngine(1))
    back = Lake(build(recipe(tmp_path, {"uri": "in/train"}), engine=LocalEngine(1)).root)
    columns = ("file_digest", "label")
    kept = lake.members("main", "train").select("image_id")
    rows = lake.scan("images").collect().join(kept, on="image_id", how="semi").select(columns).sort(columns)
    assert back.scan("images").select(columns).sort(columns).collect().equals(rows)
    assert back.scan("rejects").collect().is_empty()


@pytest.mark.parametrize("table", ["originals", "attributes", "images"])
def test_nothing_damaged_is_exported(lake: Lake, tmp_path: Path, table: str) -> None:
    shutil.copytree(lake.root, tmp_path / "lake")
    file = Path(file_names(str(tmp_path / "lake"), table)[0])
    flip(file, file.stat().st_size // 3, 2)
    for form in ("imagefolder", "webdataset", "huggingface"):
        with pytest.raises(DamagedLakeError, match=table):
            export(str(tmp_path / "lake"), "main", tmp_path / form, form, engine=LocalEngine(1))
        assert not (tmp_path / form).exists()
    if table == "originals":
        with pytest.raises(DamagedLakeError, match=table):
            Lake(tmp_path / "lake").arrays("main", "train", size=(8, 8), decode="original")


def test_an_array_is_encoded_as_png(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.arange(2 * 5 * 4, dtype=np.uint8).reshape(2, 5, 4), labels=[0, 1])
    (tmp_path / "in" / "0").mkdir(parents=True)
    (tmp_path / "in" / "0" / "photo.jpg").write_bytes(picture(1, "JPEG"))
    sources = {"uri": "a.npz", "dataset": "a"}, {"uri": "in", "dataset": "b"}
    build(
        recipe(tmp_path, *sources, decode={"mode": "RGB"}, split=[{"name": "main", "train": {"from": "train"}}]),
        engine=LocalEngine(1),
    )
    export(str(tmp_path / "lake"), "main", tmp_path / "out", "imagefolder", engine=LocalEngine(1))
    rows = {row["path"]: row for row in manifest(tmp_path / "out")}
    assert Path(rows["0/photo.jpg"]["file"]).name == "photo.jpg"
    for number in ("0", "1"):
        file = tmp_path / "out" / rows[number]["file"]
        assert file.name == f"{rows[number]['image_id']}.png"
        expected = np.arange(20 * int(number), 20 * int(number) + 20).reshape(5, 4)
        np.testing.assert_array_equal(np.asarray(Image.open(file))[:, :, 0], expected)


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=70), min_size=1, max_size=8), st.booleans())
def test_names_are_different_and_safe(paths: list[str], dots: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    rows = pl.DataFrame(
        {
            "path": paths,
            "image_id": [bytes([number] * 16) for number in range(len(paths))],
            "format": ["JPEG"] * len(paths),
        }
    )
    names = name_files(rows, dots=dots).to_list()
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name == name.strip()
        assert not set(name) & set('/\\:*?"<>|\0\n')
        assert name[0] not in ".-~"
        assert len(name.encode()) <= 255
        assert dots or name.count(".") == 1


def test_several_values_of_an_attribute_are_a_list_in_the_manifest(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / "A").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "A" / name).write_bytes(picture(ord(name[0]), "JPEG"))
    (tmp_path / "facts.csv").write_text("path,cat,d\\g,who\nA/a.jpg,1,1,x\nA/b.jpg,0,1,y\n")
    facts = {"uri": "facts.csv", "labels": ["cat", "d\\g"], "columns": ["who"]}
    split = {"name": "main", "train": {"from": "train"}}
    build(recipe(tmp_path, {"uri": "in"}, attributes=[facts], split=[split]), engine=LocalEngine(1))
    export(str(tmp_path / "lake"), "main", tmp_path / "out", "imagefolder", engine=LocalEngine(1))
    rows = {row["path"]: row for row in manifest(tmp_path / "out")}
    assert json.loads(rows["A/a.jpg"]["attr:labels"]) == ["cat", "d\\g"]
    assert json.loads(rows["A/b.jpg"]["attr:labels"]) == ["d\\g"]
    assert rows["A/a.jpg"]["attr:who"] == "x"
