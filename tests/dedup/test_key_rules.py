"""Rules that compare keys, checked against their definitions by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.dedup.rules import parse_rule
from pipeline.dedup.rules.maxpool import block_maxima
from pipeline.errors import RecipeError
from pipeline.hashing import content_hashes

# Few values and tiny pictures, so that equal ones are common.
BATCHES = st.tuples(st.integers(2, 12), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3])).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 127, 128, 255]))
)


def keys_of(name: str, pixels: np.ndarray) -> np.ndarray:
    entries = parse_rule(name).index(pixels)
    return np.stack([entries.key, entries.signature], axis=1).astype(">i8").view(np.uint8)


def same(name: str, pixels: np.ndarray) -> np.ndarray:
    keys = keys_of(name, pixels)
    return np.asarray((keys[:, None, :] == keys[None, :, :]).all(axis=2))


@given(BATCHES)
def test_exact_is_equality(pixels: np.ndarray) -> None:
    flat = pixels.reshape(len(pixels), -1)
    assert np.array_equal(same("exact", pixels), (flat[:, None] == flat[None]).all(axis=2))
    assert np.array_equal(keys_of("exact", pixels), content_hashes(pixels))


@given(BATCHES)
def test_sign_is_the_dense_formula(pixels: np.ndarray) -> None:
    # In whole numbers, without rounding; `test_sign_precision.py` has the formula in floating point.
    scaled = 2 * pixels.reshape(len(pixels), -1).astype(np.int64) - 255
    assert np.array_equal(same("sign", pixels), scaled @ scaled.T >= np.abs(scaled) @ np.abs(scaled).T)


@given(BATCHES, st.integers(2, 4))
def test_maxpool_is_equality_of_block_maxima(pixels: np.ndarray, k: int) -> None:
    n, height, width, channels = pixels.shape
    padded = np.zeros((n, -(-height // k) * k, -(-width // k) * k, channels), np.uint8)
    padded[:, :height, :width] = pixels
    maxima = padded.reshape(n, padded.shape[1] // k, k, padded.shape[2] // k, k, channels).max(axis=(2, 4))
    assert np.array_equal(block_maxima(k, pixels), maxima)
    flat = maxima.reshape(n, -1)
    assert np.array_equal(same(f"maxpool:{k}", pixels), (flat[:, None] == flat[None]).all(axis=2))


@settings(max_examples=20)
@given(st.sampled_from(["exact", "sign", "maxpool:2"]))
def test_images_of_different_shapes_are_never_duplicates(name: str) -> None:
    flat = np.zeros(16, np.uint8)
    keys = [keys_of(name, flat.reshape(shape)).tobytes() for shape in [(1, 4, 4, 1), (1, 2, 8, 1), (1, 8, 2, 1)]]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("exakt", "did you mean 'exact'"),
        ("maxpol:4", "did you mean 'maxpool'"),
        ("qqq", "Known rules: file, exact, sign, maxpool:k"),
        ("maxpool", "write maxpool:4"),
        ("maxpool:1", "2 or more"),
        ("maxpool:04", "write maxpool:4"),
        ("maxpool:x", "write maxpool:4"),
        ("sign:2", "takes no parameter"),
        ("exact:", "takes no parameter"),
    ],
)
def test_an_unknown_rule_is_an_error_with_a_suggestion(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match="rule") as caught:
        parse_rule(name)
    assert said in str(caught.value)
