"""Rule cosine:t against integer arithmetic: every pair that reaches t is found, and none below it."""

from fractions import Fraction
from itertools import product
from math import isqrt, prod, sqrt
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from examples import few
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import hashing
from pipeline.dedup.matching import Block, match
from pipeline.dedup.rules import cosine, parse_rule
from pipeline.dedup.rules.cosine import WIDTH, Cosine, correlations, describe, shape_key, slack
from pipeline.hashing import flat

Pixels = NDArray[np.uint8]
Pairs = set[tuple[int, int]]

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = [(1, 1, 1), (1, 2, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1), (7, 5, 1), (28, 28, 1), (33, 47, 1)]
SHAPES += [(1, 1, 3), (2, 1, 3), (5, 4, 3), (40, 33, 3)]
TIES = ["0.8", "0.85", "0.9", "0.95", "0.98", "1"]
# Thresholds that whole numbers so small never reach exactly, beside those that they often do.
RARE = ["0.8137", "0.9241", "0.9929"]
CASES = [(shape, t) for shape in SHAPES for t in (RARE if prod(shape) & (prod(shape) - 1) else TIES)]
WIDE = [(1, 40, 1), (33, 1, 1), (33, 47, 1), (65, 31, 1), (100, 37, 3), (160, 33, 1)]


