"""Labels of IDX images: every usual spelling of names, every type and layout, and none that is passed over."""

import bz2
import gzip
import lzma
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import handed_out, pictures, recipe, source_of
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.sources import detect, resolve, survey
from pipeline.sources.arrays.idx import image_files, labels_file

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
COUNT = 6
IMAGES = pictures(COUNT, size=(3, 4))
CLASSES = np.array([7, 0, 9, 3, 3, 1])
NAMES = [str(number) for number in CLASSES.tolist()]
TRAIN, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: NDArray[Any]) -> bytes:
    big = array.astype(array.dtype.newbyteorder(">"))
    return struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.name], array.ndim, *array.shape) + big.tobytes()


def packed(file: Path, data: bytes) -> Path:
    """Write a file, packed as its name says."""
    packers: dict[str, Any] = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(packers.get(file.suffix.lower(), bytes)(data))
    return file


def labels(file: Path, **part: Any) -> list[str | None]:
    return [label for _, label, _ in handed_out(source_of(file, **part))]


def qmnist(classes: NDArray[Any] = CLASSES) -> NDArray[np.int32]:
    """Make rows as in QMNIST: class, series, writer, digit of the writer, NIST class, number in NIST, two unused."""
    rows = np.random.default_rng(0).integers(0, 280_000, (len(classes), 8), dtype=np.int32)
    rows[:, 0], rows[:, 1], rows[:, 4], rows[:, 6:] = classes, 4, classes + 30, 0
    return rows


@pytest.mark.parametrize(
    ("images", "beside"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
        ("TRAIN-IMAGES-IDX3-UBYTE", "TRAIN-LABELS-IDX1-UBYTE"),
        ("train-images-idx3-ubyte.gz", "train-labels.idx1-ubyte"),
        ("train_images.idx3", "train_labels.idx1"),
        ("train-images-ubyte.gz", "train-labels-ubyte.gz"),
        ("train-images.gz", "train-labels.gz"),
        ("x_train.idx", "y_train.idx"),
        ("train-x.idx.xz", "train-y.idx.bz2"),
        ("images_train.idx3", "labels_train.idx1"),
        ("emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte.gz"),
        ("fashion-train-image.idx3", "fashion-train-label.idx1"),
        ("qmnist-train-images-idx3-ubyte.xz", "qmnist-train-labels-idx2-int.gz"),
        ("train images.idx3-ubyte", "train labels.idx1-ubyte"),
    ],
)
def test_usual_names_are_found_in_a_folder_with_their_labels(tmp_path: Path, images: str, beside: str) -> None:
    packed(tmp_path / images, idx(IMAGES))
    packed(tmp_path / beside, idx(qmnist() if "idx2" in beside else CLASSES.astype(np.uint8)))
    (tmp_path / "README.txt").write_text("text")
    assert detect(tmp_path) == "idx"
    (source,) = resolve(recipe(tmp_path.parent, {"uri": tmp_path.name, "split": None}))
    assert (source.split, source.path.name) == ("train", images)
    assert [label for _, label, _ in handed_out(source)] == NAMES


def test_four_files_of_every_spelling_are_two_splits(tmp_path: Path) -> None:
    for names in (
        ("train-images.gz", "train-labels.gz", "t10k-images.gz", "t10k-labels.gz"),
        ("x_train.idx", "y_train.idx", "x_test.idx", "y_test.idx"),
        (
            "qmnist-train-images-idx3-ubyte",
            "qmnist-train-labels-idx2-int",
            "qmnist-test-images-idx3-ubyte",
            "qmnist-test-labels-idx2-int",
        ),
    ):
        folder = tmp_path / names[0]
        for name in names:
            data = IMAGES if "images" in name or name.startswith("x") else CLASSES.astype(np.int16)
            packed(folder / name, idx(data))
        sources = resolve(recipe(tmp_path, {"uri": folder.name, "split": None}))
        assert [source.split for source in sources] == ["test", "train"]
        assert [[label for _, label, _ in handed_out(source)] for source in sources] == [NAMES, NAMES]


