"""Compare the Hamming join with brute force in numpy: `near_words.py hashes.npy [--rows N ...] [--bits D ...]`.

Brute force compares every pair, in pieces that fit the cache, with one thread per core. Pictures, (n, height, width,
channels) uint8, instead of hashes are hashed first.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.hamming import hamming_join
from pipeline.dedup.perceptual_hash import dct_hashes, gradient_hashes

Words = NDArray[np.uint64]
HASHES = {"dct": dct_hashes, "dhash": gradient_hashes}
_PIECE = 2**15
_ROWS = 256


def brute_force(words: Words, distance: int) -> int:
    """Count near pairs by comparing all pairs."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return sum(pool.map(partial(_rows, words, distance), range(0, len(words), _ROWS)))


def _rows(words: Words, distance: int, first: int) -> int:
    differing, bits = np.empty(_PIECE, np.uint64), np.empty(_PIECE, np.uint8)
    found = 0
    for start in range(first, len(words), _PIECE):
        for row in range(first, min(first + _ROWS, len(words))):
            part = words[max(start, row + 1) : start + _PIECE]
            np.bitwise_xor(part, words[row], out=differing[: len(part)])
            np.bitwise_count(differing[: len(part)], out=bits[: len(part)])
            found += int(np.count_nonzero(bits[: len(part)] <= distance))
    return found


def by_tables(words: Words, distance: int) -> int:
    """Count the near pairs that the join finds."""
    return sum(len(bits) for _, _, bits in hamming_join(words, None, distance))


def main() -> None:
    """Print a line for each measurement: wall time, and CPU time of all cores."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("words", type=Path)
    asked.add_argument("--hash", choices=HASHES, default="dct")
    asked.add_argument("--rows", type=int, nargs="*", help="random rows; all without it")
    asked.add_argument("--bits", type=int, nargs="*", default=[6])
    asked.add_argument("--brute", action="store_true", help="also compare all pairs")
    options = asked.parse_args()
    words = np.load(options.words)
    if words.ndim > 1:
        words = HASHES[options.hash](words)
    shuffled = np.random.default_rng(0).permutation(words)
    for rows in options.rows or [len(words)]:
        for bits in options.bits:
            _report(shuffled[:rows], bits, brute=options.brute)


def _report(words: Words, bits: int, *, brute: bool) -> None:
    for name, way in [("tables", by_tables), ("brute force", brute_force)][: 1 + brute]:
        clock, cores = time.perf_counter(), time.process_time()
        pairs = way(words, bits)
        clock, cores = time.perf_counter() - clock, time.process_time() - cores
        peak = getrusage(RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(
            f"{len(words):>9,} words, {bits:>2} bits, {name:<11}: {pairs:>12,} pairs in {clock:8.2f} s,"
            f" {cores:8.2f} s of cores, peak {peak:,.0f} MB\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
