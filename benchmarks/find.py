"""`imagelake find`: time of a search by rule, in a running process and as a command, and peak memory.

    .venv/bin/python benchmarks/find.py [--rows N] [--runs N] [--queries N] [--lake DIR]

A lake of generated pictures of 28 x 28 with 1,000 test images is built once with `between = "splits"` into a temporary
folder (or into DIR, where it is kept). Copies with noise are the pictures that are searched for. By rule:

- first: the first search of a process, which reads the index;
- warm: the same process again, another picture each time;
- folder: all pictures in one call;
- command: `imagelake find` as a new process, with its imports.

Every search is checked: the original of the picture must be the first match. The exit code is 1 if it is not.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from figures import Figure, seconds, table
from glyph_data import IMAGELAKE
from numpy.typing import NDArray
from PIL import Image

from pipeline.lake_handle import Lake
from pipeline.search.find import Found

RULES = ("exact", "sign", "hamming:6", "cosine:0.95", "photo:0.5")
ROWS, TEST, SIDE = 200_000, 1_000, 28
MOST = {"exact": 0.05, "sign": 0.05, "cosine:0.95": 1.0, "photo:0.5": 1.0}
RECIPE = """
[lake]
root = "lake"
[dedup]
rules = {rules}
between = "splits"
[[source]]
uri = "train.npz"
dataset = "made"
split = "train"
[[source]]
uri = "test.npz"
dataset = "made"
split = "test"
"""
Pixels = NDArray[np.uint8]


def main() -> int:
    """Run the benchmark; return 1 if an original is not found."""
    parser = argparse.ArgumentParser(description="Time of imagelake find by rule.")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"train images (default {ROWS:,})")
    parser.add_argument("--runs", type=int, default=5, help="searches of each kind (default 5)")
    parser.add_argument("--queries", type=int, default=1000, help="pictures in the folder (default 1,000)")
    parser.add_argument("--rules", nargs="+", default=RULES, help=f"rules of the lake (default {' '.join(RULES)})")
    parser.add_argument("--lake", type=Path, help="folder for the lake; it is built there if there is none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as scratch:
        folder = options.lake or Path(scratch)
        if not (folder / "lake").exists():
            _build(folder, options.rows, options.rules)
        wanted = np.random.default_rng(1).choice(options.rows, options.queries, replace=False)
        files = _write_pictures(Path(scratch) / "pictures", wanted)
        figures, wrong = _measure(folder / "lake", files, options.rules, options.runs)
    sys.stdout.write(f"{options.rows + TEST:,} images, load {os.getloadavg()[0]:.1f}\n")
    sys.stdout.write("\n".join([*table(figures), ""]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"peak memory of the searching process: {peak:,.0f} MiB\n")
    sys.stderr.writelines(f"bench: {line}\n" for line in wrong)
    return 1 if wrong else 0


def pictures(first: int, count: int) -> Pixels:
    """Draw smooth pictures, each of its own seed in blocks of 1,000: (count, 28, 28)."""
    blocks = []
    for block in range(first // 1000, -(-(first + count) // 1000)):
        rng = np.random.default_rng(block)
        coarse = rng.integers(0, 256, (1000, 7, 7)).astype(np.float32)
        fine = np.kron(coarse, np.ones((1, 4, 4), np.float32)) + rng.normal(0, 8, (1000, SIDE, SIDE))
        blocks.append(np.clip(fine, 0, 255).astype(np.uint8))
    start = first % 1000
    return np.concatenate(blocks)[start : start + count]


def _build(folder: Path, rows: int, rules: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, first, count in (("train", 0, rows), ("test", 10**9, TEST)):
        np.savez(folder / f"{name}.npz", images=pictures(first, count), labels=np.arange(count) % 10)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(rules=list(rules)).replace("'", '"'), encoding="utf-8")
    sys.stderr.write(f"bench: building a lake of {rows + TEST:,} images\n")
    subprocess.run([str(IMAGELAKE), "build", str(recipe)], check=True, stdout=sys.stderr)


def _write_pictures(files: Path, wanted: NDArray[np.int64]) -> dict[str, list[Path]]:
    """Write the wanted rows as they are, for the rules that compare keys, and with noise for the others."""
    rng = np.random.default_rng(2)
    originals = {block: pictures(block * 1000, 1000) for block in np.unique(wanted // 1000).tolist()}
    same = [originals[row // 1000][row % 1000] for row in wanted.tolist()]
    noisy = [np.clip(one + rng.normal(0, 4, one.shape), 0, 255).astype(np.uint8) for one in same]
    written = {}
    for kind, made in (("same", same), ("noisy", noisy)):
        (files / kind).mkdir(parents=True)
        written[kind] = [files / kind / f"{row}.png" for row in wanted.tolist()]
        for name, one in zip(written[kind], made, strict=True):
            Image.fromarray(one).save(name)
    return written


def _measure(
    root: Path, files: dict[str, list[Path]], rules: Sequence[str], runs: int
) -> tuple[list[Figure], list[str]]:
    figures: list[Figure] = []
    wrong: list[str] = []
    for rule in rules:
        names = files["same" if rule in ("exact", "sign") else "noisy"]
        search = partial(Lake(root).find, rule=rule, top=10)
        check = partial(_check, rule, wrong)
        figures.append(seconds(rule, "first search of a process", [_timed(search, names[0], check)]))
        warm = [_timed(search, name, check) for name in names[1 : runs + 1]]
        figures.append(seconds(rule, "warm search", warm, most=MOST.get(rule)))
        folder = [_timed(search, names[0].parent, check)]
        figures.append(seconds(rule, f"folder of {len(names):,} pictures", folder))
        words = [str(IMAGELAKE), "find", str(root), str(names[0]), "--rule", rule, "--json"]
        cold = []
        for _ in range(min(runs, 3)):
            started = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            cold.append(time.perf_counter() - started)
        figures.append(seconds(rule, "command", cold))
    return figures, wrong


def _check(rule: str, wrong: list[str], found: pl.DataFrame) -> None:
    best = found.unique("number", keep="first", maintain_order=True)
    missed = best.filter(pl.col("query").str.extract(r"(\d+)\.png$") != pl.col("path")).height
    if missed or found.is_empty():
        wrong.append(f"{rule}: {missed or 'every'} picture is not found")


def _timed(search: Callable[..., Found], images: Path, check: Callable[[pl.DataFrame], None]) -> float:
    started = time.perf_counter()
    found = search(images)
    took = time.perf_counter() - started
    check(found.matches)
    return took


if __name__ == "__main__":
    sys.exit(main())
