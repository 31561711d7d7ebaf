from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from lakes import file_names
from making import as_folder, encoded, pictures, recipe

from pipeline.arrow_columns import from_binary
from pipeline.builder.build import build
from pipeline.engines.local import LocalEngine
from pipeline.errors import LakeError
from pipeline.lake_handle import Lake
from pipeline.pixels import gather, locate, normalise


def by_rank(lake: Lake, role: str, *, sanitized: bool) -> pl.DataFrame:
    """The slow way: a join that carries the pixels along."""
    rows = lake.scan("splits").filter(split_name="main", role=role).filter(pl.col("kept") | (not sanitized))
    return rows.join(lake.scan("images"), on="image_id").sort("rank").collect()


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("sanitized", [True, False])
@pytest.mark.parametrize("role", ["train", "test"])
def test_arrays_are_the_pixels_and_labels_in_the_order_of_ranks(
    small_lake: Lake, role: str, *, sanitized: bool
) -> None:
    pixels, labels = small_lake.arrays("main", role, sanitized=sanitized)
    expected = by_rank(small_lake, role, sanitized=sanitized)
    assert pixels.shape == (len(expected), 28, 28)
    assert pixels.dtype == np.uint8
    assert labels.dtype == np.int64
    assert pixels.tobytes() == b"".join(expected["pixels"])
    assert [small_lake.class_names("main")[label] for label in labels] == expected["label"].to_list()
    assert (
        len(expected)
        == {("train", True): 120, ("train", False): 120, ("test", True): 30, ("test", False): 40}[role, sanitized]
    )


def test_normalised_is_the_formula_of_the_notebooks(small_lake: Lake) -> None:
    pixels, _ = small_lake.arrays("main", "test")
    scaled, _ = small_lake.arrays("main", "test", normalised=True)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, ((pixels.astype(np.float64) - 127.5) / 255).astype(np.float32))
    assert (normalise(np.array([0, 255], np.uint8)) == [-0.5, 0.5]).all()


def test_a_row_group_is_seen_as_an_array_without_a_copy(small_lake: Lake) -> None:
    name = file_names(small_lake.root, "images", small_lake.versions["images"])[0]
    column = pq.ParquetFile(name).read_row_group(0, columns=["pixels"])["pixels"].chunk(0)
    seen = from_binary(column, 28 * 28)
    assert seen.shape == (len(column), 28 * 28)
    assert np.shares_memory(seen, np.frombuffer(column.buffers()[2], np.uint8))


def test_batches_show_every_image_once_in_an_order_of_their_own(small_lake: Lake) -> None:
    def epoch(number: int, buffer_bytes: int = 2**30) -> list[bytes]:
        parts = small_lake.batches("main", "train", batch_size=32, seed=5, epoch=number, buffer_bytes=buffer_bytes)
        return [bytes(image.tobytes()) + label.tobytes() for x, y in parts for image, label in zip(x, y, strict=True)]

    pixels, labels = small_lake.arrays("main", "train")
    every = sorted(image.tobytes() + label.tobytes() for image, label in zip(pixels, labels, strict=True))
    assert sorted(epoch(0)) == sorted(epoch(1)) == every
    assert epoch(0) == epoch(0) != epoch(1)
    assert epoch(0, buffer_bytes=1) == epoch(0)


def test_batches_are_full_but_for_the_last(small_lake: Lake) -> None:
    sizes = [len(y) for _, y in small_lake.batches("main", "train", batch_size=50)]
    assert sizes == [50, 50, 20]
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(small_lake.batches("main", "train", batch_size=0))


def test_an_unknown_split_or_role_names_those_there_are(small_lake: Lake) -> None:
    with pytest.raises(LakeError, match="There are: main/test, main/train"):
        small_lake.arrays("mian", "train")


def test_images_of_several_shapes_are_no_array(tmp_path: Path) -> None:
    files = {"A/1.png": encoded(pictures(1)[0]), "A/2.png": encoded(pictures(1, size=(5, 7))[0])}
    as_folder(tmp_path / "in", files)
    part = {"name": "main", "train": {"from": "train"}}
    build(recipe(tmp_path, {"uri": "in"}, split=[part]), engine=LocalEngine(1))
    with pytest.raises(LakeError, match=r"several shapes \(5x7x1, 28x28x1\): give a size"):
        Lake(tmp_path / "lake").arrays("main", "train")


def test_rgb_has_a_channel_axis(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    as_folder(tmp_path / "in", {f"A/{i}.png": encoded(rgb[i]) for i in range(4)})
    part = {"name": "main", "train": {"from": "train"}}
    build(recipe(tmp_path, {"uri": "in"}, decode={"mode": "RGB"}, split=[part]), engine=LocalEngine(1))
    pixels, _ = Lake(tmp_path / "lake").arrays("main", "train")
    assert pixels.shape == (4, 6, 5, 3)
    assert sorted(image.tobytes() for image in pixels) == sorted(image.tobytes() for image in rgb)


def test_an_id_that_is_in_no_file_is_an_error(small_lake: Lake) -> None:
    files = file_names(small_lake.root, "images", None)
    with pytest.raises(LakeError, match="1 images of the split are not in the images table"):
        locate(files, pl.Series([b"x" * 16], dtype=pl.Binary))
    assert gather(locate(files, pl.Series([], dtype=pl.Binary))).shape == (0, 0, 0)