def test_kaggles_folders_of_one_file_are_that_file(tmp_path: Path) -> None:
    # A folder called like one of several files in it is none of Kaggle's: the loop above has one.
    for name, data in ((TRAIN, IMAGES), (LABELS, CLASSES.astype(np.uint8))):
        packed(tmp_path / "nested" / name / name, idx(data))
        packed(tmp_path / "both" / name / name, idx(data))
        packed(tmp_path / "both" / name.replace("-idx", ".idx"), idx(data))
    assert detect(tmp_path / "nested") == "idx"
    assert image_files(tmp_path / "nested") == [("train", tmp_path / "nested" / TRAIN / TRAIN)]
    assert image_files(tmp_path / "both") == [("train", tmp_path / "both" / "train-images.idx3-ubyte")]
    for uri in ("nested", "both"):
        (source,) = resolve(recipe(tmp_path, {"uri": uri}))
        assert [label for _, label, _ in handed_out(source)] == NAMES
    assert labels(tmp_path / "nested" / TRAIN / TRAIN) == NAMES


@pytest.mark.parametrize(
    "values",
    [
        *(CLASSES.astype(kind) for kind in CODES),
        CLASSES.astype(np.int32)[:, None],
        CLASSES.astype(np.uint8)[:, None, None],
        np.eye(10, dtype=np.uint8)[CLASSES],
        np.eye(10, dtype=np.float32)[CLASSES],
        np.eye(10, dtype=np.int32)[CLASSES],
        qmnist(),
    ],
    ids=lambda values: f"{values.dtype}{values.shape}",
)
def test_labels_of_every_type_and_layout_are_read(tmp_path: Path, values: NDArray[Any]) -> None:
    packed(tmp_path / TRAIN, idx(IMAGES))
    packed(tmp_path / LABELS, idx(values))
    assert labels(tmp_path / TRAIN) == NAMES


def test_one_hot_rows_of_eight_classes_are_not_taken_for_qmnist(tmp_path: Path) -> None:
    packed(tmp_path / TRAIN, idx(IMAGES))
    packed(tmp_path / LABELS, idx(np.eye(8, dtype=np.int32)[CLASSES % 8]))
    assert labels(tmp_path / TRAIN) == [str(number % 8) for number in CLASSES.tolist()]


def test_negative_numbers_stay_and_nan_is_no_label(tmp_path: Path) -> None:
    packed(tmp_path / TRAIN, idx(IMAGES))
    packed(tmp_path / LABELS, idx(np.array([-1, 2, -128, 4, 5, 127], np.int8)))
    assert labels(tmp_path / TRAIN) == ["-1", "2", "-128", "4", "5", "127"]
    packed(tmp_path / LABELS, idx(np.array([np.nan, 2, 3, -4, 5, np.nan], np.float32)))
    assert labels(tmp_path / TRAIN) == [None, "2", "3", "-4", "5", None]


@pytest.mark.parametrize(
    "values",
    [
        np.arange(COUNT * 8, dtype=np.uint8).reshape(COUNT, 8),
        np.arange(COUNT * 8, dtype=np.float32).reshape(COUNT, 8),
        np.arange(COUNT * 3, dtype=np.int32).reshape(COUNT, 3),
        np.zeros((COUNT, 10), np.uint8),
        np.array([0.5, 1, 2, 3, 4, 5], np.float32),
        np.array([np.inf, 1, 2, 3, 4, 5], np.float64),
    ],
    ids=lambda values: f"{values.dtype}{values.shape}",
)
def test_an_unknown_layout_of_labels_is_an_error_that_names_the_file(tmp_path: Path, values: NDArray[Any]) -> None:
    packed(tmp_path / TRAIN, idx(IMAGES))
    packed(tmp_path / LABELS, idx(values))
    with pytest.raises(
        SourceError, match=f'{LABELS} holds .* Labels are one whole number for each image, .* labels = ""'
    ):
        labels(tmp_path / TRAIN)
    assert labels(tmp_path / TRAIN, labels="") == [None] * COUNT


def test_as_many_labels_as_images_are_needed_in_every_layout(tmp_path: Path) -> None:
    packed(tmp_path / TRAIN, idx(IMAGES))
    for values in (qmnist(CLASSES[:4]), np.eye(10, dtype=np.uint8)[CLASSES[:4]]):
        packed(tmp_path / LABELS, idx(values))
        with pytest.raises(SourceError, match="6 images but 4 labels"):
            labels(tmp_path / TRAIN)


