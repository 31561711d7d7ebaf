"""Matching returns each pair once and in order, with any memory limit, and reads only the pixels of candidates."""

from collections import Counter
from itertools import pairwise
from math import prod
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from examples import few
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import schemas
from pipeline.arrow_columns import from_binary, to_binary
from pipeline.dedup import matching
from pipeline.dedup.joins import inner_product
from pipeline.dedup.joins.streaming import combine_small
from pipeline.dedup.matching import Block, match
from pipeline.dedup.rules import Comparison, Entries, cosine, entries_of, parse_rule, table_of
from pipeline.dedup.rules.comparison import FromPixels
from pipeline.dedup.rules.cosine import Cosine, shape_key

Pixels = NDArray[np.uint8]
Rows = list[tuple[bytes, bytes, float]]

SEEDS = st.integers(0, 2**32 - 1)
RULES = st.sampled_from(["cosine:0.9", "cosine:0.8137", "cosine:1", "hamming:6", "hamming:0:dhash"])
SHAPES = [(6, 6, 1), (4, 9, 1), (4, 3, 3)]
# Shapes whose grid has cells of unlike size, and the smallest.
GRIDS = [(1, 1, 1), (1, 2, 3), (7, 5, 1), (28, 28, 1), (33, 47, 1), (100, 37, 3), (160, 33, 1)]


class Images:
    """Pictures of one shape or several with ids, and which pixels were read."""

    def __init__(self, seed: int, counts: dict[tuple[int, int, int], int]) -> None:
        rng = np.random.default_rng(seed)
        self.pixels = [picture for shape, n in counts.items() for picture in similar(rng, n, shape)]
        # Some ids share their first half.
        self.ids = rng.choice([0, 200, 255], (len(self.pixels), 16)).astype(np.uint8)
        self.ids[:, 14:] = np.arange(len(self.pixels), dtype=">u2")[:, None].view(np.uint8)
        self.ids = self.ids[rng.permutation(len(self.ids))]
        self.place = {row.tobytes(): k for k, row in enumerate(self.ids)}
        self.reads: list[list[bytes]] = []

    def read(self, ids: Pixels) -> Pixels:
        wanted = [row.tobytes() for row in ids]
        assert len(set(wanted)) == len(wanted) > 0
        self.reads.append(wanted)
        return np.stack([self.pixels[self.place[name]] for name in wanted])

    def block(self, rule: Comparison, places: NDArray[np.int64]) -> Block:
        assert isinstance(rule, FromPixels)
        one = [rule.index(self.pixels[k][None]) for k in places]
        width = one[0].vector.shape[1] if one else 0
        none = Entries(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, width), np.uint8))
        return Block(self.ids[places], Entries(*(np.concatenate(part) for part in zip(none, *one, strict=True))))

    def pairs(self, rule: Comparison, left: NDArray[np.int64], right: NDArray[np.int64] | None = None) -> Rows:
        """Match, look at the form of what comes, and sort it."""
        other = None if right is None else self.block(rule, right)
        tables = list(match(rule, self.block(rule, left), other, self.read))
        rows: Rows = []
        for table in tables:
            assert table.schema == schemas.TABLES["pairs"].file_schema
            some = rows_of(table)
            assert some == sorted(some, key=lambda row: (-row[2], *row[:2]))
            rows += some
        assert all(a < b and score >= np.float32(rule.least) for a, b, score in rows)
        assert len({row[:2] for row in rows}) == len(rows)
        return sorted(rows)


