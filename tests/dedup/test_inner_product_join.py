"""The inner product join is complete, returns each pair once, and no pair clearly below the threshold."""

import os
from collections.abc import Iterator
from fractions import Fraction
from math import inf, nextafter
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from examples import few, slow_but
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.dedup.joins import inner_product
from pipeline.dedup.joins.inner_product import inner_product_join, rounding_error

Vectors = NDArray[np.float32]
Pairs = NDArray[np.int64]

# So small that a few dozen vectors make many stripes, blocks and verifications; the sample has one row in ten.
SMALL: dict[str, Any] = {"_BLOCK_ROWS": 3, "_BLOCK_COLUMNS": 5, "_STRIPE": 7, "_SAMPLE": 6}
# Grid vectors are integers in units of 1/64: inner products are exact, and differ by 1/4096 or more.
UNIT = 64
TIES = [Fraction(1, 2), Fraction(45, 64), Fraction(3, 4), Fraction(4095, 4096), Fraction(1)]
SEEDS = st.integers(0, 2**32 - 1)


def unit(rows: NDArray[np.float64]) -> Vectors:
    """Scale to length 1, zero rows left alone."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def clustered(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Random unit vectors around a few centres, with repeats and zeros; their spectrum is flat or falls steeply."""
    centres = rng.normal(size=(rng.integers(1, 9), d)) * np.arange(1, d + 1.0) ** -rng.choice([0.0, 1.0, 3.0])
    rows = centres[rng.integers(0, len(centres), n)] / np.linalg.norm(centres, axis=1).max()
    rows = rows + rng.normal(size=(n, d)) * rng.choice([0, 1e-6, 1e-2, 0.1, 0.5], (n, 1)) / np.sqrt(d)
    rows[rng.random(n) < 0.1] = rng.choice([0.0, 1.0, -1.0])
    return unit(rows[rng.permutation(n)])


def gridded(rng: np.random.Generator, n: int, d: int) -> NDArray[np.int64]:
    """Whole vectors no longer than `UNIT`, many exactly so long: their length is anywhere among the dimensions."""
    rows = np.zeros((min(n, 50), d), np.int64)
    for row in rows:
        pieces = rng.choice([1, 4, 16, 64])
        size = UNIT // int(np.sqrt(pieces))
        row[rng.permutation(min(d, 70))[:pieces]] = size * rng.choice([1, 1, 1, -1])
        if rng.random() < 0.3:
            row[rng.integers(0, d)] //= 2
    return np.asarray(rows[rng.integers(0, len(rows), n)] if n else rows)


def found(left: Vectors, right: Vectors | None, threshold: float) -> Pairs:
    """Join, check the form of the result, and return its pairs."""
    blocks = list(inner_product_join(left, right, threshold))
    assert all(i.dtype == j.dtype == np.int64 and len(i) == len(j) > 0 for i, j in blocks)
    i, j = (np.concatenate([np.empty(0, np.int64), *part]) for part in (list(zip(*blocks, strict=True)) or [(), ()]))
    assert right is not None or (i < j).all()
    at = i // inner_product._STRIPE  # noqa: SLF001 - the documented order is by stripes
    assert (np.diff(at) >= 0).all()
    return coded(i, j)


def coded(i: NDArray[np.int64], j: NDArray[np.int64]) -> Pairs:
    """Pairs as sorted numbers, to compare them fast; each is there once."""
    codes = np.sort(i << 32 | j)
    assert (np.diff(codes) > 0).all(), "a pair twice"
    return codes


def turned(pairs: Pairs) -> Pairs:
    return coded(pairs & 2**32 - 1, pairs >> 32)


def products(left: NDArray[Any], right: NDArray[Any] | None) -> NDArray[np.float64]:
    """All inner products in float64; of a side with itself only above the diagonal."""
    across = left.astype(np.float64) @ (left if right is None else right).astype(np.float64).T
    return np.where(np.tri(len(left), dtype=bool), -inf, across) if right is None else across


def check(left: Vectors, right: Vectors | None, threshold: float) -> None:
    across = products(left, right)
    pairs = found(left, right, threshold)
    missing = np.setdiff1d(coded(*np.nonzero(across >= threshold)), pairs)
    assert not len(missing)
    assert (across[pairs >> 32, pairs & 2**32 - 1] >= threshold - 2 * rounding_error(left.shape[1]) - 1e-12).all()


def check_exact(left: NDArray[np.int64], right: NDArray[np.int64] | None, threshold: Fraction) -> Pairs:
    """Grid vectors: what is found is all at the threshold and no other; float64 sums of such numbers are exact."""
    pairs = found(scaled(left), None if right is None else scaled(right), float(threshold))
    assert np.array_equal(pairs, coded(*np.nonzero(products(left, right) >= float(threshold * UNIT**2))))
    return pairs


def scaled(rows: NDArray[np.int64]) -> Vectors:
    return np.asarray(rows / UNIT, np.float32)


@few(30)
@given(SEEDS, st.integers(0, 700), st.integers(1, 130), st.booleans(), st.floats(0.5, 1))
def test_no_pair_is_missed_and_none_is_far_below(seed: int, n: int, d: int, itself: bool, threshold: float) -> None:  # noqa: FBT001
    rng = np.random.default_rng(seed)
    left = clustered(rng, n, d)
    right = None if itself else np.concatenate([clustered(rng, int(rng.integers(0, 300)), d), left[::3]])
    check(left, right, threshold)