@pytest.mark.parametrize(
    "beside",
    [
        "mnist-labels-idx1-ubyte",
        "labels.csv",
        "train_labels.tsv.gz",
        "y.npy",
        "numbers.idx",
        "t10k-labels-idx1-ubyte",
        "train-targets.txt",
    ],
)
def test_labels_of_no_images_are_an_error_that_names_them(tmp_path: Path, beside: str) -> None:
    packed(tmp_path / TRAIN, idx(IMAGES))
    packed(tmp_path / beside, idx(CLASSES.astype(np.uint8)))
    with pytest.raises(SourceError, match=f'Its folder has: {beside}.*labels = "..." .* or set labels = ""'):
        survey(source_of(tmp_path / TRAIN))
    assert labels(tmp_path / TRAIN, labels="") == [None] * COUNT
    if not beside.endswith("gz"):
        assert labels(tmp_path / TRAIN, labels=beside) == NAMES


def test_two_labels_files_are_an_error_unless_one_has_mnists_name(tmp_path: Path) -> None:
    packed(tmp_path / TRAIN, idx(IMAGES))
    packed(tmp_path / "train-labels-idx2-int", idx(qmnist()))
    packed(tmp_path / "train_y.idx", idx(CLASSES.astype(np.uint8)))
    with pytest.raises(SourceError, match="not clear .*Its folder has: train-labels-idx2-int, train_y.idx"):
        survey(source_of(tmp_path / TRAIN))
    packed(tmp_path / LABELS, idx((CLASSES + 1).astype(np.uint8)))
    assert labels(tmp_path / TRAIN) == [str(number + 1) for number in CLASSES.tolist()]


def test_images_without_labels_beside_those_with_are_unlabelled(tmp_path: Path) -> None:
    for name in (TRAIN, "t10k-images-idx3-ubyte"):
        packed(tmp_path / name, idx(IMAGES))
    packed(tmp_path / LABELS, idx(CLASSES.astype(np.uint8)))
    packed(tmp_path / f"{LABELS}.gz", idx(CLASSES.astype(np.uint8)))
    (tmp_path / "notes.txt").write_text("text")
    assert labels_file(source_of(tmp_path / TRAIN)) == tmp_path / LABELS
    assert labels(tmp_path / TRAIN) == NAMES
    assert labels(tmp_path / "t10k-images-idx3-ubyte") == [None] * COUNT


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "float32", "float64"])
def test_images_of_a_wider_type_are_an_error_that_says_so(tmp_path: Path, kind: str) -> None:
    packed(tmp_path / TRAIN, idx(IMAGES.astype(kind)))
    with pytest.raises(
        SourceError, match=f"are {kind}, so the values of black and white are unknown. Save them as unsigned bytes"
    ):
        labels(tmp_path / TRAIN)


def test_a_folder_of_pictures_is_not_opened_to_look_for_idx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("image_1.png", "x.jpg", "images/1.png", "data/images", "train-images.txt"):
        packed(tmp_path / name, b"no idx")
    monkeypatch.setattr("pipeline.sources.arrays.idx.beginning", None)
    assert image_files(tmp_path) == []
    assert detect(tmp_path) == "folder"


def test_only_idx_files_are_taken_where_the_name_does_not_say_so(tmp_path: Path) -> None:
    for name in ("images", "train-images.gz", "x_train", "images.idx"):
        packed(tmp_path / name, b"no idx")
    assert image_files(tmp_path) == []
    packed(tmp_path / "images-idx3-ubyte", b"damaged")
    assert image_files(tmp_path) == [("images", tmp_path / "images-idx3-ubyte")]


def test_a_folder_of_several_splits_may_have_no_labels(tmp_path: Path) -> None:
    for name in (TRAIN, "t10k-images-idx3-ubyte"):
        packed(tmp_path / name, idx(IMAGES))
    packed(tmp_path / "labels.csv", b"1,2,3")
    sources = resolve(recipe(tmp_path.parent, {"uri": tmp_path.name, "split": None, "labels": ""}))
    assert [source.split for source in sources] == ["test", "train"]
    assert {label for source in sources for _, label, _ in handed_out(source)} == {None}
