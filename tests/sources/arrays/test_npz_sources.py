"""Arrays in .npz and .npy: the usual names and layouts, and what they hold, come out as they went in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from making import DATA, handed_out, needs_data, pictures, recipe, source_of

from pipeline.sources import detect, read, resolve, survey

IMAGES = pictures(6, size=(5, 4))
LABELS = np.arange(6)
NAMES = [str(n) for n in range(6)]


def rows(file: Path, **part: Any) -> tuple[Any, list[str | None]]:
    """Read a source: (n, height, width, channels) pixels, and labels; paths must be the row numbers."""
    found = handed_out(source_of(file, **part))
    assert [path for path, *_ in found] == [str(n) for n in range(len(found))]
    return np.array([array for *_, array in found]), [label for _, label, _ in found]


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("x_train", "y_train", "x_test", "y_test"), "train"),
        (("x_test", "y_test", "x_train", "y_train"), "test"),
        (("X_train", "Y_train", "X_test", "Y_test"), "Train"),
        (("val_images", "val_labels", "test_images", "test_labels"), "valid"),
        (("val_images", "val_labels", "test_images", "test_labels"), "val"),
        (("valid_dataset", "valid_labels", "train_dataset", "train_labels"), "valid"),
        (("trainImages", "trainLabels", "testImages", "testLabels"), "train"),
        (("extra_images", "extra_labels", "train_images", "train_labels"), "extra"),
        (("images", "labels", "test_images", "test_labels"), "train"),
        (("data", "target", "test_data", "test_target"), "train"),
        (("train", "train_y", "test", "test_y"), "train"),
        (("train_images", "labels", "test_images", "test_labels"), "train"),
    ],
)
def test_the_split_says_which_arrays(tmp_path: Path, names: tuple[str, ...], split: str) -> None:
    other = pictures(3, seed=1, size=(5, 4))
    file = saved(tmp_path, **dict(zip(names, (IMAGES, LABELS, other, np.arange(3) + 7), strict=True)))
    pixels, labels = rows(file, split=split)
    assert np.array_equal(pixels, IMAGES[..., None])
    assert labels == NAMES


def test_names_that_say_nothing_leave_the_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", IMAGES, LABELS)
    pixels, labels = rows(tmp_path / "a.npz")
    assert np.array_equal(pixels, IMAGES[..., None])
    assert labels == NAMES
    assert rows(saved(tmp_path, images=IMAGES, ids=LABELS), labels="")[1] == [None] * 6
    assert rows(saved(tmp_path, images=IMAGES, label_names=np.array(["a", "b"]), labels=LABELS))[1] == NAMES
    assert rows(saved(tmp_path, images=IMAGES, mean=np.zeros((5, 4))))[1] == [None] * 6
    # The only array is meant, whatever it is called.
    assert np.array_equal(rows(saved(tmp_path, x_test=IMAGES), split="train")[0], IMAGES[..., None])


def test_the_recipe_names_arrays(tmp_path: Path) -> None:
    file = saved(tmp_path, a=IMAGES, b=IMAGES[::-1], fine_labels=LABELS, coarse_labels=LABELS // 2)
    pixels, labels = rows(file, images="b", labels="coarse_labels")
    assert np.array_equal(pixels, IMAGES[::-1, ..., None])
    assert labels == list("001122")
    named = [("a", None), ("b", None), ("a", "fine_labels"), (None, None)]
    sources = [source_of(file, images=images, labels=labels) for images, labels in named]
    assert len({survey(source).fingerprint for source in sources}) == 4


def test_a_npy_is_one_array_and_labels_may_lie_beside(tmp_path: Path) -> None:
    np.save(tmp_path / "x_test.npy", IMAGES)
    np.save(tmp_path / "names.npy", np.array(list("abcdef")))
    np.savez(tmp_path / "names.npz", np.array(list("ghijkl")))
    assert detect(tmp_path / "x_test.npy") == "npz"
    assert rows(tmp_path / "x_test.npy")[1] == [None] * 6
    pixels, labels = rows(tmp_path / "x_test.npy", labels="names.npy")
    assert np.array_equal(pixels, IMAGES[..., None])
    assert labels == list("abcdef")
    assert rows(tmp_path / "x_test.npy", labels="names.npz")[1] == list("ghijkl")
    source = source_of(tmp_path / "x_test.npy", labels="names.npy")
    before = survey(source).fingerprint
    np.save(tmp_path / "names.npy", np.array(list("abcdefg")))
    assert survey(source).fingerprint != before


def test_a_npz_is_told_from_a_zip_whether_compressed_or_not(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "plain", images=IMAGES)
        (tmp_path / "plain.npz").rename(tmp_path / "plain")
        assert detect(tmp_path / "plain") == "npz"
        assert np.array_equal(rows(tmp_path / "plain")[0], IMAGES[..., None])


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (LABELS, NAMES),
        (LABELS[:, None].astype(">i8"), NAMES),
        (LABELS.astype(np.float32), NAMES),
        (LABELS - 2.0, ["-2", "-1", "0", "1", "2", "3"]),
        (LABELS[:, None, None], NAMES),
        (LABELS.astype(np.float16)[:, None, None, None], NAMES),
        (np.array([np.nan, 1, 2, np.nan, -1, 5]), [None, "1", "2", None, "-1", "5"]),
        (np.array([[0], [np.nan]] * 3, np.float32), ["0", None] * 3),
        (np.full(6, np.nan), [None] * 6),
        (np.array([["a"], ["b"]] * 3), ["a", "b"] * 3),
        (np.eye(6, 7)[::-1], NAMES[::-1]),
        (np.eye(6, dtype=bool), NAMES),
        (np.asfortranarray(np.eye(6)), NAMES),
        (np.array([0, 2**64 - 1] * 3, np.uint64), ["0", "18446744073709551615"] * 3),
        (np.array([True, False] * 3), ["1", "0"] * 3),
        (np.array(["a", "", "\u00e9\U0001f600"] * 2), ["a", None, "\u00e9\U0001f600"] * 2),
        (np.array([b"a", "\u00e9".encode()] * 3), ["a", "\u00e9"] * 3),
    ],
)
def test_labels_of_every_kind_become_text(tmp_path: Path, labels: Any, texts: list[str | None]) -> None:
    assert rows(saved(tmp_path, images=IMAGES, labels=labels))[1] == texts


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_pixels_on_the_scale_of_the_notmnist_notebooks_come_back(tmp_path: Path, dtype: str) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(8, 8, 4)
    normal = ((levels - 127.5) / 255).astype(dtype)
    pixels, labels = rows(saved(tmp_path, train_dataset=normal, train_labels=np.arange(8)))
    assert np.array_equal(pixels, levels[..., None])
    assert labels == list("01234567")
    # Black and nearly black: on no other scale would it be known.
    assert np.array_equal(rows(saved(tmp_path, x=normal[:1].clip(None, normal.flat[1])))[0].max(), 1)


_SIDES = st.tuples(st.integers(1, 5), st.integers(4, 6), st.integers(4, 6), st.sampled_from([1, 3]))


@given(
    pixels=_SIDES.flatmap(lambda shape: hnp.arrays(np.uint8, shape)),
    stored=st.tuples(
        st.sampled_from(["u1", "<u2", ">i2", "<i8", "<f4", ">f8", "<f2"]), st.sampled_from("CF"), st.booleans()
    ),
    layout=st.sampled_from(["last", "first", "bare"]),
    per_shard=st.integers(1, 6),
)
def test_any_layout_of_the_same_pictures_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, pixels: Any, stored: Any, layout: str, per_shard: int
) -> None:
    dtype, order, packed = stored
    pixels[0, 0, 0, 0] = 200  # or floats of 0 and 1 would rightly be refused
    file = tmp_path_factory.getbasetemp() / "layout.npz"
    array = pixels.transpose(0, 3, 1, 2) if layout == "first" else pixels
    array = array[..., 0] if layout == "bare" and pixels.shape[3] == 1 else array
    save = np.savez_compressed if packed else np.savez
    save(file, labels=np.arange(len(pixels)), images=array.astype(dtype, order=order))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.sources.arrays.array_shards.IMAGES_PER_SHARD", per_shard)
        found, labels = rows(file)
    assert np.array_equal(found, pixels)
    assert labels == [str(n) for n in range(len(pixels))]


def test_shards_are_cut_by_count_and_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(saved(tmp_path, images=IMAGES[:5], labels=LABELS[:5]))
    assert [shard.paths for shard in read(source)] == [tuple("01234")]
    monkeypatch.setattr("pipeline.sources.arrays.array_shards.IMAGES_PER_SHARD", 2)
    shards = list(read(source))
    assert [(shard.paths, shard.labels) for shard in shards] == [(t, t) for t in (("0", "1"), ("2", "3"), ("4",))]
    assert [shard.paths for shard in read(source, {shards[2].shard})] == [("4",)]
    monkeypatch.setattr("pipeline.sources.arrays.array_shards.BYTES_PER_SHARD", 20)
    assert [shard.paths for shard in read(source)] == [(n,) for n in "01234"]


def test_a_header_of_python_2_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(6, 5, 4), }   ", b"(6L, 5L, 4L), }"))
    assert np.array_equal(rows(tmp_path / "a.npy")[0], IMAGES[..., None])


@needs_data
def test_mnist_as_keras_has_it(tmp_path: Path) -> None:
    sources = resolve(recipe(DATA, {"uri": "mnist", "split": None}))
    published = {source.split: handed_out(source) for source in sources}
    arrays: dict[str, Any] = {}
    for split, found in published.items():
        arrays[f"x_{split}"] = np.stack([array[..., 0] for *_, array in found])
        arrays[f"y_{split}"] = np.array([int(label or "") for _, label, _ in found], np.uint8)
    file = saved(tmp_path, **arrays)
    for split, found in published.items():
        pixels, labels = rows(file, split=split)
        assert np.array_equal(pixels, [array for *_, array in found])
        assert labels == [label for _, label, _ in found]
