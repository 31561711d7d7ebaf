"""Rule photo: which edited copies it finds, how fast it compares, and how large its index is.

    .venv/bin/python benchmarks/photo.py [--seeds N] [--train N] [--test N]

Copies are planted in 180 textures and mosaics, 15 of each kind, and 90 of each of the harder kinds. The time is that of
comparing two sets of generated pictures of 32 x 32, in blocks as a build does, from the index to scored pairs. A pair
of pictures that are no copies makes the exit code 1.
"""

import argparse
import io
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from photo_data import COPIES, HARDER, patterns, scenes

from pipeline.dedup.photo.thumbnails import thumbnails
from pipeline.dedup.rules import Entries, index_table, parse_rule
from pipeline.dedup.rules.photo import Photo

RULE, EACH, EACH_HARDER = "photo:0.4", 15, 90
BLOCK = 13_000


def main() -> int:
    """Run the benchmark; return 1 if pictures that are no copies are a pair."""
    parser = argparse.ArgumentParser(description="Rule photo: recall by kind of copy, time, and size of the index.")
    parser.add_argument("--seeds", type=int, default=3, help="sets of textures and mosaics (default 3)")
    parser.add_argument("--train", type=int, default=50_000, help="pictures of one side (default 50,000)")
    parser.add_argument("--test", type=int, default=10_750, help="pictures of the other side (default 10,750)")
    options = parser.parse_args()
    wrong = [_planted(seed) for seed in range(options.seeds)]
    if options.train and options.test:
        _speed(options.train, options.test)
    return 1 if any(wrong) else 0


def _rule() -> Photo:
    rule = parse_rule(RULE).comparison
    assert isinstance(rule, Photo)
    return rule


def _planted(seed: int) -> int:
    """Print how many copies of each kind are found, and return how many other pairs are."""
    pictures = patterns(seed)
    source = np.random.default_rng(seed + 1).permutation(len(pictures))[: EACH * len(COPIES)]
    copies = [
        edit(pictures[source[number * EACH + place]])
        for number, edit in enumerate(COPIES.values())
        for place in range(EACH)
    ]
    rng = np.random.default_rng(seed + 100)
    harder_source = np.concatenate([rng.permutation(len(pictures))[:EACH_HARDER] for _ in HARDER])
    harder = [
        edit(pictures[harder_source[number * EACH_HARDER + place]], rng)
        for number, edit in enumerate(HARDER.values())
        for place in range(EACH_HARDER)
    ]
    rule = _rule()
    left, right, harder_right = (
        rule.index(np.concatenate([thumbnails(np.asarray(one)[None]) for one in some]))
        for some in (pictures, copies, harder)
    )
    rule, wrong = rule.using(rule.fit(left)), 0
    for kinds, origins, edited in ((COPIES, source, right), (HARDER, harder_source, harder_right)):
        parts = list(rule.candidates(left, edited))
        i, j = (np.concatenate([np.empty(0, np.int64), *(part[side] for part in parts)]) for side in (0, 1))
        own, each = origins[j] == i, len(origins) // len(kinds)
        counts = np.bincount(j[own] // each, minlength=len(kinds))
        shown = ", ".join(f"{name} {count}" for name, count in zip(kinds, counts, strict=True))
        sys.stdout.write(f"seed {seed}, of {each} each: {shown}; other pairs {np.count_nonzero(~own)}\n")
        wrong += int(np.count_nonzero(~own))
    return wrong


def _speed(train: int, test: int) -> None:
    """Print the size of the index, and the time of comparing both sets."""
    rule = _rule()
    sides = []
    for seed, count in ((1, train), (2, test)):
        pixels = scenes(seed, count)
        ids = np.random.default_rng(seed).bytes(16 * count)
        names = [ids[16 * k : 16 * k + 16] for k in range(count)]
        labels = pa.array(["A"] * count)
        table = index_table(parse_rule(RULE), pa.array(names, pa.binary()), labels, pixels)
        file = io.BytesIO()
        pq.write_table(table, file, compression="zstd")
        sys.stdout.write(f"index of {count:,}: {file.tell() / count:.0f} bytes an image\n")
        sides.append(rule.index(pixels))
    left, right = sides
    rule = rule.using(rule.fit(right.take(slice(0, 20_000))))
    start, used = time.perf_counter(), time.process_time()
    pairs = sum(
        len(part.left) for one in _blocks(left) for other in _blocks(right) for part in rule.candidates(one, other)
    )
    wall, used = time.perf_counter() - start, time.process_time() - used
    sys.stdout.write(f"{train:,} x {test:,}: {wall:.1f} s, {used:.1f} s of processor time, {pairs} pairs\n")


def _blocks(entries: Entries) -> list[Entries]:
    return [entries.take(slice(start, start + BLOCK)) for start in range(0, len(entries.key), BLOCK)]


if __name__ == "__main__":
    raise SystemExit(main())
