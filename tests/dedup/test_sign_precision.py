"""The rule sign and the dense ratio of the notMNIST notebooks, in exact arithmetic and in float32.

The ratio is inner(X, Y) / inner(|X|, |Y|) with x = (p - 127.5) / 255. Both sums times 510 squared are sums of products
of whole numbers, 2p - 255, so int64 has no rounding at all. `tests/builder/test_real_notmnist.py` compares real
letters.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.dedup.rules import parse_rule

Pixels = NDArray[np.uint8]
Pairs = NDArray[np.bool_]

# Values at both sides of the middle and at both ends, so that equal signs and tiny differences are common.
PICTURES = st.tuples(st.integers(2, 8), st.integers(1, 6), st.integers(1, 6), st.just(1)).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 126, 127, 128, 129, 254, 255]))
)


def by_sign(left: Pixels, right: Pixels) -> Pairs:
    """Compare the keys of the rule."""
    one, other = (parse_rule("sign").index(pixels) for pixels in (left, right))
    same: Pairs = (one.key[:, None] == other.key) & (one.signature[:, None] == other.signature)
    return same


def by_ratio(left: Pixels, right: Pixels, kind: type[np.float32 | np.float64]) -> Pairs:
    """Compute the notebooks' formula as they write it."""
    x, y = (((one.reshape(len(one), -1) - 127.5) / 255).astype(kind) for one in (left, right))
    same: Pairs = np.inner(x, y) / np.inner(np.abs(x), np.abs(y)) >= 1
    return same


def exactly(left: Pixels, right: Pixels) -> Pairs:
    """Compute the same in whole numbers: a ratio of 1 or more is a numerator that is not below the denominator."""
    x, y = (2 * one.reshape(len(one), -1).astype(np.int64) - 255 for one in (left, right))
    same: Pairs = np.inner(x, y) >= np.inner(np.abs(x), np.abs(y))
    return same


def saturated(side: int, seed: int) -> Pixels:
    """Make two black and white pictures that differ in one gray pixel: 127 in the first, 128 in the second."""
    rng = np.random.default_rng(seed)
    pair = np.repeat(rng.choice(np.array([0, 255], np.uint8), (1, side, side, 1)), 2, axis=0)
    row, column = rng.integers(side, size=2)
    pair[:, row, column, 0] = 127, 128
    return pair


@given(PICTURES)
def test_sign_gives_the_pairs_of_the_ratio_in_exact_arithmetic(pixels: Pixels) -> None:
    assert np.array_equal(by_sign(pixels, pixels), exactly(pixels, pixels))


@given(PICTURES)
def test_the_ratio_in_float32_loses_no_pair_of_sign(pixels: Pixels) -> None:
    """If all signs are equal, both sums have the same terms, so they are equal however they are rounded."""
    assert by_ratio(pixels, pixels, np.float32)[by_sign(pixels, pixels)].all()


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("seed", range(3))
def test_the_ratio_in_float32_adds_pairs_that_are_not_equal(side: int, seed: int) -> None:
    """One pixel of 127 against 128 changes a sum of 195.75 by 0.0000077, half the spacing of float32 numbers there."""
    pair = saturated(side, seed)
    assert by_ratio(pair, pair, np.float32).all()
    for found in (by_sign(pair, pair), exactly(pair, pair), by_ratio(pair, pair, np.float64)):
        assert np.array_equal(found, np.eye(2, dtype=bool))