def pictures(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> Pixels:
    """Few gray levels, near copies, other brightness and contrast, constants, and one pixel off by one."""
    base = rng.integers(0, 3, (max(1, n // 3), prod(shape)))
    rows = base[rng.integers(0, len(base), n)]
    rows = np.where(rng.random(rows.shape) < rng.choice([0, 0.02, 0.1], (n, 1)), rng.integers(0, 3, rows.shape), rows)
    rows = rows * rng.choice([1, 3, 50, 100, -1, 0], (n, 1), p=[0.3, 0.2, 0.2, 0.15, 0.05, 0.1])
    rows[:, 0] += rng.integers(0, 2, n)
    rows -= rows.min(axis=1, keepdims=True)
    rows += (rng.choice([0, 1, 2, 2]) * (255 - rows.max(axis=1, keepdims=True)) + 1) // 2
    return np.asarray(rows.reshape(n, *shape), np.uint8)


def sums(left: Pixels, right: Pixels) -> tuple[Any, Any, Any]:
    """n² times covariance of all with all and variance of each, in Python's whole numbers."""
    a, b = (flat(rows).astype(np.int64) for rows in (left, right))
    n = a.shape[1]
    across = n * (a @ b.T) - a.sum(axis=1)[:, None] * b.sum(axis=1)
    x, y = (n * np.square(rows).sum(axis=1) - rows.sum(axis=1) ** 2 for rows in (a, b))
    return across.astype(object), x.astype(object), y.astype(object)


def reached(left: Pixels, right: Pixels, threshold: str) -> NDArray[np.bool_]:
    """Which of all with all reach a threshold as it is written, in decimals: without floats."""
    t, (across, x, y) = Fraction(threshold), sums(left, right)
    near = (across >= 0) & (across**2 * t.denominator**2 >= t.numerator**2 * x[:, None] * y)
    return np.asarray(near & (x != 0)[:, None] & (y != 0), bool)


def scores(left: Pixels, right: Pixels) -> NDArray[np.float64]:
    """The scores of all with all, from whole numbers and rounded twice."""
    across, x, y = sums(left, right)
    both = zip(across, x, strict=True)
    out = [[a / sqrt(v * w) if v and w else 0.0 for a, w in zip(row, y, strict=True)] for row, v in both]
    return np.array(out).reshape(across.shape)


def block(rule: Cosine, pixels: Pixels, first: int = 0) -> Block:
    """A block whose ids are the pictures' positions, from `first` on."""
    ids = np.zeros((len(pixels), 2), ">u8")
    ids[:, 1] = np.arange(first, first + len(pixels))
    return Block(ids.view(np.uint8), rule.index(pixels))


def matched(rule: Cosine, left: Pixels, right: Pixels | None = None) -> Pairs:
    everything = left if right is None else np.concatenate([left, right])
    other = None if right is None else block(rule, right, len(left))
    read = lambda ids: everything[np.ascontiguousarray(ids).view(">u8")[:, 1].astype(int)]  # noqa: E731
    rows = [row for table in match(rule, block(rule, left), other, read) for row in table.to_pylist()]
    names = [(int.from_bytes(row["left_id"]), int.from_bytes(row["right_id"])) for row in rows]
    assert len(set(names)) == len(names)
    return set(names)


def rule_of(threshold: str) -> Cosine:
    found = parse_rule(f"cosine:{threshold}").comparison
    assert isinstance(found, Cosine)
    return found


def places(near: NDArray[np.bool_]) -> Pairs:
    return set(zip(*(part.tolist() for part in np.nonzero(near)), strict=True))


@few(60, thorough=120)
@given(SEEDS, st.integers(0, 30), st.integers(0, 20), st.sampled_from(CASES))
def test_pairs_equal_integer_arithmetic(seed: int, n: int, m: int, case: tuple[tuple[int, int, int], str]) -> None:
    shape, threshold = case
    everything, rule = pictures(np.random.default_rng(seed), n + m, shape), rule_of(threshold)
    left, right = everything[:n], everything[n:]
    assert matched(rule, left) == places(np.triu(reached(left, left, threshold), 1))
    across = reached(left, right, threshold)
    assert {(i, j - n) for i, j in matched(rule, left, right)} == places(across)
    assert {(j - m, i) for i, j in matched(rule, right, left)} == places(across)


def squares_of(total: int) -> list[int]:
    """Write a number as a sum of four squares."""
    sides = product(range(isqrt(total) + 1), repeat=4)
    return next(list(four) for four in sides if sum(side * side for side in four) == total)


def tied(rng: np.random.Generator, shape: tuple[int, int, int], threshold: str, count: int) -> tuple[Pixels, Pixels]:
    """Two sets whose every pair scores the threshold exactly, in all brightnesses and contrasts: 3-4-5 triangles.

    On orthogonal patterns of -1 and 1 with mean zero: p/q = (p, a, b, c, d) . (q, 0, 0, 0, 0) / q^2.
    """
    p, q = Fraction(threshold).as_integer_ratio()
    patterns = np.tile([[(-1) ** (i & j).bit_count() for i in range(8)] for j in range(1, 6)], prod(shape) // 8)
    weights = [[q, 0, 0, 0, 0], [p, *squares_of(q * q - p * p)]]
    rows = []
    for waves in (np.array(weights) @ patterns).repeat(count, axis=0):
        contrast = rng.integers(1, 127 // np.abs(waves).max() + 1)
        brightness = rng.integers(contrast * -waves.min(), 255 - contrast * waves.max())
        rows.append(contrast * waves + brightness)
    both = np.array(rows, np.uint8).reshape(2, count, *shape)
    return both[0], both[1]


@pytest.mark.parametrize("threshold", TIES)
@pytest.mark.parametrize("shape", [(2, 4, 1), (16, 8, 1), (28, 28, 1), (40, 33, 3)], ids=str)
def test_every_pair_exactly_at_the_threshold_is_found(shape: tuple[int, int, int], threshold: str) -> None:
    left, right = tied(np.random.default_rng(1), shape, threshold, 30)
    assert reached(left, right, threshold).all()
    assert {(i, j - 30) for i, j in matched(rule_of(threshold), left, right)} == set(product(range(30), repeat=2))
    # One pixel brighter: some of these pairs are above the threshold, some below.
    near = right.copy()
    near.reshape(30, -1)[np.arange(30), np.arange(30) % prod(shape)] += 1
    expected = reached(left, near, threshold)
    assert {(i, j - 30) for i, j in matched(rule_of(threshold), left, near)} == places(expected)
    assert expected.any() == (threshold != "1")
    assert not expected.all()


@pytest.mark.parametrize("threshold", ["0.8", "0.9", "1"])
@pytest.mark.parametrize("times", [1, 4, 60])
def test_pairs_that_happen_to_score_the_threshold_exactly_are_found(times: int, threshold: str) -> None:
    """Of all pairs of small pictures those that tie: their means are ninths."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 4, (1500, 1, 9, 1), dtype=np.uint8)
    p, q = Fraction(threshold).as_integer_ratio()
    across, x, _ = (part.astype(np.int64) for part in sums(small, small))
    ties = np.argwhere(np.triu((across > 0) & (q * q * across**2 == p * p * x[:, None] * x), 1))[:12]
    rows = small[ties.ravel()].repeat(5, axis=0) * rng.integers(1, 60, (len(ties) * 10, 1, 1, 1), dtype=np.uint8)
    pixels = np.tile(rows + rng.integers(0, 70, (len(rows), 1, 1, 1), dtype=np.uint8), (1, times, 1, 1))
    expected = places(np.triu(reached(pixels, pixels, threshold), 1))
    assert {(10 * k + i, 10 * k + 5 + j) for k in range(len(ties)) for i in range(5) for j in range(5)} <= expected
    assert matched(rule_of(threshold), pixels) == expected


@pytest.mark.parametrize("shape", [(16, 16, 1), (28, 28, 1), (400, 500, 3)], ids=str)
def test_scores_are_exact_for_the_lowest_contrast(shape: tuple[int, int, int]) -> None:
    """One pixel or two that differ by 1 or 2 from a bright ground."""
    rows = np.full((9, prod(shape)), 250, np.uint8)
    rows[np.arange(9), [0, 0, 0, 1, 1, 1, 2, 2, 2]] += np.array([1, 2, 5] * 3, np.uint8)
    rows[[2, 5], 3] = 249
    pixels = rows.reshape(9, *shape)
    i, j = np.divmod(np.arange(81), 9)
    expected = scores(pixels, pixels)[i, j]
    found = correlations(pixels[i], pixels[j])
    assert np.abs(found - expected).max() < 1e-14
    assert found.max() <= 1
    assert matched(rule_of("1"), pixels) == {(0, 1), (3, 4), (6, 7), (6, 8), (7, 8)}


def test_a_constant_image_scores_zero_and_is_in_no_pair() -> None:
    gray = np.repeat(np.array([0, 0, 7, 255], np.uint8), 20).reshape(4, 4, 5, 1)
    almost = gray.copy()
    almost[:, 2, 2] ^= 1
    everything = np.concatenate([gray, almost])
    i, j = np.divmod(np.arange(64), 8)
    found = correlations(everything[i], everything[j]).reshape(8, 8)
    assert (found[:4] == 0).all()
    assert (found[:, :4] == 0).all()
    assert np.array_equal(describe(everything).any(axis=1), np.arange(8) >= 4)
    assert matched(Cosine(0.8), everything) == {(4, 5), (6, 7)}
    assert matched(Cosine(0.8), gray) == matched(Cosine(0.8), gray, gray) == set()


def shaded(rng: np.random.Generator, n: int, shape: tuple[int, int, int]) -> Pixels:
    """From smooth to noise, from full contrast to a single step; the last half are darker copies of the first."""
    at = [np.linspace(0, 1, size)[:, None] for size in shape]
    waves = [np.cos(np.pi * place * rng.integers(0, 6, n)) for place in at]
    smooth = np.einsum("hn,wn,cn->nhwc", *waves)
    rows = smooth * rng.choice([0, 1, 1], (n, 1, 1, 1)) + rng.normal(size=(n, *shape)) * rng.choice(
        [0, 0.1, 2], (n, 1, 1, 1)
    )
    low, high = rows.min(axis=(1, 2, 3), keepdims=True), rows.max(axis=(1, 2, 3), keepdims=True)
    steps = rng.choice([1, 2, 120], (n, 1, 1, 1))
    rows = np.rint((rows - low) / np.where(high > low, high - low, 1) * steps)
    rows[n // 2 :] = 2 * rows[: n - n // 2]
    return np.asarray(rows + rng.choice([0, 15], (n, 1, 1, 1)), np.uint8)


@few(40)
@given(
    SEEDS, st.one_of(st.sampled_from(WIDE), st.tuples(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3])))
)
@example(0, (330, 470, 3))
def test_index_vectors_bound_the_score_from_above(seed: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.concatenate([shaded(rng, 6, shape), pictures(rng, 6, shape)])
    vectors, most = describe(pixels).astype(np.float64), slack(shape_key(shape))
    assert vectors.shape == (12, WIDTH)
    varied = flat(pixels).max(axis=1) != flat(pixels).min(axis=1)
    assert np.array_equal(vectors.any(axis=1), varied)
    assert (np.linalg.norm(vectors, axis=1) <= 1 + most).all()
    shortfall = scores(pixels, pixels) - vectors @ vectors.T
    assert shortfall[np.ix_(varied, varied)].max(initial=0) <= most


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(SHAPES), st.sampled_from([1, 64, 10_000]), st.sampled_from([1, 7, 66_051]))
def test_a_score_does_not_depend_on_the_batch_or_the_side(
    seed: int, shape: tuple[int, int, int], cached: int, fits: int
) -> None:
    rng = np.random.default_rng(seed)
    left, right = pictures(rng, 9, shape), pictures(rng, 9, shape)
    right[:3] = left[:3]
    whole = correlations(left, right)
    assert np.array_equal(correlations(right, left), whole)
    assert np.isin(whole[:3], [0, 1]).all()
    with (
        patch.multiple(cosine, _SCORED_BYTES=cached, _PRODUCTS_IN_32_BITS=fits),
        patch.object(hashing, "_BLOCK_BYTES", cached),
    ):
        assert np.array_equal(correlations(left, right), whole)
        assert [correlations(left[k : k + 1], right[k : k + 1])[0] for k in range(9)] == whole.tolist()
    assert np.abs(whole - np.diag(scores(left, right))).max() < 1e-7


@pytest.mark.parametrize("written", ["0.79", "1.01", "nan", "inf", "", "x", "-1"])
def test_invalid_thresholds_are_errors(written: str) -> None:
    with pytest.raises(ValueError, match="0.80 to 1; write cosine:0.95"):
        cosine.rule(written)
