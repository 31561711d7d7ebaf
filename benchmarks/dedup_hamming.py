"""hamming for `dedup.py`: compare it with xor and popcount of all pairs, at several sizes."""

import sys
import time

import numpy as np
from figures import Figure, ratio, seconds
from near_words import brute_force
from numpy.typing import NDArray

from pipeline.dedup.joins.hamming import hamming_join

Words = NDArray[np.uint64]
DISTANCE = 6
SIZES = (50_000, 100_000, 250_000)
_TARGET = 20.0


def growth(words: Words, runs: int) -> tuple[list[Figure], list[str]]:
    """Join growing numbers of hashes with themselves; compare the smallest and the largest with all pairs."""
    shuffled = np.random.default_rng(0).permutation(words)
    figures: list[Figure] = []
    differences: list[str] = []
    for size in [size for size in SIZES if size < len(words)] + [len(words)]:
        part = f"hamming:{DISTANCE} of {size:,} with themselves"
        laps = [_lap(shuffled[:size]) for _ in range(runs)]
        fast = seconds(part, f"by tables, {laps[0][1]:,} pairs", [taken for taken, _ in laps])
        figures.append(fast)
        if size in (SIZES[0], len(words)):
            started = time.perf_counter()
            wanted = brute_force(shuffled[:size], DISTANCE)
            slow = seconds(part, "xor and popcount of all pairs", [time.perf_counter() - started])
            target = _TARGET if size == len(words) else None
            figures += [slow, ratio(slow, fast, "times faster", least=target)]
            if wanted != laps[0][1]:
                differences.append(f"{part}: brute force finds {wanted:,} pairs")
        if size == SIZES[0] and not np.array_equal(_pairs(shuffled[:size]), _all_pairs(shuffled[:size])):
            differences.append(f"{part}: brute force finds other pairs")
        sys.stderr.write(f"bench: {part}: {fast.value:.2f} s\n")
    return figures, differences


def _lap(words: Words) -> tuple[float, int]:
    started = time.perf_counter()
    found = sum(len(bits) for _, _, bits in hamming_join(words, None, DISTANCE))
    return time.perf_counter() - started, found


def _pairs(words: Words) -> NDArray[np.int64]:
    found = [np.stack([i, j], axis=1) for i, j, _ in hamming_join(words, None, DISTANCE)]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return pairs[np.lexsort(pairs.T[::-1])]


def _all_pairs(words: Words) -> NDArray[np.int64]:
    found = []
    for row in range(0, len(words), 256):
        near = np.bitwise_count(words[row : row + 256, None] ^ words[None, row:]) <= DISTANCE
        i, j = np.nonzero(near)
        found.append(np.stack([i, j], axis=1)[i < j] + row)
    return np.concatenate(found)
