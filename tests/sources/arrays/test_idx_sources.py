"""IDX files: MNIST as published, and files that are not what they say."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from making import DATA, handed_out, needs_data, pictures, recipe, source_of
from numpy.typing import NDArray

from pipeline.errors import CheckError, RecipeError, SourceError
from pipeline.shard import Pixels
from pipeline.sources import check_classes, check_file, read, resolve, survey

MNIST = DATA / "mnist"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: NDArray[np.uint8], kind: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, count: int = 5, labels: int | None = None) -> Path:
    """Write a pair of files with `count` images and as many labels, or another number of them."""
    folder.mkdir(exist_ok=True)
    (folder / IMAGES).write_bytes(idx(pictures(count, size=(3, 4))))
    (folder / LABELS).write_bytes(idx(np.arange(count if labels is None else labels, dtype=np.uint8)))
    return folder / IMAGES


@needs_data
def test_mnist_is_read_as_published() -> None:
    sources = resolve(recipe(MNIST.parent, {"uri": "mnist", "split": None}))
    assert [source.split for source in sources] == ["test", "train"]
    pixels, counts = {}, {}
    for source in sources:
        arrays = [shard.contents.array for shard in read(source) if isinstance(shard.contents, Pixels)]
        pixels[source.split] = np.concatenate(arrays)
        counts[source.split] = np.unique(
            [label for s in read(source) for label in s.labels if label], return_counts=True
        )
    assert pixels["train"].shape == (60_000, 28, 28, 1)
    assert pixels["test"].shape == (10_000, 28, 28, 1)
    # The digest of the unpacked data, without the header; the published one below is of the gzipped file.
    assert hashlib.md5(pixels["train"].tobytes()).hexdigest() == "6510e85a72c3e9475c492d559d3770d2"  # noqa: S324
    names, train = counts["train"]
    assert names.tolist() == list("0123456789")
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert counts["test"][1].tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_data
def test_mnist_has_the_published_digest() -> None:
    digest = "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"
    file = MNIST / "train-images-idx3-ubyte.gz"
    check_file(source_of(file, digest=digest, bytes=9_912_422))
    with pytest.raises(CheckError, match=digest):
        check_file(source_of(MNIST / "t10k-images-idx3-ubyte.gz", digest=digest))
    check_classes(source_of(file, classes=10, min_per_class=5421), {str(n): 5421 for n in range(10)})


def test_packed_or_not_the_pictures_are_the_same(tmp_path: Path) -> None:
    plain = handed_out(source_of(write(tmp_path)))
    assert [(path, label) for path, label, _ in plain] == [(str(n), str(n)) for n in range(5)]
    assert np.array_equal([array for *_, array in plain], pictures(5, size=(3, 4))[..., None])
    for name in (IMAGES, LABELS):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    (tmp_path / LABELS).unlink()
    for name in (IMAGES, f"{IMAGES}.gz"):
        packed = handed_out(source_of(tmp_path / name))
        assert [row[:2] for row in packed] == [row[:2] for row in plain]
        assert np.array_equal([row[2] for row in packed], [row[2] for row in plain])
    # Packed and unpacked lie side by side: still one source.
    assert [s.path.name for s in resolve(recipe(tmp_path, {"uri": "."}))] == [IMAGES]


def test_labels_are_found_beside_or_named_or_none(tmp_path: Path) -> None:
    file = write(tmp_path)
    assert {label for _, label, _ in handed_out(source_of(file, labels=""))} == {None}
    (tmp_path / LABELS).rename(tmp_path / "other")
    with pytest.raises(SourceError, match="Its folder has: other. Name an IDX file with labels ="):
        survey(source_of(file))
    assert {label for _, label, _ in handed_out(source_of(file, labels=""))} == {None}
    assert {label for _, label, _ in handed_out(source_of(file, labels="other"))} == set("01234")
    with pytest.raises(SourceError, match="cannot read .*nowhere"):
        survey(source_of(file, labels="nowhere"))


def test_colour_has_four_dimensions(tmp_path: Path) -> None:
    pixels = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    (tmp_path / "a").write_bytes(idx(pixels))
    assert np.array_equal([array for *_, array in handed_out(source_of(tmp_path / "a"))], pixels)


def test_shards_are_cut_by_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(write(tmp_path))
    monkeypatch.setattr("pipeline.sources.arrays.idx.IMAGES_PER_SHARD", 2)
    shards = list(read(source))
    assert [shard.paths for shard in shards] == [("0", "1"), ("2", "3"), ("4",)]
    assert [s.paths for s in read(source, {shards[2].shard})] == [("4",)]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\0\0\x08\2" + bytes(8), "has 2 dimensions. Images have 3 or 4"),
        (b"\0\0\x08\0" + bytes(8), "not an IDX file .its first bytes give type 0x08 and 0 dimensions"),
        (b"\0\0\x0a\3" + bytes(8), "not an IDX file .its first bytes give type 0x0a and 3 dimensions"),
        (
            idx(np.zeros((1, 2, 2), np.uint8), kind=0x0D),
            "are float32, so the values of black and white are unknown. .* as unsigned bytes",
        ),
        (
            idx(np.zeros((1, 2, 2), np.uint8), kind=0x0B),
            "are int16, so the values of black and white are unknown. .* as unsigned bytes",
        ),
        (idx(np.zeros((0, 2, 2), np.uint8)), "holds no images"),
        (idx(np.zeros((2, 0, 2), np.uint8)), "damaged, or does not hold images"),
        (idx(np.zeros((1, 2, 2, 2), np.uint8)), "damaged, or does not hold images"),
        (struct.pack(">HBBIII", 0, 8, 3, 1, 2**31, 2**31), "damaged, or does not hold images"),
        (
            struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 28, 28) + bytes(784),
            r"damaged or cut short \(8028160 bytes expected, 784",
        ),
        (idx(np.zeros((2, 2, 2), np.uint8))[:-1], r"damaged or cut short \(8 bytes expected, 7 found"),
        (idx(np.zeros((2, 2, 2), np.uint8))[:9], r"damaged or cut short \(12 bytes expected, 5 found"),
        (idx(np.zeros((2, 2, 2), np.uint8)) + b"\0", "more bytes follow its 2 entries"),
        (gzip.compress(idx(pictures(2)), mtime=0)[:-1], "damaged or cut short"),
        (gzip.compress(idx(pictures(2)), mtime=0)[:200], "damaged or cut short"),
        (gzip.compress(idx(pictures(2)), mtime=0)[:-8] + bytes(8), "CRC check failed"),
    ],
)
def test_a_damaged_images_file_is_an_error(tmp_path: Path, data: bytes, match: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(SourceError, match=match):
        handed_out(source_of(tmp_path / "x", format="idx"))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (idx(np.arange(4, dtype=np.uint8)), "5 images but 4 labels"),
        (idx(np.arange(5, dtype=np.uint8)) + b"\0", "labels.* .more bytes follow its 5 entries"),
        (
            struct.pack(">HBBI", 0, 8, 1, 2**32 - 1),
            r"labels.* damaged or cut short \(it declares 4294967295 bytes",
        ),
        (gzip.compress(idx(np.arange(5, dtype=np.uint8)), mtime=0)[:-1], "labels.* damaged or cut short"),
    ],
)
def test_a_damaged_labels_file_is_an_error(tmp_path: Path, data: bytes, match: str) -> None:
    file = write(tmp_path)
    (tmp_path / LABELS).write_bytes(data)
    with pytest.raises(SourceError, match=match):
        handed_out(source_of(file))


def test_swapped_images_and_labels_are_an_error_that_says_so(tmp_path: Path) -> None:
    write(tmp_path)
    for labels in (IMAGES, ""):
        with pytest.raises(SourceError, match="Check that images and labels are not swapped"):
            handed_out(source_of(tmp_path / LABELS, labels=labels))


def test_a_folder_becomes_a_source_a_split(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("t10k-images.idx3-ubyte", "emnist-letters-test-images-idx3-ubyte", "valid-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(idx(pictures(1)))
    with pytest.raises(SourceError, match="both images of split 'test'. Name each file in its own"):
        resolve(recipe(tmp_path, {"uri": ".", "split": None}))
    (tmp_path / "t10k-images.idx3-ubyte").unlink()
    found = resolve(recipe(tmp_path, {"uri": ".", "split": None}))
    assert [source.split for source in found] == ["test", "train", "valid"]
    assert [source.split for source in resolve(recipe(tmp_path, {"uri": ".", "split": "valid"}))] == ["valid"]
    with pytest.raises(SourceError, match="no IDX images for split 'x'; the folder has test, train, valid"):
        resolve(recipe(tmp_path, {"uri": ".", "split": "x"}))
    with pytest.raises(RecipeError, match="labels names one file for 3 splits"):
        resolve(recipe(tmp_path, {"uri": ".", "split": None, "labels": LABELS}))


def test_a_folder_without_images_is_an_error_where_idx_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no IDX images in this folder"):
        resolve(recipe(tmp_path, {"uri": ".", "format": "idx"}))
