"""Numbers become the names of their classes where an array beside them is sure to hold these, and stay numbers else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import handed_out, pictures, source_of

from pipeline.errors import SourceError

IMAGES = pictures(4, size=(5, 4))
NUMBERS = np.array([2, 0, -1, 1])
WORDS = ["cat", "dog", "emu"]
NAMED = ["emu", "cat", None, "dog"]


def labels(folder: Path, arrays: dict[str, Any], **part: Any) -> list[str | None]:
    np.savez(folder / "a.npz", **arrays)
    return [label for _, label, _ in handed_out(source_of(folder / "a.npz", **part))]


@pytest.mark.parametrize(
    "name",
    [
        "classes",
        "class_names",
        "classNames",
        "classnames",
        "label_names",
        "labelNames",
        "labels_names",
        "target_names",
        "label_meanings",
        "category_names",
        "categories",
    ],
)
@pytest.mark.parametrize("names", [np.array(WORDS), np.array(WORDS, "S"), np.array(WORDS)[:, None]])
def test_an_array_called_like_names_of_classes_names_them(tmp_path: Path, name: str, names: Any) -> None:
    assert labels(tmp_path, {"images": IMAGES, "labels": NUMBERS, name: names}) == NAMED


@pytest.mark.parametrize(
    "numbers",
    [
        NUMBERS.astype(np.int8),
        NUMBERS.astype(np.float32),
        NUMBERS[:, None],
    ],
)
def test_any_type_of_number_is_named(tmp_path: Path, numbers: Any) -> None:
    assert labels(tmp_path, {"x_train": IMAGES, "y_train": numbers, "classes": np.array(WORDS)}) == NAMED


def test_one_hot_rows_are_named(tmp_path: Path) -> None:
    arrays = {"x_train": IMAGES, "y_train": np.eye(3)[[2, 0, 0, 1]], "class_names": np.array(WORDS)}
    assert labels(tmp_path, arrays) == ["emu", "cat", "cat", "dog"]


def test_names_belong_to_the_labels_of_the_same_words_and_split(tmp_path: Path) -> None:
    arrays = {
        "train_data": IMAGES,
        "train_fine_labels": NUMBERS,
        "train_coarse_labels": np.array([1, 0, -1, 0]),
        "fine_label_names": np.array(WORDS),
        "coarse_label_names": np.array(["bird", "beast"]),
        "test_fine_label_names": np.array(["x", "y", "z"]),
    }
    assert labels(tmp_path, arrays, labels="train_fine_labels") == NAMED
    assert labels(tmp_path, arrays, labels="train_coarse_labels") == ["beast", "bird", None, "bird"]


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        # Ten names and classes from 1 to 10, as in SVHN.
        ({"labels": np.array([1, 2, 3, 1]), "class_names": np.array(WORDS)}, ["1", "2", "3", "1"]),
        ({"labels": np.array([0, 0, -2, 1]), "class_names": np.array(WORDS)}, ["0", "0", "-2", "1"]),
        # A text an image.
        ({"labels": np.array([0, 1, 1, 0]), "label_names": np.array(["b", "a", "a", "b", "a"])}, ["0", "1", "1", "0"]),
        # Text is a name already.
        ({"labels": np.array(["0", "1", "2", "2"]), "class_names": np.array(WORDS)}, ["0", "1", "2", "2"]),
        # No names of classes, or not as text.
        ({"labels": np.array([0, 1, 1, 0]), "feature_names": np.array(WORDS)}, ["0", "1", "1", "0"]),
        ({"labels": np.array([0, 1, 1, 0]), "file_names": np.array(WORDS)}, ["0", "1", "1", "0"]),
        ({"labels": np.array([0, 1, 1, 0]), "classes": np.array([5, 6])}, ["0", "1", "1", "0"]),
        ({"labels": np.array([0, 1, 1, 0]), "classes": np.array(WORDS, object)}, ["0", "1", "1", "0"]),
        ({"labels": np.array([0, 1, 1, 0]), "classes": np.array([WORDS, WORDS])}, ["0", "1", "1", "0"]),
        ({"labels": np.array([0, 1, 1, 0]), "classes": np.array([b"\xff", b"a"])}, ["0", "1", "1", "0"]),
        # It is not clear which.
        (
            {"labels": np.array([0, 1, 1, 0]), "class_names": np.array(WORDS), "target_names": np.array(WORDS[::-1])},
            ["0", "1", "1", "0"],
        ),
        # These are the labels.
        ({"classes": np.array(["b", "a", "a", "c"])}, ["b", "a", "a", "c"]),
        ({"classes": np.array([3, 4, 4, 3])}, ["3", "4", "4", "3"]),
    ],
)
def test_labels_stay_where_it_is_not_sure_what_names_them(tmp_path: Path, arrays: Any, expected: list[str]) -> None:
    assert labels(tmp_path, {"images": IMAGES, **arrays}, split="train") == expected


def test_labels_and_classes_of_one_length_are_an_error_unless_the_split_tells(tmp_path: Path) -> None:
    four = np.array(["a", "b", "c", "d"])
    numbers = np.array([3, 2, 1, 0])
    with pytest.raises(SourceError, match=r"several arrays .* may be the labels .* labels \(4,\) int64, classes"):
        labels(tmp_path, {"images": IMAGES, "labels": numbers, "classes": four})
    arrays = {"images": IMAGES, "labels": numbers, "classes": four}
    assert labels(tmp_path, arrays, labels="labels") == ["d", "c", "b", "a"]
    assert labels(tmp_path, arrays, labels="classes") == ["a", "b", "c", "d"]
    assert labels(tmp_path, arrays, labels="") == [None] * 4
    assert labels(tmp_path, {"x_train": IMAGES, "y_train": numbers, "classes": four}) == ["d", "c", "b", "a"]


def test_names_are_held_to_all_labels_before_the_first_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.arrays.array_shards.IMAGES_PER_SHARD", 1)
    arrays = {"images": IMAGES, "labels": np.array([0, 1, 2, 3]), "class_names": np.array(WORDS)}
    assert labels(tmp_path, arrays) == ["0", "1", "2", "3"]
    arrays["labels"] = NUMBERS
    assert labels(tmp_path, arrays) == NAMED
