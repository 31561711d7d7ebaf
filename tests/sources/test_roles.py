"""Splits are told by folders, file names and arrays; a class that is called like a split stays a class."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import as_folder, as_tar, as_zip, encoded, files_of, handed_out, pictures, recipe, turned_away

from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import parse_recipe
from pipeline.recipe.naming import dataset_name, split_in
from pipeline.sources import resolve, survey
from pipeline.sources.roles import levels_of_folder, levels_of_paths, split_of_folder, splits_of

IMAGE = encoded(pictures(1)[0])


def splits(base: Path, uri: str, **part: Any) -> dict[str, list[str]]:
    """Resolve one uri without a split: by split, the paths of its images."""
    found: dict[str, list[str]] = {}
    for source in resolve(recipe(base, {"uri": uri, "split": None, **part})):
        paths = [path for path, *_ in handed_out(source)]
        if paths or turned_away(source):
            found[source.split] = sorted([*found.get(source.split, []), *paths])
    return found


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["train/A/1.png", "test/A/1.png"], {"train": ("train",), "test": ("test",)}),
        (["Train/A/1.png", "TEST/1.png"], {"train": ("Train",), "test": ("TEST",)}),
        (["set/train/1.png", "set/val/1.png"], {"train": ("set/train",), "valid": ("set/val",)}),
        (["a/b/training_set/1.png", "a/b/test_set/1.png"], {"train": ("a/b/training_set",), "test": ("a/b/test_set",)}),
        (["train2017/1.png", "val2017/1.png"], {"train": ("train2017",), "valid": ("val2017",)}),
        (["seg_train/x/1.png", "seg_test/x/1.png"], {"train": ("seg_train",), "test": ("seg_test",)}),
        (["valid/A/1.png", "validation/A/1.png"], {"valid": ("valid", "validation"), "other": ("*",)}),
        (["train/1.png"], {"train": ("train",)}),
        (["train/A/1.png", "docs/1.png"], {"train": ("train",), "other": ("*",)}),
        (["train/A/1.png", "test/A/1.png", "README"], {"train": ("train",), "test": ("test",), "other": ("*",)}),
        # A class, beside other classes.
        (["train/1.png", "car/1.png", "bus/1.png"], {}),
        (["test tube/1.png", "flask/1.png"], {}),
        (["A/1.png", "B/1.png"], {}),
        (["A/train/1.png", "B/train/1.png"], {}),
        # Splits below classes or categories.
        (
            ["a/train/1.png", "a/test/1.png", "b/train/1.png"],
            {"train": ("a/train", "b/train"), "test": ("a/test",), "other": ("*",)},
        ),
        (
            ["x/bottle/train/good/1.png", "x/bottle/test/bent/1.png", "x/cable/1.png"],
            {"train": ("x/bottle/train",), "test": ("x/bottle/test",), "other": ("*",)},
        ),
        # Files beside a folder that stands alone.
        (
            ["README", "Set/train/A/1.png", "Set/Val/A/1.png"],
            {"train": ("Set/train",), "valid": ("Set/Val",), "other": ("*",)},
        ),
        (["1.png"], {}),
    ],
)
def test_folders_tell_splits(tmp_path: Path, paths: list[str], expected: dict[str, tuple[str, ...]]) -> None:
    folder = as_folder(tmp_path / "set", dict.fromkeys(paths, IMAGE))
    if paths == ["valid/A/1.png", "validation/A/1.png"]:
        expected = {"valid": ("valid", "validation")}
    assert splits_of(levels_of_folder(folder)) == expected
    assert splits_of(levels_of_paths({path.rpartition("/")[0] for path in paths})) == expected


@pytest.mark.parametrize("make", [as_tar, as_zip, as_folder])
def test_every_file_is_in_one_split_and_has_the_class_it_has_without_splits(tmp_path: Path, make: Any) -> None:
    files = {
        "train/A/1.png": IMAGE,
        "train/B/2.png": IMAGE,
        "train/3.png": IMAGE,
        "Test/A/1.png": IMAGE,
        "extra/C/1.png": IMAGE,
        "top.png": IMAGE,
    }
    make(tmp_path / "set.x", files)
    found = resolve(recipe(tmp_path, {"uri": "set.x", "split": None}))
    rows = {source.split: {path: label for path, label, _ in handed_out(source)} for source in found}
    assert rows == {
        "train": {"train/A/1.png": "A", "train/B/2.png": "B", "train/3.png": None},
        "test": {"Test/A/1.png": "A"},
        "other": {"extra/C/1.png": "C", "top.png": None},
    }


@pytest.mark.parametrize("make", [as_tar, as_zip, as_folder])
def test_a_single_folder_around_everything_is_looked_through(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "set.x", {"cifar/train/A/1.png": IMAGE, "cifar/test/1.png": IMAGE, "cifar/README": b"x"})
    found = {source.split: source for source in resolve(recipe(tmp_path, {"uri": "set.x", "split": None}))}
    assert [(path, label) for path, label, _ in handed_out(found["train"])] == [("cifar/train/A/1.png", "A")]
    assert [(path, label) for path, label, _ in handed_out(found["test"])] == [("cifar/test/1.png", None)]
    others = [*((path, label) for path, label, _ in handed_out(found["other"])), *turned_away(found["other"])]
    assert [(row[0], row[1]) for row in others] == [("cifar/README", None)]


@pytest.mark.parametrize("make", [as_tar, as_zip, as_folder])
def test_a_file_outside_of_the_named_splits_is_a_reject_that_names_the_key(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "set.x", {"a/A/1.png": IMAGE, "b/A/1.png": IMAGE, "c/A/1.png": IMAGE, "d.png": IMAGE})
    part = {"uri": "set.x", "split": None, "splits": {"train": "a", "test": ["b"]}}
    train, test = resolve(recipe(tmp_path, part))
    assert [path for path, *_ in handed_out(train)] == ["a/A/1.png"]
    assert [path for path, *_ in handed_out(test)] == ["b/A/1.png"]
    strays = turned_away(train)
    assert {(refused.path, refused.label, refused.reason) for refused in strays} == {
        ("c/A/1.png", None, "outside_splits"),
        ("d.png", None, "outside_splits"),
    }
    assert not turned_away(test)
    named = {**part, "splits": {"train": "a", "test": "b", "rest": "*"}}
    assert [path for path, *_ in handed_out(resolve(recipe(tmp_path, named))[2])] == ["c/A/1.png", "d.png"]


def test_what_comes_to_a_folder_beside_its_splits_is_seen_and_an_empty_rest_is_no_fault(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", {"train/A/1.png": IMAGE, "test/A/1.png": IMAGE})
    rest = resolve(recipe(tmp_path, {"uri": "set", "split": None}))[2]
    assert (rest.split, survey(rest).shards, handed_out(rest)) == ("other", {}, [])
    as_folder(tmp_path / "set", {"valid/A/1.png": IMAGE, "more/A/1.png": IMAGE})
    found = splits(tmp_path, "set")
    assert found["valid"] == ["valid/A/1.png"]
    assert found["other"] == ["more/A/1.png"]


@pytest.mark.parametrize(
    "faulty",
    [
        {"split": "train", "splits": {"train": "a"}},
        {"splits": {}},
        {"splits": {"train": ["a", "a/"]}},
        {"splits": {"train": ["a"], "test": ["a/b"]}},
        {"splits": {"train": [""]}},
        {"splits": {"train": ["*"], "test": ["*"]}},
    ],
)
def test_splits_that_make_no_sense_are_errors(tmp_path: Path, faulty: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="split"):
        recipe(tmp_path, {"uri": "set", "split": None, **faulty})


def test_splits_are_of_folders_and_archives_alone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("label,pixel0,pixel1,pixel2,pixel3\n1,2,3,4,5\n")
    with pytest.raises(RecipeError, match="splits does not apply"):
        resolve(recipe(tmp_path, {"uri": "x.csv", "split": None, "splits": {"train": "a"}}))


def test_a_folder_of_files_is_a_source_for_each_with_the_split_of_its_name(tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/validation-00000-of-00001", "more/x"):
        (tmp_path / "hf" / name).parent.mkdir(parents=True, exist_ok=True)
        as_zip(tmp_path / "hf" / f"{name}.zip", files_of(2))
    (tmp_path / "hf" / "README.md").write_text("x")
    found = splits(tmp_path, "hf")
    assert {split: len(paths) for split, paths in found.items()} == {"train": 4, "valid": 2, "other": 3}
    assert found["valid"][0] == "data/validation-00000-of-00001.zip/A/00000.png"
    rest = resolve(recipe(tmp_path, {"uri": "hf", "split": None}))[-1]
    assert [refused.path for refused in turned_away(rest)] + [path for path, *_ in handed_out(rest)] == ["README.md"]


def test_arrays_tell_splits(tmp_path: Path) -> None:
    (train, test), (some, few) = (pictures(4), pictures(2)), (np.arange(4), np.arange(2))
    np.savez(tmp_path / "mnist.npz", x_train=train, y_train=some, x_test=test, y_test=few)
    assert {split: len(paths) for split, paths in splits(tmp_path, "mnist.npz").items()} == {"train": 4, "test": 2}
    np.savez(tmp_path / "other.npz", images=pictures(3), labels=np.arange(3))
    assert {split: len(paths) for split, paths in splits(tmp_path, "other.npz").items()} == {"train": 3}
    np.savez(tmp_path / "digits-test.npz", images=pictures(3), labels=np.arange(3))
    assert list(splits(tmp_path, "digits-test.npz")) == ["test"]


def test_a_lake_inside_its_source_is_left_out(tmp_path: Path) -> None:
    as_folder(tmp_path, {"A/1.png": IMAGE, "lake/images/x.png": IMAGE, "lakeside/2.png": IMAGE})
    assert splits(tmp_path, ".") == {"train": ["A/1.png", "lakeside/2.png"]}
    with pytest.raises(RecipeError, match="this is lake.root itself"):
        resolve(recipe(tmp_path, {"uri": "lake", "split": None}))


def test_splits_read_as_one_are_noted(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", {"train/A/1.png": IMAGE, "test/A/1.png": IMAGE})
    (source,) = resolve(recipe(tmp_path, {"uri": "set"}))
    assert source.note.startswith("train/, test/ are all read as split 'train'")
    assert len(handed_out(source)) == 2
    assert not resolve(recipe(tmp_path, {"uri": "set/train"}))[0].note


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/d/cifar10.tar.gz", "cifar10"),
        ("digits/train.csv", "digits"),
        ("hf/data/train-00000-of-00002.parquet", "hf"),
        ("mnist/raw/t10k-images-idx3-ubyte.gz", "mnist"),
        ("svhn/train_32x32.mat", "svhn"),
        ("https://x.org/a%20b/My%20set.zip?x=1", "My-set"),
        ("s3://b/k/train-*.tar", "k"),
        ("Fotos Größe", "Fotos-Groe"),
        ("2024", "2024"),
        ("/d/photos", "photos"),
        ("/d/pets/images", "pets"),
        ("/", "images"),
    ],
)
def test_a_dataset_is_named_for_its_uri(uri: str, name: str) -> None:
    assert dataset_name(uri) == name


@given(st.text(max_size=60))
def test_any_uri_gives_a_name_that_a_recipe_takes(uri: str) -> None:
    made = recipe(Path("/base"), {"uri": "x", "dataset": dataset_name(uri)})
    assert made.source[0].dataset == dataset_name(uri)


@pytest.mark.parametrize(
    ("name", "split"), [("x_train.npy", "train"), ("mnist-test.csv", "test"), ("constrain.csv", None)]
)
def test_a_word_of_a_file_name_tells_its_split(name: str, split: str | None) -> None:
    assert split_in(name) == split


@pytest.mark.parametrize("name", ["train", "Validation", "test1", "DEV", "train_images", "test-set"])
def test_names_of_folders_that_are_splits(name: str) -> None:
    assert split_of_folder(name)


@pytest.mark.parametrize("name", ["trains", "test tube", "train station", "car", "", "testament"])
def test_names_of_folders_that_are_none(name: str) -> None:
    assert split_of_folder(name) is None


def test_a_missing_folder_of_a_split_is_an_error_in_an_archive(tmp_path: Path) -> None:
    as_tar(tmp_path / "x.tar", {"a/A/1.png": IMAGE})
    part = {"uri": "x.tar", "split": None, "splits": {"train": "a", "test": "gone"}}
    with pytest.raises(SourceError, match="gone"):
        handed_out(resolve(recipe(tmp_path, part))[1])


def test_the_class_is_the_folder_above_a_folder_that_names_a_split(tmp_path: Path) -> None:
    files = {"cats/train/1.png": IMAGE, "dogs/train/1.png": IMAGE, "cats/test/2.png": IMAGE, "dogs/test/x/3.png": IMAGE}
    as_folder(tmp_path / "set", files)
    named = {"train": ["cats/train", "dogs/train"], "test": ["cats/test", "dogs/test"]}
    train, test = resolve(recipe(tmp_path, {"uri": "set", "split": None, "splits": named}))
    assert [label for _, label, _ in handed_out(train)] == ["cats", "dogs"]
    assert [label for _, label, _ in handed_out(test)] == ["cats", "x"]


def test_a_lake_in_a_class_folder_takes_no_label_away(tmp_path: Path) -> None:
    as_folder(tmp_path / "set", {"x/1.png": IMAGE, "y/1.png": IMAGE, "x/lake/images/2.png": IMAGE})
    part = {"source": [{"uri": "set", "dataset": "d"}], "lake": {"root": "set/x/lake"}}
    (source,) = resolve(parse_recipe(part, base=tmp_path))
    assert [(path, label) for path, label, _ in handed_out(source)] == [("x/1.png", "x"), ("y/1.png", "y")]


def test_files_without_pictures_beside_archives_are_rejects_and_damaged_ones_errors(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    as_zip(tmp_path / "set" / "images.zip", files_of(2))
    pl.DataFrame({"name": ["a", "b"], "size": [1, 2]}).write_parquet(tmp_path / "set" / "metadata.parquet")
    np.savez(tmp_path / "set" / "ids.npz", trnid=np.arange(5))
    found = resolve(recipe(tmp_path, {"uri": "set", "split": None}))
    assert [(source.uri, source.split) for source in found] == [("set/images.zip", "train"), ("set", "other")]
    assert {refused.path for refused in turned_away(found[1])} | {path for path, *_ in handed_out(found[1])} == {
        "ids.npz",
        "metadata.parquet",
    }
    whole = (tmp_path / "set" / "metadata.parquet").read_bytes()
    (tmp_path / "set" / "broken.parquet").write_bytes(whole[:-20])
    with pytest.raises(SourceError, match="broken.parquet cannot be read as Parquet"):
        [handed_out(source) for source in resolve(recipe(tmp_path, {"uri": "set", "split": None}))]


def test_a_linked_folder_around_the_splits_is_looked_through(tmp_path: Path) -> None:
    as_folder(tmp_path / "real", {"train/A/1.png": IMAGE, "test/A/1.png": IMAGE})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "only").symlink_to(tmp_path / "real")
    assert splits(tmp_path, "set") == {"train": ["only/train/A/1.png"], "test": ["only/test/A/1.png"]}
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    assert list(splits(tmp_path, "loop")) == ["train"]


@pytest.mark.parametrize("make", [as_tar, as_zip, as_folder])
def test_classes_above_their_splits_keep_their_names(tmp_path: Path, make: Any) -> None:
    paths = ("a/train/1.png", "a/test/2.png", "b/train/3.png", "b/test/4.png")
    make(tmp_path / "set.x", dict.fromkeys(paths, IMAGE))
    found = {source.split: source for source in resolve(recipe(tmp_path, {"uri": "set.x", "split": None}))}
    assert [row[:2] for row in handed_out(found["train"])] == [("a/train/1.png", "a"), ("b/train/3.png", "b")]
    assert [row[:2] for row in handed_out(found["test"])] == [("a/test/2.png", "a"), ("b/test/4.png", "b")]
