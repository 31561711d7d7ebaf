"""EMNIST's IDX files hold pictures column by column: they are turned, by name or because the recipe says so."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import handed_out, pictures, recipe, source_of
from numpy.typing import NDArray

from pipeline.errors import RecipeError
from pipeline.sources import resolve, survey

TRAIN = "emnist-letters-train-images-idx3-ubyte"
PIXELS = pictures(3, size=(4, 5))


def write(file: Path, pixels: NDArray[np.uint8]) -> Path:
    data = struct.pack(f">HBB{pixels.ndim}I", 0, 8, pixels.ndim, *pixels.shape) + pixels.tobytes()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


def read_back(file: Path, *, transposed: bool | None = None) -> NDArray[np.uint8]:
    return np.array([array for *_, array in handed_out(source_of(file, transposed=transposed))])


@pytest.mark.parametrize(
    ("name", "said", "turned"),
    [
        ("a", None, False),
        ("a", False, False),
        ("a", True, True),
        (TRAIN, None, True),
        (TRAIN, True, True),
        (TRAIN, False, False),
        (f"{TRAIN}.gz", None, True),
        (f"E{TRAIN[1:]}", None, True),
        (f"x-{TRAIN}", None, False),
    ],
)
def test_name_and_recipe_say_whether(tmp_path: Path, name: str, *, said: bool | None, turned: bool) -> None:
    file = write(tmp_path / name, PIXELS)
    expected = PIXELS.swapaxes(1, 2) if turned else PIXELS
    assert np.array_equal(read_back(file, transposed=said), expected[..., None])


@given(
    count=st.integers(1, 5),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    channels=st.sampled_from([0, 1, 3]),
    per_shard=st.integers(1, 6),
)
def test_turned_twice_is_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: tuple[int, int], channels: int, per_shard: int
) -> None:
    shape = (count, *size, *([channels] if channels else []))
    pixels = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    file = write(tmp_path_factory.getbasetemp() / "any", pixels.swapaxes(1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.sources.arrays.idx.IMAGES_PER_SHARD", per_shard)
        assert np.array_equal(read_back(file, transposed=True), pixels.reshape(*shape[:3], channels or 1))


def test_the_fingerprint_is_of_how_the_file_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / TRAIN, PIXELS)
    plain, turned, default = (survey(source_of(file, transposed=said)).fingerprint for said in (False, True, None))
    assert plain != turned == default


def test_emnist_labels_and_splits_are_found_by_the_usual_names(tmp_path: Path) -> None:
    for split, start in (("train", 1), ("test", 24)):
        write(tmp_path / f"emnist-letters-{split}-images-idx3-ubyte.gz", PIXELS)
        write(tmp_path / f"emnist-letters-{split}-labels-idx1-ubyte.gz", np.arange(3, dtype=np.uint8) + start)
    # Letters count from 1; what the numbers stand for is not looked up.
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n")
    test, train = resolve(recipe(tmp_path, {"uri": ".", "split": None}))
    assert (test.split, train.split) == ("test", "train")
    assert [label for _, label, _ in handed_out(test)] == ["24", "25", "26"]
    assert [label for _, label, _ in handed_out(train)] == ["1", "2", "3"]
    assert np.array_equal([array for *_, array in handed_out(train)], PIXELS.swapaxes(1, 2)[..., None])


def test_other_forms_are_not_turned(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,a,b,c,d\n1,2,3,4,5\n")
    with pytest.raises(RecipeError, match="transposed does not apply to a source of format csv"):
        source_of(tmp_path / "a.csv", transposed=True)
