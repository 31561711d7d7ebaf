"""One image by its id, in a running process: `Lake.read` and a filter of the images table.

    python benchmarks/by_id.py [--images 500000]

The lake is of generated glyphs of 28 x 28. The first call of `read` reads all ids; it is timed alone.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import polars as pl

from pipeline import Lake, Recipe, build

_CALLS = 50


def main() -> None:
    """Build the lake and time both ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500_000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(build(_recipe(Path(folder), count)).root)
        ids = lake.scan("images").select("image_id").collect().to_series().sample(_CALLS, seed=0)
        first = _seconds(lambda: lake.read(ids[:1]))
        images = lake.scan("images")
        by_read, by_scan = [], []
        for one in ids.to_list():
            by_read.append(_seconds(partial(lake.read, [one])))
            by_scan.append(_seconds(images.filter(pl.col("image_id") == one).collect))
    sys.stdout.write(f"{count:,} images: first read {first * 1000:.0f} ms; then, median of {_CALLS} calls:\n")
    sys.stdout.write(f"  Lake.read {median(by_read) * 1000:.1f} ms (aim 50), scan {median(by_scan) * 1000:.1f} ms\n")


def _recipe(folder: Path, count: int) -> Recipe:
    source = {"uri": "g", "format": "glyphs", "rows": count, "dataset": "glyphs", "split": "train"}
    return Recipe.model_validate({"lake": {"root": str(folder / "lake")}, "source": [source]})


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
