"""Near-duplicates, complete and fast: compare imagelake's joins with dense products, MD5 and brute force.

    .venv/bin/python benchmarks/dedup.py [--only overlap|cosine|hamming|add] [--runs N] [--data DIR] [--json]

- overlap: exact and sign overlap of 200,000 train and 10,000 test images from tables at rest, in a running process,
  compared with the notebooks' dense ratio and MD5 with np.where on arrays in memory.
- cosine: all pairs at 0.90, 0.95 and 0.98 of 200,000 and 10,000 glyphs, of notMNIST_small with itself and of MNIST's
  train with its test images, from pixels in memory, compared with all products by BLAS in blocks, in float32.
- hamming: hamming:6 of 50,000 to 529,114 hashes with themselves, compared with xor and popcount of all pairs.
- add: notMNIST_small (or generated glyphs if it is missing) added to a lake of 529,114 under rules that compare.

Glyphs are generated once into DIR and kept there. Both ways must find the same pairs; otherwise the exit code is 1.
Figures are medians, and ratios are of medians. The benchmark takes a quarter of an hour, because of the slow ways.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dedup_cosine
import dedup_lake
import numpy as np
from dedup_hamming import growth
from figures import Figure, as_values, table
from glyph_data import glyphs
from lake_builds import build, write_recipe
from mnist_idx import read_mnist

from pipeline.lake_handle import Lake

ROWS, TRAIN, TEST = 529_114, 200_000, 10_000
PARTS = ("overlap", "cosine", "hamming", "add")
GLYPHS = Path(tempfile.gettempdir()) / "imagelake-bench-data"
DATA = Path(__file__).parents[2] / "shared" / "data"

Shown = tuple[list[Figure], list[str]]


def main() -> int:
    """Run the benchmark; return 1 if two ways found different pairs."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as folder:
        shown = list(_parts(options, Path(folder)))
    figures = [figure for part, _ in shown for figure in part]
    differences = [line for _, wrong in shown for line in wrong]
    sys.stdout.write("\n".join([f"{len(os.sched_getaffinity(0))} cores", *table(figures), ""]))
    if options.json:
        json.dump({"figures": [*map(as_values, figures)], "differences": differences}, sys.stdout)
        sys.stdout.write("\n")
    sys.stderr.writelines(f"bench: {line}\n" for line in differences)
    return 1 if differences else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Near-duplicates beside dense products, MD5 and brute force.")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; can be repeated")
    parser.add_argument("--rows", type=int, default=ROWS, help="files in the generated archive (default 529,114)")
    parser.add_argument("--runs", type=int, default=1, help="runs of each way, in turn (default 1)")
    parser.add_argument("--data", type=Path, default=GLYPHS, help="where generated archives are kept")
    parser.add_argument("--json", action="store_true", help="print the figures once more, as JSON on the last line")
    return parser.parse_args()


def _parts(options: argparse.Namespace, work: Path) -> Iterator[Shown]:
    wanted = options.only or PARTS
    drawn = glyphs(options.data, options.rows)
    if {"overlap", "cosine", "hamming"} & set(wanted):
        split = dedup_lake.SPLIT.format(train=min(TRAIN, options.rows * 2 // 5), test=min(TEST, options.rows // 50))
        build(write_recipe(work / "lake", [drawn.train, drawn.test], ("exact", "sign", "hamming:0"), split))
        lake = Lake(work / "lake" / "lake")
    if "overlap" in wanted:
        yield dedup_lake.overlap_at_rest(work / "lake" / "lake", options.runs)
    if "cosine" in wanted:
        train, test = (lake.arrays("main", role, sanitized=False)[0] for role in ("train", "test"))
        yield dedup_cosine.compare(f"{len(train):,} x {len(test):,} glyphs", train, test, options.runs)
        if DATA.exists():
            small = _small(work)
            yield dedup_cosine.compare(f"notMNIST_small, {len(small):,} with itself", small, None, options.runs)
            train, test = (read_mnist(DATA / "mnist", part)[0] for part in ("train", "t10k"))
            yield dedup_cosine.compare("MNIST train x test", train, test, options.runs)
    if "hamming" in wanted:
        words = lake.scan("index").filter(rule="hamming:0", split="train").select("signature").collect()
        yield growth(np.ascontiguousarray(words.to_series().to_numpy()).view(np.uint64), options.runs)
    if "add" in wanted:
        archive = DATA / "notMNIST_small.tar.gz"
        yield dedup_lake.add(drawn.train, archive if archive.exists() else drawn.test, options.runs)


def _small(work: Path) -> np.ndarray:
    split = '[[split]]\nname = "main"\ntrain = { from = "notMNIST_small" }\n'
    build(write_recipe(work / "small", [DATA / "notMNIST_small.tar.gz"], ("exact",), split))
    return Lake(work / "small" / "lake").arrays("main", "train")[0]


if __name__ == "__main__":
    raise SystemExit(main())