@few(40)
@given(SEEDS, st.integers(0, 60), st.integers(1, 130), st.booleans(), st.sampled_from([1, 2, 5, 40, 130]))
def test_results_do_not_depend_on_block_sizes_or_basis(seed: int, n: int, d: int, itself: bool, k: int) -> None:  # noqa: FBT001
    """Verification costs nothing here, so the shortest prefix is chosen and most length is in the rest."""
    rng = np.random.default_rng(seed)
    left = clustered(rng, n, d)
    right = None if itself else clustered(rng, int(rng.integers(0, 40)), d)
    with patch.multiple(inner_product, **SMALL, _PREFIXES=(k,), _FULL_COST=0.0, _FEW=int(rng.choice([0, 20]))):
        check(left, right, float(rng.choice([0.5, 0.8, 0.95, 1])))


@few(30)
@given(SEEDS, st.integers(0, 300), st.integers(1, 130), st.sampled_from(TIES), st.booleans())
def test_pairs_exactly_at_the_threshold_are_found_and_the_next_below_are_not(
    seed: int,
    n: int,
    d: int,
    threshold: Fraction,
    cut: bool,  # noqa: FBT001
) -> None:
    rng = np.random.default_rng(seed)
    left, right = gridded(rng, n, d), gridded(rng, n // 2, d)
    with patch.multiple(inner_product, **(SMALL if cut and n < 60 else {"_SAMPLE": 100})):
        check_exact(left, None, threshold)
        assert np.array_equal(turned(check_exact(right, left, threshold)), check_exact(left, right, threshold))


@settings(max_examples=20)
@given(SEEDS, st.integers(2, 300), st.integers(1, 130), st.sampled_from(TIES))
def test_the_order_of_the_vectors_does_not_matter(seed: int, n: int, d: int, threshold: Fraction) -> None:
    rng = np.random.default_rng(seed)
    rows, order = gridded(rng, n, d), rng.permutation(n)
    shuffled = found(scaled(rows[order]), None, float(threshold))
    i, j = order[shuffled >> 32], order[shuffled & 2**32 - 1]
    back = coded(np.minimum(i, j), np.maximum(i, j))
    assert np.array_equal(back, found(scaled(rows), None, float(threshold)))


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 130), st.sampled_from([1, 8, 130]), st.booleans())
def test_a_threshold_that_is_a_pairs_own_product_in_fractions_finds_it(seed: int, d: int, k: int, long: bool) -> None:  # noqa: FBT001
    """The hardest case: any rounding error of the join could lose the pair."""
    rng = np.random.default_rng(seed)
    left = unit(rng.normal(size=(8, d))) * np.float32(1 + long * rounding_error(d) / 2)
    right = unit(left + rng.normal(size=(8, d)) * rng.choice([1e-7, 1e-3, 0.3]) / np.sqrt(d))
    for place in (0, 7):
        values = zip(left[place].tolist(), right[place].tolist(), strict=True)
        product = sum(Fraction(a) * Fraction(b) for a, b in values)
        threshold = float(product) if Fraction(float(product)) <= product else nextafter(float(product), -inf)
        if threshold > 0:
            with patch.multiple(inner_product, _PREFIXES=(k,), _FULL_COST=0.0):
                assert place << 32 | place in found(left, right, threshold)


def misleading(rng: np.random.Generator) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Grid vectors, 2,600 of them: two full stripes and a rest. Every third one is in the sample."""
    spread = 8 * rng.choice([1, -1], (26, 64))[rng.integers(0, 26, 2600)]
    spread[rng.random(2600) < 0.5, :8] *= -1
    yield "spread evenly over all dimensions", spread
    hidden = spread.copy()
    hidden[::3] = 0
    hidden[::3, 0] = UNIT
    yield "nothing of the sample's in most vectors", hidden
    yield (
        "all alike in few places",
        np.where(np.arange(2600)[:, None] % 650 == 7, spread[:1], np.roll(hidden, 5, axis=1)),
    )
    yield "one dimension", np.where(rng.random((2600, 1)) < 0.02, UNIT, 5)


@pytest.mark.parametrize("place", slow_but([0, 3], range(4)))
def test_several_stripes_and_the_diagonal(place: int) -> None:
    _, rows = list(misleading(np.random.default_rng(place)))[place]
    for threshold in (Fraction(9, 16), Fraction(1)):
        assert len(check_exact(rows, None, threshold))
    check_exact(rows, rows[place::2], Fraction(3, 4))
    for few_rows in (5, 100):
        check_exact(rows[:few_rows], rows, Fraction(3, 4))


def test_random_vectors_of_several_stripes() -> None:
    rng = np.random.default_rng(7)
    check(clustered(rng, 2300, 100), None, 0.97)
    check(clustered(rng, 1025, 64), clustered(rng, 2049, 64), 0.9)


def test_what_is_found_and_its_order_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(np.random.default_rng(3), 3000, 64)
    runs = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        runs.append([np.concatenate(part) for part in zip(*inner_product_join(rows, None, 0.95), strict=True)])
    assert len(runs[0][0]) > 1000
    assert all(np.array_equal(part, first) for run in runs[1:] for part, first in zip(run, runs[0], strict=True))


def test_empty_inputs_and_a_join_that_is_stopped_early() -> None:
    none, one = np.empty((0, 5), np.float32), unit(np.ones((1, 5)))
    for left, right in [(none, None), (one, None), (none, one), (one, none), (none, none)]:
        assert found(left, right, 0.9).size == 0
    assert found(one, one, 0.9).tolist() == [0]
    assert found(np.zeros((9, 5), np.float32), None, 0.5).size == 0
    many = np.repeat(one, 2500, axis=0)
    i, j = next(inner_product_join(many, None, 0.9))
    assert len(i) == len(j) > 1024
