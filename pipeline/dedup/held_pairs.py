"""Hold the pairs of a rule in memory as numbers of images: all of them, or only a spanning forest of them.

Images are numbered in the order of their ids, so pairs of numbers sort as pairs of ids do. Pairs are ordered by score,
highest first, then by left and right image. No two pairs are equal in this order, so a set of pairs has exactly one
maximum spanning forest: the pairs that link two clusters when all pairs are taken in this order, one by one. Two images
are connected by pairs of at least some score if and only if they are connected by such pairs of the forest. The forest
of two sets is the forest of their two forests, so it does not depend on how pairs are cut into batches.

References:
    Joseph B. Kruskal: On the shortest spanning subtree of a graph and the traveling salesman problem. Proceedings of
    the American Mathematical Society 7 (1956).
    J. C. Gower, G. J. S. Ross: Minimum spanning trees and single linkage cluster analysis. Journal of the Royal
    Statistical Society, Series C 18 (1969): clusters at every threshold from one forest.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.uint32]
Scores = NDArray[np.float32]

# Pairs that are ordered, or added to a forest, at a time. More if the forest has more.
_BATCH_PAIRS = 2**21
# One of so many pairs is looked at to cut all into batches.
_SAMPLED = 2**10
_SCORE_SHIFT = np.uint64(32)


class NumberedPairs(NamedTuple):
    """Pairs of images by number.

    Attributes:
        left: (p,) uint32.
        right: (p,) uint32, of another image.
        score: (p,) float32, above 0.
    """

    left: Numbers
    right: Numbers
    score: Scores

    def __len__(self) -> int:
        return len(self.left)


class _Run(NamedTuple):
    """Ordered pairs, 12 bytes each: score and left number, such that a higher score is smaller, and right number."""

    rank: NDArray[np.uint64]
    right: Numbers

    def __len__(self) -> int:
        return len(self.rank)

    def part(self, start: int, stop: int) -> Self:
        return type(self)(self.rank[start:stop], self.right[start:stop])


class TooManyPairsError(Exception):
    """More pairs than may be held, where all are needed."""


class HeldPairs:
    """All pairs that are added, 12 bytes each; if they become too many, only their maximum spanning forest.

    Args:
        most: pairs up to which all are held.
        forest: whether the forest is held if there are more; otherwise that is an error.
        count: number of pairs that are not added, but count as if they were.

    Attributes:
        count: number of pairs so far.
    """

    def __init__(self, most: int, *, forest: bool, count: int = 0) -> None:
        self._most, self._may_be_forest = most, forest
        self._runs: list[_Run] = []
        # Rows of the runs that are not in the forest yet.
        self._waiting = 0
        self.count = count

    @property
    def is_forest(self) -> bool:
        """Whether only a spanning forest is held."""
        return self._may_be_forest and self.count > self._most

    def add(self, pairs: NumberedPairs, count: int | None = None) -> None:
        """Add pairs, none of which was added before.

        Args:
            pairs: pairs, in any order; either image may be on the left.
            count: number of pairs to count for these: more than these if they are a forest, 0 if they were counted
                before. None for the number of these.

        Raises:
            TooManyPairsError: there are more than `most`, and a forest is not enough.
        """
        self.count += len(pairs) if count is None else count
        if self.count > self._most and not self._may_be_forest:
            raise TooManyPairsError
        if len(pairs):
            low, high = np.minimum(pairs.left, pairs.right), np.maximum(pairs.left, pairs.right)
            inverted = ~np.ascontiguousarray(pairs.score, np.float32).view(np.uint32)
            self._runs.append(_ordered(inverted.astype(np.uint64) << _SCORE_SHIFT | low, high))
            self._waiting += len(pairs)
        if self.is_forest and self._waiting > max(_BATCH_PAIRS, len(self._runs[0])):
            self._reduce()

    def in_order(self) -> Iterator[NumberedPairs]:
        """Yield the pairs that are held, highest score first, then by left and right number; the left one is smaller.

        Yields:
            Some millions of pairs at a time. Besides all pairs, memory holds those.
        """
        if self.is_forest:
            self._reduce()
        for run in _merge(self._runs):
            left = (run.rank & np.uint64(2**32 - 1)).astype(np.uint32)
            score = ~(run.rank >> _SCORE_SHIFT).astype(np.uint32)
            yield NumberedPairs(left, run.right, score.view(np.float32))

    def _reduce(self) -> None:
        """Replace all pairs by their forest."""
        forest = _Run(np.empty(0, np.uint64), np.empty(0, np.uint32))
        batch: list[_Run] = []
        runs, self._runs = self._runs[::-1], []
        while runs:
            batch.append(runs.pop())
            if not runs or sum(map(len, batch)) >= max(_BATCH_PAIRS, len(forest)):
                forest, batch = _spanning_forest([forest, *batch]), []
        self._runs, self._waiting = [forest], 0


def _ordered(rank: NDArray[np.uint64], right: Numbers) -> _Run:
    # Polars sorts two columns in a third of the time of numpy.lexsort.
    rows = pl.DataFrame({"rank": rank, "right": right}).sort("rank", "right")
    return _Run(rows["rank"].to_numpy(), rows["right"].to_numpy())


def _merge(runs: list[_Run]) -> Iterator[_Run]:
    """Merge ordered runs batch by batch: all pairs between two ranks, taken from every run and ordered."""
    sampled = np.sort(np.concatenate([np.empty(0, np.uint64), *(run.rank[::_SAMPLED] for run in runs)]))
    cuts = np.unique(sampled[_BATCH_PAIRS // _SAMPLED :: _BATCH_PAIRS // _SAMPLED])
    edges = [np.concatenate(([0], np.searchsorted(run.rank, cuts), [len(run)])) for run in runs]
    for number in range(len(cuts) + 1):
        parts = [run.part(*edge[number : number + 2]) for run, edge in zip(runs, edges, strict=True)]
        parts = [part for part in parts if len(part)]
        if len(parts) == 1:
            yield parts[0]
        elif parts:
            rank, right = (np.concatenate(column) for column in zip(*parts, strict=True))
            yield _ordered(rank, right)


def _spanning_forest(runs: list[_Run]) -> _Run:
    """Return the maximum spanning forest of some pairs, ordered."""
    from scipy.sparse import csr_array  # noqa: PLC0415 - slow to import, and rarely needed
    from scipy.sparse.csgraph import minimum_spanning_tree  # noqa: PLC0415 - the same

    rank, right = (np.concatenate(column) for column in zip(*runs, strict=True))
    run = _ordered(rank, right)
    left = (run.rank & np.uint64(2**32 - 1)).astype(np.int32)
    images = int(run.right.max(initial=0)) + 1
    # The weight of a pair is its position in the order, from 1: scipy takes 0 for no pair.
    weights = np.arange(1, len(run) + 1, dtype=np.float64)
    graph = csr_array((weights, (left, run.right.astype(np.int32))), shape=(images, images))
    chosen = np.sort(minimum_spanning_tree(graph, overwrite=True).data).astype(np.int64) - 1
    return _Run(run.rank[chosen], run.right[chosen])