def similar(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> Pixels:
    """Few pictures, each often: changed in a pixel or in contrast, or not at all; some are constant."""
    rows = rng.integers(0, 100, (max(1, n // 5), prod(shape)))[rng.integers(0, max(1, n // 5), n)]
    rows[np.arange(n), rng.integers(0, prod(shape), n)] = rng.integers(0, 100, n)
    rows = rows * rng.choice([0, 1, 1, 1, 2], (n, 1)) + rng.choice([0, 0, 55], (n, 1))
    return np.asarray(rows.reshape(n, *shape), np.uint8)


def rows_of(table: pa.Table) -> Rows:
    columns = [table[name].to_pylist() for name in ("left_id", "right_id", "score")]
    return list(zip(*columns, strict=True))


def comparison(name: str) -> Comparison:
    found = parse_rule(name).comparison
    assert found is not None
    return found


@few(16)
@given(SEEDS, st.tuples(*3 * [st.integers(0, 30)]), RULES)
def test_blocks_against_blocks_are_their_union(seed: int, counts: tuple[int, int, int], name: str) -> None:
    rule = comparison(name)
    images = Images(seed, dict(zip(SHAPES, counts, strict=True)))
    places = np.random.default_rng(seed).permutation(sum(counts))
    one, two, three = np.split(places, sorted((counts[0] // 2, counts[1])))
    whole = images.pairs(rule, places)
    parts = images.pairs(rule, one) + images.pairs(rule, two) + images.pairs(rule, three)
    parts += images.pairs(rule, one, two) + images.pairs(rule, three, np.concatenate([one, two]))
    assert sorted(parts) == whole
    assert images.pairs(rule, two, one) == images.pairs(rule, one, two)


@few(12)
@given(SEEDS, st.integers(2, 60), RULES, st.sampled_from([1, 8, 2**20]), st.integers(1, 400))
def test_pairs_do_not_depend_on_the_memory_limit(seed: int, n: int, name: str, gathered: int, held: int) -> None:
    """Images have 36 bytes; at least four are held."""
    rule = comparison(name)
    images = Images(seed, {SHAPES[0]: n, SHAPES[1]: n // 2})
    places = np.arange(n + n // 2)
    half = np.array_split(places, 2)
    whole, across = images.pairs(rule, places), images.pairs(rule, *half)
    images.reads.clear()
    small = patch.multiple(inner_product, _STRIPE=6, _BLOCK_ROWS=6, _BLOCK_COLUMNS=8)
    with patch.multiple(matching, _CANDIDATES=gathered, _PIXEL_BYTES=held * 10), small:
        assert images.pairs(rule, places) == whole
        assert images.pairs(rule, *half) == across
    assert all(len(ids) <= max(4, held * 10 // 36) for ids in images.reads)


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 8))
def test_combined_results_have_every_pair_once_and_in_order(sizes: list[int], minimum: int) -> None:
    stops = np.cumsum([0, *sizes])
    results = [(np.arange(a, b), np.arange(a, b) + 100, np.arange(a, b) / 2) for a, b in pairwise(stops)]
    combined = list(combine_small(iter(results), minimum))
    pairs = [pair for arrays in combined for pair in zip(*(array.tolist() for array in arrays), strict=True)]
    assert pairs == [(n, n + 100, n / 2) for n in range(sum(sizes))]
    lengths = [len(left) for left, *_ in combined]
    assert all(length >= minimum for length in lengths[:-1])
    assert 0 not in lengths


@few(20)
@given(SEEDS, st.integers(1, 60), st.sampled_from(["cosine:0.9", "cosine:0.98"]))
def test_only_the_pixels_of_candidates_are_read(seed: int, n: int, name: str) -> None:
    rule = comparison(name)
    images = Images(seed, {SHAPES[0]: n, SHAPES[2]: n // 2})
    left, right = np.array_split(np.random.default_rng(seed).permutation(n + n // 2), 2)
    a, b = images.block(rule, left), images.block(rule, right)
    found = list(rule.candidates(a.entries, b.entries))
    expected = {a.image_ids[i].tobytes() for part in found for i in part.left}
    expected |= {b.image_ids[j].tobytes() for part in found for j in part.right}
    images.pairs(rule, left, right)
    assert {name for ids in images.reads for name in ids} == expected
    # Once, except the first of each shape, which is also read for its size.
    times = Counter(name for ids in images.reads for name in ids)
    assert sum(times.values()) - len(times) <= 2


def test_rules_that_compare_hashes_read_no_pixels() -> None:
    images = Images(1, {SHAPES[0]: 60})
    assert len(images.pairs(comparison("hamming:6"), np.arange(60))) > 100
    assert images.reads == []


def test_images_of_different_shapes_are_no_candidates() -> None:
    shapes = [(4, 6, 1), (6, 4, 1), (4, 2, 3), (1, 24, 1)]
    rule = Cosine(0.8)
    blocks = [rule.index(np.arange(24, dtype=np.uint8).reshape(1, *shape)) for shape in shapes]
    for k, one in enumerate(blocks):
        for other in blocks[k + 1 :]:
            assert list(rule.candidates(one, other)) == []
    assert [shape_key(shape) for shape in [(1, 2, 3), (2, 1, 3)]] == [(1 << 35) + 259, (2 << 35) + 131]


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(GRIDS), st.sampled_from([1, 3, 4]), RULES)
def test_the_index_entry_of_an_image_does_not_depend_on_the_batch(
    seed: int, shape: tuple[int, int, int], threads: int, name: str
) -> None:
    rule = comparison(name)
    assert isinstance(rule, FromPixels)
    pixels = similar(np.random.default_rng(seed), 9, shape)
    whole = rule.index(pixels)
    with threadpool_limits(threads, "blas"), patch.object(cosine, "_DESCRIBED_VALUES", 3 * prod(shape)):
        ways = [rule.index(pixels), rule.index(np.asfortranarray(pixels))]
        alone = [rule.index(pixels[k : k + 1]) for k in range(9)]
    ways.append(Entries(*(np.concatenate(part) for part in zip(*alone, strict=True))))
    for way in ways:
        assert np.array_equal(way.vector, whole.vector)
        assert np.array_equal(way.signature, whole.signature)
        assert np.array_equal(way.key, whole.key)


@pytest.mark.parametrize("name", ["exact", "sign", "hamming:6", "cosine:0.9"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_entries_read_from_the_index_table_equal_those_written(name: str, count: int) -> None:
    pixels = similar(np.random.default_rng(2), count, (6, 6, 1))
    entries = parse_rule(name).index(pixels)
    ids = np.arange(16 * count, dtype=np.uint8).reshape(count, 16)
    table = table_of(entries, to_binary(ids), pa.array(["A"] * count, pa.string()))
    assert all(np.array_equal(a, b) for a, b in zip(entries_of(table)[:2], entries[:2], strict=True))
    if count:
        assert np.array_equal(entries_of(table).vector, entries.vector)
        assert np.array_equal(from_binary(table["image_id"].chunk(0), 16), ids)
        assert set(table["bucket"].to_pylist()) <= set(range(256))
