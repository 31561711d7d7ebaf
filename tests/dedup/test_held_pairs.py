"""Pairs that are held: in order, all or as a spanning forest, whatever batches they come in."""

from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.dedup import held_pairs
from pipeline.dedup.components import link
from pipeline.dedup.decided import Decided, apply_decisions
from pipeline.dedup.held_pairs import HeldPairs, NumberedPairs, TooManyPairsError

Rows = list[tuple[int, int, float]]

# Few scores, so that many are equal.
SCORES = st.sampled_from([0.5, 0.75, 0.8, 0.90625, 0.95, 1.0])
PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] < pair[1]), SCORES, max_size=120
)
# As in a build with millions of pairs, but with a few.
SMALL: dict[str, Any] = {"_BATCH_PAIRS": 8, "_SAMPLED": 2}


def numbered(rows: Rows, *, flipped: bool = False) -> NumberedPairs:
    left, right = (np.array([row[place] for row in rows], np.uint32) for place in (0, 1))
    score = np.array([row[2] for row in rows], np.float32)
    return NumberedPairs(right, left, score) if flipped else NumberedPairs(left, right, score)


def held(batches: list[Rows], most: int, *, forest: bool = True) -> HeldPairs:
    pairs = HeldPairs(most, forest=forest)
    for number, batch in enumerate(batches):
        pairs.add(numbered(batch, flipped=number % 2 == 1))
    return pairs


def rows_of(pairs: HeldPairs) -> Rows:
    return [row for part in pairs.in_order() for row in zip(*(column.tolist() for column in part), strict=True)]


def in_order(rows: Rows) -> Rows:
    rounded = [(left, right, float(np.float32(score))) for left, right, score in rows]
    return sorted(rounded, key=lambda row: (-row[2], row[0], row[1]))


def forest_of(rows: Rows) -> Rows:
    """Take the pairs in order, one by one, and keep those that link two clusters."""
    cluster = list(range(100))
    kept = []
    for left, right, score in in_order(rows):
        one, other = cluster[left], cluster[right]
        if one != other:
            kept.append((left, right, score))
            cluster = [one if name == other else name for name in cluster]
    return kept


def cut(rows: Rows, seed: int) -> list[Rows]:
    """Shuffle rows and cut them into batches."""
    rng = np.random.default_rng(seed)
    shuffled = [rows[place] for place in rng.permutation(len(rows))]
    places = sorted(rng.integers(0, len(rows) + 1, 3).tolist())
    return [shuffled[start:stop] for start, stop in zip([0, *places], [*places, len(rows)], strict=True)]


@given(PAIRS, st.integers(0, 99))
def test_pairs_come_back_in_order(found: dict[tuple[int, int], float], seed: int) -> None:
    rows = [(*pair, score) for pair, score in found.items()]
    with patch.multiple(held_pairs, **SMALL):
        pairs = held(cut(rows, seed), 200)
        assert rows_of(pairs) == in_order(rows)
    assert pairs.count == len(rows)
    assert not pairs.is_forest


@given(PAIRS, st.integers(0, 99), st.integers(0, 60))
def test_too_many_pairs_become_their_maximum_spanning_forest(
    found: dict[tuple[int, int], float], seed: int, most: int
) -> None:
    rows = [(*pair, score) for pair, score in found.items()]
    with patch.multiple(held_pairs, **SMALL):
        pairs = held(cut(rows, seed), most)
        assert rows_of(pairs) == (forest_of(rows) if len(rows) > most else in_order(rows))
    assert pairs.count == len(rows)
    assert pairs.is_forest == (len(rows) > most)


@given(PAIRS, st.integers(0, 99), SCORES)
def test_a_forest_connects_what_all_pairs_connect_at_every_threshold(
    found: dict[tuple[int, int], float], seed: int, least: float
) -> None:
    rows = [(*pair, score) for pair, score in found.items()]

    def components(some: Rows) -> list[int]:
        left, right, _ = numbered([row for row in some if row[2] >= np.float32(least)])
        graph = coo_array((np.ones(len(left)), (left, right)), shape=(31, 31))
        labels: list[int] = connected_components(graph, directed=False)[1].tolist()
        return labels

    with patch.multiple(held_pairs, **SMALL):
        assert components(rows_of(held(cut(rows, seed), 0))) == components(rows)


@given(PAIRS, st.integers(0, 99))
def test_the_forest_of_forests_is_the_forest(found: dict[tuple[int, int], float], seed: int) -> None:
    rows = [(*pair, score) for pair, score in found.items()]
    together = HeldPairs(0, forest=True)
    with patch.multiple(held_pairs, **SMALL):
        for batch in cut(rows, seed):
            part = held([batch], 0)
            for pairs in part.in_order():
                together.add(pairs, part.count if pairs.score[0] == max(row[2] for row in batch) else 0)
        assert rows_of(together) == forest_of(rows)


def ids_of(rows: Rows) -> pl.DataFrame:
    columns = {
        side: [int(row[place]).to_bytes(16) for row in rows] for place, side in ((0, "left_id"), (1, "right_id"))
    }
    schema = {"left_id": pl.Binary, "right_id": pl.Binary, "score": pl.Float32}
    return pl.DataFrame({**columns, "score": [row[2] for row in rows]}, schema)


@given(
    PAIRS, st.integers(0, 99), st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda two: two[0] != two[1])
)
def test_two_different_pictures_divide_the_cluster_of_a_forest_as_that_of_all_pairs(
    found: dict[tuple[int, int], float], seed: int, different: tuple[int, int]
) -> None:
    rows = [(*pair, score) for pair, score in found.items()]
    pictures = pl.DataFrame({"image_id": [number.to_bytes(16) for number in different], "picture": [0, 1]})
    apart = pl.DataFrame({"left": [0], "right": [1]}, {"left": pl.UInt32, "right": pl.UInt32})
    decided = Decided(pictures.cast({"picture": pl.UInt32}), apart.clear(), apart)

    def clusters(some: Rows) -> pl.DataFrame:
        pairs = ids_of(some)
        return apply_decisions(link(pairs, "components"), decided, lambda _: pairs)[0]

    with patch.multiple(held_pairs, **SMALL):
        assert clusters(rows_of(held(cut(rows, seed), 0))).equals(clusters(rows))


def test_pairs_that_are_not_added_count_too() -> None:
    pairs = HeldPairs(3, forest=True, count=3)
    assert not pairs.is_forest
    pairs.add(numbered([(0, 1, 0.9)]))
    assert (pairs.count, pairs.is_forest) == (4, True)
    pairs.add(numbered([(1, 2, 0.8), (0, 2, 0.7), (2, 3, 0.6)]), 0)
    assert (pairs.count, [row[:2] for row in rows_of(pairs)]) == (4, [(0, 1), (1, 2), (2, 3)])


def test_too_many_pairs_are_an_error_where_all_are_needed() -> None:
    pairs = HeldPairs(2, forest=False)
    pairs.add(numbered([(0, 1, 0.9), (1, 2, 0.9)]))
    with pytest.raises(TooManyPairsError):
        pairs.add(numbered([(0, 2, 0.9)]))


def test_no_pairs() -> None:
    assert rows_of(HeldPairs(5, forest=True)) == []
    assert rows_of(HeldPairs(0, forest=True, count=1)) == []
