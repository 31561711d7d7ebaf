"""The Hamming rule: its join against brute force, and its parameter."""

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
from examples import few
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.dedup.joins import hamming
from pipeline.dedup.joins.hamming import Pairs as Block
from pipeline.dedup.joins.hamming import hamming_join
from pipeline.dedup.perceptual_hash import dct_hashes, gradient_hashes
from pipeline.dedup.rules.hamming import rule

Words = NDArray[np.uint64]
Pairs = list[tuple[int, int, int]]
SHARED = st.sampled_from([None, 0, 1, 2, 3])


@st.composite
def words(draw: st.DrawFn) -> Words:
    """Words near a few centres, with some bits changed or none, so that near pairs and repeats are common."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    special = np.array([0, 2**64 - 1, 2**63, 1], np.uint64)
    centres = np.concatenate([special, rng.integers(0, 2**64, draw(st.integers(0, 3)), np.uint64)])
    out = rng.choice(centres, draw(st.integers(0, 60)))
    for _ in range(draw(st.integers(0, 14))):
        flips = np.uint64(1) << rng.integers(0, 64, len(out), np.uint64)
        out = np.where(rng.random(len(out)) < 0.5, out ^ flips, out)
    return out


def brute_force(left: Words, right: Words | None, distance: int) -> Pairs:
    apart = np.bitwise_count(left[:, None] ^ (left if right is None else right))
    near = apart <= distance
    i, j = np.nonzero(np.triu(near, 1) if right is None else near)
    return list(zip(i.tolist(), j.tolist(), apart[i, j].tolist(), strict=True))


def pairs(blocks: Iterator[Block]) -> Pairs:
    return sorted(row for block in blocks for row in zip(*(part.tolist() for part in block), strict=True))


@few(15)
@given(words(), st.integers(0, 12), SHARED)
def test_a_self_join_equals_brute_force(left: Words, distance: int, shared: int | None) -> None:
    assert pairs(hamming_join(left, None, distance, shared=shared)) == brute_force(left, None, distance)


@few(15)
@given(words(), words(), st.integers(0, 12), SHARED)
def test_a_join_of_two_sets_equals_brute_force(left: Words, right: Words, distance: int, shared: int | None) -> None:
    right = np.concatenate([right, left[: len(right) // 2]])
    assert pairs(hamming_join(left, right, distance, shared=shared)) == brute_force(left, right, distance)


@few(15)
@given(words(), st.integers(0, 6), SHARED, st.sampled_from([1, 3, 16]), st.sampled_from([1, 7, 64]))
def test_block_sizes_do_not_matter(left: Words, distance: int, shared: int | None, cells: int, candidates: int) -> None:
    cut = patch.multiple(hamming, _CALL_PAIRS=cells, _JOB_PAIRS=candidates, _MIN_BUCKETS_TOGETHER=2)
    with cut, patch.multiple(hamming, _BLOCK_PAIRS=5, _SAMPLE_WORDS=7):
        blocks = list(hamming_join(left, None, distance, shared=shared))
        assert pairs(iter(blocks)) == brute_force(left, None, distance)
        assert all(0 <= len(i) <= 5 for i, _, _ in blocks)
        assert pairs(hamming_join(left, left[::2], distance, shared=shared)) == brute_force(left, left[::2], distance)


@few(15)
@given(words(), st.integers(0, 12), st.integers(0, 99))
def test_the_order_of_the_words_does_not_matter(left: Words, distance: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(left))
    back = sorted(
        (*sorted((int(order[i]), int(order[j]))), d) for i, j, d in pairs(hamming_join(left[order], None, distance))
    )
    assert back == pairs(hamming_join(left, None, distance))


@pytest.mark.slow
def test_many_words_and_large_buckets() -> None:
    """Enough words for full blocks and all kinds of jobs; half of them have most bits in common."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 2**64, (4, 1000), np.uint64)
    skewed = np.concatenate([noise[0], noise[0] & noise[1] & noise[2] & noise[3], noise[0][:100]])
    counts = {0: 0, 3: 0, 6: 0}
    apart = np.bitwise_count(skewed[:, None] ^ skewed[None, :])
    for distance in counts:
        expected = np.bincount(apart[np.triu(apart <= distance, 1)], minlength=7)
        for shared in (None, 0, 1, 2, 3):
            found = list(hamming_join(skewed, None, distance, shared=shared))
            i, j, d = (np.concatenate(part) for part in zip(*found, strict=True))
            assert (i < j).all()
            assert len(np.unique(i * len(skewed) + j)) == len(i)
            assert np.array_equal(apart[i, j], d)
            assert np.array_equal(np.bincount(d, minlength=7), expected)


def test_blocks_come_in_the_same_order_with_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    some = rng.integers(0, 2**64, 300, np.uint64)[rng.integers(0, 300, 3000)] ^ np.uint64(1) << rng.integers(
        0, 64, 3000, np.uint64
    )
    runs = []
    for threads in (1, 4, 4):
        with patch.object(hamming, "_thread_count", lambda threads=threads: threads):
            runs.append([np.concatenate(part) for part in zip(*hamming_join(some, None, 6, shared=2), strict=True)])
    for run in runs[1:]:
        assert all(np.array_equal(part, first) for part, first in zip(run, runs[0], strict=True))


def test_a_join_can_be_stopped_early() -> None:
    some = np.random.default_rng(3).integers(0, 2**20, 3000, np.uint64)
    i, _, _ = next(hamming_join(some, None, 6, shared=1))
    assert len(i)


def test_types_and_empty_inputs() -> None:
    none, one = np.empty(0, np.uint64), np.zeros(1, np.uint64)
    for left, right in [(none, None), (one, None), (none, one), (one, none), (none, none)]:
        assert pairs(hamming_join(left, right, 6)) == []
    i, j, d = next(hamming_join(one, one, 6))
    assert [str(part.dtype) for part in (i, j, d)] == ["int64", "int64", "uint8"]


@pytest.mark.parametrize(("distance", "shared"), [(-1, None), (33, None), (6, 4), (6, -1)])
def test_arguments_out_of_range_are_errors(distance: int, shared: int | None) -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        hamming_join(np.zeros(1, np.uint64), None, distance, shared=shared)


@pytest.mark.parametrize(
    ("parameter", "distance", "way"),
    [("0", 0, dct_hashes), ("6", 6, dct_hashes), ("12", 12, dct_hashes), ("6:dhash", 6, gradient_hashes)],
)
def test_the_rule_has_its_distance_and_hash(parameter: str, distance: int, way: object) -> None:
    assert (rule(parameter).distance, rule(parameter).hashes) == (distance, way)


@pytest.mark.parametrize(
    "parameter", [None, "", "13", "-1", "06", "6.5", "x", "٣", "6:", "6:ahash", "6:dhash:", ":dhash", "dhash", "6 "]
)
def test_other_parameters_are_errors_with_an_example(parameter: str | None) -> None:
    with pytest.raises(ValueError, match="0 to 12.*write hamming:6 or hamming:6:dhash"):
        rule(parameter)
