"""cosine for `dedup.py`: compare it with blocked float32 products of all pairs."""

import sys
import time
from collections.abc import Callable

import numpy as np
from dedup_brute import Pixels, products, unit
from figures import Figure, ratio, seconds

from pipeline.dedup.joins.streaming import map_in_order
from pipeline.dedup.matching import Block, scored_pairs
from pipeline.dedup.rules import Entries
from pipeline.dedup.rules.cosine import Cosine, correlations

Pairs = np.ndarray
THRESHOLDS = (0.90, 0.95, 0.98)
# The error of float32 is smaller than this; pairs this near the threshold are computed in float64.
_DOUBT = 1e-4
_TARGETS = {0.90: 5.0, 0.95: 8.0}


def compare(name: str, left: Pixels, right: Pixels | None, runs: int) -> tuple[list[Figure], list[str]]:
    """Time both ways in turn, from arrays of pixels in memory to pairs, at three thresholds."""
    figures: list[Figure] = []
    differences: list[str] = []
    for threshold in THRESHOLDS:
        ours, theirs = [], []
        for _ in range(runs):
            one, found = _timed(lambda: _lake_way(left, right, threshold))  # noqa: B023 - called at once
            two, wanted = _timed(lambda: _all_products(left, right, threshold))  # noqa: B023 - called at once
            ours.append(one)
            theirs.append(two)
        part = f"cosine:{threshold:.2f}, {name}, {len(found):,} pairs"
        fast = seconds(part, "index the pixels, join, verify", ours)
        slow = seconds(part, "blocked float32 BLAS, all products", theirs)
        figures += [fast, slow, ratio(slow, fast, "times faster", least=_TARGETS.get(threshold))]
        if not np.array_equal(found, wanted):
            differences.append(f"{part}: all products find {len(wanted):,}")
    return figures, differences


def _timed(way: Callable[[], Pairs]) -> tuple[float, Pairs]:
    started = time.perf_counter()
    found = way()
    taken = time.perf_counter() - started
    sys.stderr.write(f"bench: {taken:.2f} s\n")
    return taken, found[np.lexsort(found.T[::-1])]


def _block(pixels: Pixels, rule: Cosine, first: int) -> Block:
    ids = np.zeros((len(pixels), 2), dtype=">u8")
    ids[:, 1] = np.arange(first, first + len(pixels))
    parts = map_in_order(rule.index, [pixels[at : at + 4096, ..., None] for at in range(0, len(pixels), 4096)])
    entries = Entries(*map(np.concatenate, zip(*parts, strict=True)))
    return Block(ids.view(np.uint8).reshape(-1, 16), entries)


def _lake_way(left: Pixels, right: Pixels | None, threshold: float) -> Pairs:
    rule = Cosine(threshold)
    one = _block(left, rule, 0)
    two = None if right is None else _block(right, rule, len(left))

    def read(ids: np.ndarray) -> np.ndarray:
        number = np.ascontiguousarray(ids).view(">u8")[:, 1].astype(np.int64)
        if right is None:
            return left[number][..., None]
        out = np.empty((len(number), *left.shape[1:]), np.uint8)
        mine = number < len(left)
        out[mine], out[~mine] = left[number[mine]], right[number[~mine] - len(left)]
        return out[..., None]

    found = [np.stack([i, j], axis=1) for i, j, _ in scored_pairs(rule, one, two, read)]
    return np.concatenate([np.empty((0, 2), np.int64), *found])


def _all_products(left: Pixels, right: Pixels | None, threshold: float) -> Pairs:
    a = unit(left)
    b = None if right is None else unit(right)
    found = [np.stack(pair, axis=1) for pair in products(a, b, threshold - _DOUBT)]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    # Pairs that float32 cannot decide are decided as the rule does.
    other = left if right is None else right
    return pairs[correlations(left[pairs[:, 0]], other[pairs[:, 1]]) >= threshold]
