"""Labels and names of classes that lie beside a .npy are read, or an error names them."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import handed_out, pictures, recipe, source_of, turned_away

from pipeline.errors import SourceError
from pipeline.sources import resolve, survey
from pipeline.sources.arrays.npz import companions

IMAGES = pictures(4, size=(5, 4))
NUMBERS = np.array([2, 0, -1, 1])
TEXTS = ["2", "0", "-1", "1"]
WORDS = np.array(["cat", "dog", "emu"])


def saved(folder: Path, **arrays: Any) -> Path:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder / f"{next(iter(arrays))}.npy"


def labels(file: Path, **part: Any) -> list[str | None]:
    return [label for _, label, _ in handed_out(source_of(file, **part))]


@pytest.mark.parametrize(
    ("images", "name"),
    [
        ("x_train", "y_train"),
        ("X_train", "Y_train"),
        ("train_images", "train_labels"),
        ("trainX", "trainY"),
        ("val_data", "val_targets"),
        ("images", "labels"),
        ("X", "y"),
        ("data", "target"),
        ("digits_images", "digits_labels"),
        ("digits", "digits_labels"),
        ("train_images", "labels"),
        ("images_0", "labels_0"),
        # In a folder without other arrays.
        ("digits", "labels"),
        ("digits_train", "y_train"),
    ],
)
def test_labels_are_found_by_their_name(tmp_path: Path, images: str, name: str) -> None:
    file = saved(tmp_path, **{images: IMAGES, name: NUMBERS})
    assert labels(file) == TEXTS
    assert labels(file, labels="") == [None] * 4
    assert companions(source_of(file)) == [tmp_path / f"{name}.npy"]
    np.save(tmp_path / "classes.npy", WORDS)
    assert labels(file) == ["emu", "cat", None, "dog"]
    assert labels(file, labels=f"{name}.npy") == ["emu", "cat", None, "dog"]


@pytest.mark.parametrize(
    ("images", "others"),
    [
        ("x_train", ["y_test"]),
        ("fashion_images", ["digits_labels", "digits_images"]),
        ("images_0", ["labels_1", "images_1"]),
        ("x", ["mean", "ids", "file_names"]),
        # Either could have them.
        ("digits", ["letters", "labels"]),
    ],
)
def test_what_belongs_to_other_images_is_left_alone(tmp_path: Path, images: str, others: list[str]) -> None:
    file = saved(tmp_path, **{images: IMAGES, **dict.fromkeys(others, NUMBERS)})
    assert labels(file) == [None] * 4


def test_files_of_a_pattern_have_their_own_labels(tmp_path: Path) -> None:
    saved(tmp_path, images_0=IMAGES, labels_0=NUMBERS, images_1=IMAGES[:2], labels_1=NUMBERS[:2], class_names=WORDS)
    sources = resolve(recipe(tmp_path, {"uri": "images_*.npy"}))
    assert [[label for _, label, _ in handed_out(source)] for source in sources] == [
        ["emu", "cat", None, "dog"],
        ["emu", "cat"],
    ]


def test_a_folder_of_arrays_tells_splits_and_labels(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    saved(folder, x_train=IMAGES, y_train=NUMBERS, x_test=IMAGES[:2], y_test=NUMBERS[:2], class_names=WORDS)
    (folder / "README.md").write_text("about")
    sources = resolve(recipe(tmp_path, {"uri": "set", "split": None}))
    read_in = {source.split: [label for _, label, _ in handed_out(source)] for source in sources}
    # The decoder makes a reject of README.md.
    assert read_in == {"train": ["emu", "cat", None, "dog"], "test": ["emu", "cat"], "other": [None]}
    assert [path for source in sources for path, *_ in handed_out(source)][-1] == "README.md"
    assert [one.path for source in sources for one in turned_away(source)] == []
    np.save(folder / "y_test.npy", NUMBERS)
    (test,) = (source for source in resolve(recipe(tmp_path, {"uri": "set", "split": None})) if source.split == "test")
    with pytest.raises(SourceError, match="2 images but 4 labels"):
        handed_out(test)


def test_packed_files_are_found_too(tmp_path: Path) -> None:
    for name, array in (("x", IMAGES), ("y", NUMBERS)):
        saved(tmp_path, **{name: array})
        (tmp_path / f"{name}.npy.gz").write_bytes(gzip.compress((tmp_path / f"{name}.npy").read_bytes()))
        (tmp_path / f"{name}.npy").unlink()
    assert labels(tmp_path / "x.npy.gz") == TEXTS


@pytest.mark.parametrize("name", ["labels.csv", "labels.json", "y.txt", "targets.pkl"])
def test_labels_of_a_kind_that_is_not_read_are_an_error(tmp_path: Path, name: str) -> None:
    file = saved(tmp_path, images=IMAGES)
    (tmp_path / name).write_text("0\n1\n2\n1\n")
    with pytest.raises(
        SourceError, match=rf"{name} in the folder of .*images.npy may hold its labels. Name a .npy.*labels = \"\""
    ):
        labels(file)
    assert labels(file, labels="") == [None] * 4
    np.save(tmp_path / "labels.npy", NUMBERS)
    assert labels(file) == TEXTS


def test_two_files_of_labels_and_another_length_are_errors(tmp_path: Path) -> None:
    file = saved(tmp_path, images=IMAGES, labels=NUMBERS, y=NUMBERS[::-1])
    with pytest.raises(SourceError, match=r"labels.npy, y.npy in the folder of .* may hold its labels"):
        labels(file)
    assert labels(file, labels="y.npy") == TEXTS[::-1]
    (tmp_path / "y.npy").unlink()
    np.save(tmp_path / "labels.npy", NUMBERS[:3])
    with pytest.raises(
        SourceError, match=r'4 images but 3 labels: .* belong together, or set labels = "" for no labels'
    ):
        labels(file)
    np.savez(tmp_path / "labels.npz", NUMBERS, NUMBERS)
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(SourceError, match=r"labels.npz holds the labels, so it must hold one array"):
        labels(file)


def test_a_change_beside_changes_the_fingerprint(tmp_path: Path) -> None:
    file = saved(tmp_path, x_train=IMAGES)
    seen = [survey(source_of(file)).fingerprint]
    for name, array in (("y_train", NUMBERS), ("classes", WORDS), ("classes", WORDS[:2])):
        np.save(tmp_path / f"{name}.npy", array)
        seen.append(survey(source_of(file)).fingerprint)
    np.save(tmp_path / "other.npy", NUMBERS)
    seen.append(survey(source_of(file)).fingerprint)
    assert len(set(seen)) == 4
    assert seen[-1] == seen[-2]
