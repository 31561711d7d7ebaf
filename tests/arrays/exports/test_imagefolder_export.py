import json
from pathlib import Path

import numpy as np
import pytest
from examples import few
from exported import export_main, labels_of, pictures_of, rows_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.arrays.exports.imagefolder import UNLABELLED, folder_names
from pipeline.lake_handle import Lake

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "/etc",
    "a/b",
    "a\\b",
    "a",
    "A",
    "CON",
    "con.txt",
    "nul",
    "_unlabelled",
    "-rf",
    "~",
    "%",
]
HOSTILE += [
    "%2F",
    "a%2Fb",
    "a\0b",
    "a\nb",
    "é",
    "e\u0301",
    "ß",
    "SS",
    "ss",
    "x" * 300,
    "x" * 299 + "y",
    "é" * 99,
    " a",
    "a ",
]


def read_folder(lake: Lake, folder: Path, role: str) -> None:
    named = {row["label_index"]: row["folder"] for row in json.loads((folder / "labels.json").read_text("utf-8"))}
    rows = rows_of(lake, role)
    for key, label, picture in zip(rows["image_id"], labels_of(rows), pictures_of(rows), strict=True):
        with Image.open(folder / role / named[label] / f"{key.hex()}.png") as file:
            np.testing.assert_array_equal(np.asarray(file), picture)
    assert len([path for path in (folder / role).rglob("*") if path.is_file()]) == len(rows)


def test_a_folder_a_class_with_the_pictures_by_id(small_lake: Lake, rgb_lake: Lake, tmp_path: Path) -> None:
    export_main(small_lake, tmp_path / "small", "imagefolder")
    for role in ("train", "test"):
        read_folder(small_lake, tmp_path / "small", role)
        assert sorted(path.name for path in (tmp_path / "small" / role).iterdir()) == ["A", "B"]
    export_main(rgb_lake, tmp_path / "rgb", "imagefolder")
    read_folder(rgb_lake, tmp_path / "rgb", "valid")


def test_odd_labels_several_shapes_and_no_label(mixed_lake: Lake, tmp_path: Path) -> None:
    export_main(mixed_lake, tmp_path / "out", "imagefolder")
    read_folder(mixed_lake, tmp_path / "out", "train")
    table = json.loads((tmp_path / "out" / "labels.json").read_text("utf-8"))
    assert [row["label"] for row in table] == [*mixed_lake.class_names("main"), None]
    assert len(list((tmp_path / "out" / "train" / UNLABELLED).iterdir())) == 3


def test_torchvision_reads_it(small_lake: Lake, tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    export_main(small_lake, tmp_path / "out", "imagefolder")
    read = datasets.ImageFolder(tmp_path / "out" / "test")
    assert read.classes == ["A", "B"]
    rows = rows_of(small_lake, "test")
    expected = {(picture.tobytes(), label) for picture, label in zip(pictures_of(rows), labels_of(rows), strict=True)}
    assert {(np.asarray(picture.convert("L")).tobytes(), label) for picture, label in read} == expected


def safe(names: dict[str, str]) -> None:
    spelled = list(names.values())
    assert len({name.lower() for name in spelled}) == len(spelled)
    for name in spelled:
        assert 0 < len(name) <= 100
        assert name.isascii()
        assert name.isprintable()
        assert not set(name) & set('/\\:*?"<>| ')
        assert name[0] not in ".-_~"
        assert name[-1] not in ". "
        assert name.lower().partition(".")[0] not in ("con", "prn", "aux", "nul", "com1", "lpt1")
        assert name != UNLABELLED


def test_hostile_labels_become_safe_names() -> None:
    names = folder_names(HOSTILE)
    safe(names)
    assert names["a/b"] == "a%2Fb"
    assert names[".."] == "%2E%2E"
    assert (names["a"], names["A"]) == ("a", "%41")
    assert folder_names(["A", "n01440764", "cat-dog_1.5"]) == {x: x for x in ("A", "n01440764", "cat-dog_1.5")}


@few(40)
@given(st.sets(st.one_of(st.text(max_size=150), st.sampled_from(HOSTILE), st.text("aAbB._-%/\\é", max_size=4))))
def test_any_labels_become_safe_names_of_their_own(labels: set[str]) -> None:
    listed = sorted(labels)
    names = folder_names(listed)
    assert list(names) == listed
    safe(names)
