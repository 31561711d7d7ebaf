"""Nearest images against comparing all with all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.baselines import predict
from pipeline.baselines.predict import find_nearest

SIZES = st.tuples(st.integers(0, 20), st.integers(1, 30), st.integers(1, 5), st.integers(0, 2**32 - 1))


def brute(asked: NDArray[np.uint8], among: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    squares = ((asked[:, None].astype(np.int64) - among[None].astype(np.int64)) ** 2).sum(axis=2)
    return squares.argmin(axis=1), np.sqrt(squares.min(axis=1) / asked.shape[1])


@pytest.mark.parametrize("block", [8, 64, 2**25])
@given(sizes=SIZES)
def test_nearest_is_nearest_and_of_equals_the_first(block: int, sizes: tuple[int, int, int, int]) -> None:
    """Three values a pixel: many images are equally near."""
    count, many, features, seed = sizes
    rng = np.random.default_rng(seed)
    asked, among = (rng.integers(0, 3, (n, features), dtype=np.uint8) * 127 for n in (count, many))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "_BLOCK_BYTES", block)
        found = find_nearest(asked, among)
    place, distance = brute(asked, among)
    np.testing.assert_array_equal(found.place, place)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-12)


def test_a_copy_is_at_distance_zero() -> None:
    among = np.random.default_rng(0).integers(0, 256, (50, 784), dtype=np.uint8)
    found = find_nearest(among[[7, 3]], among)
    assert found.place.tolist() == [7, 3]
    assert found.distance.tolist() == [0, 0]


def test_black_and_white_are_255_apart() -> None:
    found = find_nearest(np.zeros((1, 9), np.uint8), np.full((2, 9), 255, np.uint8))
    assert (found.place.tolist(), found.distance.tolist()) == ([0], [255])
