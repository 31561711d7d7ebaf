"""Every form of export, read again as a source, gives the same pixels, labels and roles."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from exported import export_main, pictures_of, rows_of
from hypothesis import given
from hypothesis import strategies as st
from making import as_tar, encoded, handed_out, recipe, source_of, turned_away

from pipeline.arrays.exports import FORMS
from pipeline.arrays.exports.imagefolder import folder_names, folders_text
from pipeline.arrays.exports.webdataset import classes_text
from pipeline.builder.build import build
from pipeline.decode import Decoded, decode_shard
from pipeline.engines.local import LocalEngine
from pipeline.lake_handle import Lake
from pipeline.recipe import DecodePart
from pipeline.sources import Source, read, resolve
from pipeline.sources.exported import class_folders

ROLES = ("train", "valid", "test")
LABELS = ["1", "2", "10", "01", "a/b", "ä b%", "_unlabelled", "..x", "CON", "con", "a\nb", "50%25", "-1", "x" * 120]
# What names the images of a role in each form.
URIS = {
    "npz": "main.npz",
    "npy": "{role}_images.npy",
    "parquet": "{role}-*.parquet",
    "imagefolder": "{role}",
    "webdataset": "{role}-*.tar",
    "huggingface": "data/{split}-*.parquet",
    "notebook": "notMNIST.npz",
}
OF_ONE_SIZE = ("npz", "npy", "notebook")
# A picture: its label, its shape and its pixels.
Seen = tuple[str | None, tuple[int, ...], bytes]


def make_lake(base: Path, kinds: Mapping[str, Sequence[tuple[int, ...]]], **decode: Any) -> Lake:
    """Build a lake whose pictures have every label of `LABELS` or none, in three roles.

    Args:
        base: an empty folder.
        kinds: shapes of pictures by name of a split; a split `bare` has no labels at all.
        decode: the recipe's `[decode]`.
    """
    chance = np.random.default_rng(len(kinds))
    sources, splits = [], []
    for name, shapes in kinds.items():
        for role in ROLES:
            labels = [None] * 3 if name == "bare" else [*LABELS[len(role) % 2 :], None, *LABELS[:2]]
            made = [chance.integers(0, 256, shapes[i % len(shapes)], dtype=np.uint8) for i in range(len(labels))]
            table = pl.DataFrame({"image": list(map(encoded, made)), "label": pl.Series(labels, dtype=pl.String)})
            table.write_parquet(base / f"{name}-{role}.parquet")
            sources.append({"uri": f"{name}-{role}.parquet", "dataset": name, "split": f"{name}-{role}"})
        splits.append({"name": name, **{role: {"from": f"{name}-{role}"} for role in ROLES}})
    build(recipe(base, *sources, decode=decode, split=splits), engine=LocalEngine(1))
    return Lake(base / "lake")


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Splits main and bare of 5x4 and mixed of several sizes, in gray."""
    kinds = {"main": [(5, 4)], "bare": [(5, 4)], "mixed": [(3, 5), (6, 4), (1, 1), (1, 9)]}
    return make_lake(tmp_path_factory.mktemp("gray"), kinds)


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Splits main of 3x4 and mixed of several sizes, in RGB. Arrays of 3x4 could have their channels first too."""
    kinds = {"main": [(3, 4, 3)], "mixed": [(3, 5, 3), (6, 4, 3), (1, 1, 3)]}
    return make_lake(tmp_path_factory.mktemp("colour"), kinds, mode="RGB")


@pytest.fixture
def lake(request: pytest.FixtureRequest) -> Lake:
    found: Lake = request.getfixturevalue(request.param)
    return found


def seen_again(folder: Path, source: Mapping[str, Any], mode: str) -> list[Seen]:
    """Read a source and decode its pictures; nothing may be turned away."""
    return [picture for one in resolve(recipe(folder, source)) for picture in pictures_in(one, mode)]


def pictures_in(source: Source, mode: str) -> list[Seen]:
    found: list[Seen] = []
    for shard in read(source):
        rows: dict[str, Seen] = {}
        for item in decode_shard(shard, "d", "train", DecodePart.model_validate({"mode": mode})):
            assert isinstance(item, Decoded)
            columns = item.images.select(["path", "label"]).to_pydict()
            pictures = ((pixels.shape, pixels.tobytes()) for pixels in item.pixels)
            for path, label, (shape, pixels) in zip(*columns.values(), pictures, strict=True):
                rows[path] = (label, shape, pixels)
        found += [rows[path] for path in shard.paths]
    return found


def exported(lake: Lake, split: str, role: str) -> list[Seen]:
    """See what an export has to hold: the pictures of a role, in their order."""
    rows = rows_of(lake, role, split=split)
    shapes = rows.select("height", "width", "channels").rows()
    return [
        (label, shape, pixels.tobytes())
        for label, shape, pixels in zip(rows["label"], shapes, pictures_of(rows), strict=True)
    ]


def check(lake: Lake, folder: Path, form: str, split: str) -> None:
    export_main(lake, folder, form, split=split)
    mode = "L" if "gray" in lake.root else "RGB"
    for role in ROLES:
        uri = URIS[form].format(role=role, split="validation" if role == "valid" else role)
        again = seen_again(folder, {"uri": uri.replace("main", split), "split": role}, mode)
        expected = exported(lake, split, role)
        assert len(expected) >= 3
        if form == "imagefolder":
            again, expected = sorted(again, key=repr), sorted(expected, key=repr)
        assert again == expected


@pytest.mark.quick_cases(7)
@pytest.mark.parametrize("lake", ["gray", "colour"], indirect=True)
@pytest.mark.parametrize("form", FORMS)
def test_pixels_labels_and_roles_come_back(lake: Lake, tmp_path: Path, form: str) -> None:
    check(lake, tmp_path / "out", form, "main")


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("form", FORMS)
def test_pictures_without_labels_come_back_without(gray: Lake, tmp_path: Path, form: str) -> None:
    check(gray, tmp_path / "out", form, "bare")


@pytest.mark.parametrize("lake", ["gray", "colour"], indirect=True)
@pytest.mark.parametrize("form", [form for form in FORMS if form not in OF_ONE_SIZE])
def test_pictures_of_several_sizes_come_back(lake: Lake, tmp_path: Path, form: str) -> None:
    check(lake, tmp_path / "out", form, "mixed")


@pytest.mark.parametrize("form", FORMS)
def test_the_folder_of_an_export_is_a_source_that_tells_its_roles(gray: Lake, tmp_path: Path, form: str) -> None:
    export_main(gray, tmp_path / "out", form)
    found: dict[str, list[Seen]] = {}
    for source in resolve(recipe(tmp_path, {"uri": "out", "split": None})):
        assert turned_away(source) == []
        found.setdefault(source.split, []).extend(pictures_in(source, "L"))
    # What is neither train, valid nor test: nothing but what the export says of itself.
    assert found.pop("other") == []
    assert {split: sorted(rows, key=repr) for split, rows in found.items()} == {
        role: sorted(exported(gray, "main", role), key=repr) for role in ROLES
    }


def test_the_images_table_of_a_lake_is_read_as_pictures(gray: Lake, tmp_path: Path) -> None:
    images = gray.scan("images").filter(dataset="mixed", split="mixed-train").collect()
    found = seen_again(tmp_path, {"uri": f"{gray.root}/images/dataset=mixed/split=mixed-train/**/*.parquet"}, "L")
    sizes = images.select("height", "width", "channels").rows()
    assert sorted(found, key=repr) == sorted(zip(images["label"], sizes, images["pixels"], strict=True), key=repr)


def test_a_whole_imagefolder_is_read_with_its_labels_and_without_its_notes(gray: Lake, tmp_path: Path) -> None:
    export_main(gray, tmp_path / "out", "imagefolder", split="mixed")
    expected = [picture for role in ROLES for picture in exported(gray, "mixed", role)]
    assert sorted(seen_again(tmp_path, {"uri": "out"}, "L"), key=repr) == sorted(expected, key=repr)


def test_class_folders_that_are_no_export_keep_their_names(gray: Lake, tmp_path: Path) -> None:
    export_main(gray, tmp_path / "out", "imagefolder")
    for text in ("[]", "{}", '[{"label_index": 0, "label": "dog", "folder": "a%2Fb"}]', "\udce4", '{"a": 1'):
        (tmp_path / "out" / "labels.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        labels = {label for label, *_ in seen_again(tmp_path / "out", {"uri": "train"}, "L")}
        assert {"_unlabelled", "a%2Fb", "%2E.x"} <= labels


def spelled(text: str) -> str:
    """Spell a text as labels are: form C, no white space around, no `.0` behind digits, no byte order mark in front."""
    return unicodedata.normalize("NFC", text).replace(".0", "").lstrip("\ufeff").strip()


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=130).map(spelled).filter(bool)
_PNG = encoded(np.zeros((2, 2), np.uint8))


def tarred(file: Path, classes: bytes, numbers: Sequence[bytes]) -> Path:
    """Write a tar as the webdataset export does, with a sample for every number."""
    samples = {f"{i}.{ending}": data for i, number in enumerate(numbers) for ending, data in _sample(number).items()}
    return as_tar(file, {"__classes__": classes, **samples}, "w")


def _sample(number: bytes) -> dict[str, bytes]:
    return {"png": _PNG, "cls": number}


@given(st.sets(st.one_of(_TEXTS, st.sampled_from(LABELS)), max_size=12))
def test_any_class_names_come_back_from_folders_arrays_and_tars(
    tmp_path_factory: pytest.TempPathFactory, labels: set[str]
) -> None:
    classes = sorted(labels)
    numbers = [*range(len(classes)), -1]
    folder = tmp_path_factory.getbasetemp() / "folders"
    folder.mkdir(exist_ok=True)
    (folder / "labels.json").write_text(folders_text(classes), encoding="utf-8")
    named = {name: label for label, name in folder_names(classes).items()}
    assert class_folders(folder) == class_folders(folder / "train") == {**named, "_unlabelled": None}

    tar = tarred(folder / "a.tar", classes_text(classes), [b"%d" % number for number in numbers])
    assert [label for _, label, _ in handed_out(source_of(tar))] == [*classes, None]

    # NumPy ends a text at its last character that is not NUL.
    if not any(label.endswith("\0") for label in classes):
        images = np.full((len(numbers), 2, 2), 7, np.uint8)
        np.savez(folder / "a.npz", images=images, labels=numbers, class_names=np.array(classes, np.str_))
        assert [label for _, label, _ in handed_out(source_of(folder / "a.npz"))] == [*classes, None]


def test_a_number_without_a_name_is_a_reject_and_other_lists_say_nothing(tmp_path: Path) -> None:
    numbers = [b"1", b"-2", b"b", b" 0 "]
    source = source_of(tarred(tmp_path / "a.tar", b'["a"]', numbers))
    assert [(path, label) for path, label, _ in handed_out(source)] == [("3.png", "a")]
    assert [(one.path, one.reason, one.detail) for one in turned_away(source)] == [
        (f"{i}.png", "bad_row", f"{i}.cls: '{number.decode()}' is none of the 1 classes in __classes__")
        for i, number in enumerate(numbers[:3])
    ]
    for text in (b"{}", b"[1]", b'["\\ud800"]', b"\xff", b"[" * 100_000):
        source = source_of(tarred(tmp_path / "b.tar", text, [b"0", b"1"]))
        assert [(path, label) for path, label, _ in handed_out(source)] == [("0.png", "0"), ("1.png", "1")]
        assert [one.path for one in turned_away(source)] == ["__classes__"]
