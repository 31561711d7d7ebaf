"""Load a role as arrays: from the lake with and without checks, and the same arrays by np.load and pickle.

    .venv/bin/python benchmarks/arrays.py LAKE SPLIT [--role ROLE] [--runs N] [--json]

Each way runs in turn in a process of its own, because a process checks a file once. Imports are not timed, and all
files are in the page cache. Figures are medians. Times depend on what else runs on the machine; processor time hardly
does.
"""

import argparse
import json
import pickle
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure, as_values, ratio, table
from watched import run

from pipeline import Lake

WAYS = ("np.load", "pickle", "lake, unchecked", "lake, checked")
# Times of np.load that reading a lake may take.
_MOST = 1.5


def main() -> None:
    """Run the benchmark, or one lap of it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake")
    parser.add_argument("split")
    parser.add_argument("--role", default="train")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the figures once more, as JSON on the last line")
    parser.add_argument("--lap", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lap:
        json.dump(_lap(options, *options.lap), sys.stdout)
        return
    laps: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as folder:
        pixels, labels = Lake(options.lake).arrays(options.split, options.role)
        np.save(Path(folder) / "pixels.npy", pixels)
        np.save(Path(folder) / "labels.npy", labels)
        with (Path(folder) / "arrays.pickle").open("wb") as file:
            pickle.dump((pixels, labels), file, pickle.HIGHEST_PROTOCOL)
        for way in WAYS * options.runs:
            ran = run([sys.executable, *sys.argv, "--lap", way, folder], memory=False)
            laps[way].append(json.loads(ran.output))
    figures = []
    for unit, title in (("seconds", "time"), ("processor", "processor time")):
        part = f"{title} to load {len(labels):,} images"
        times = {way: Figure(part, way, tuple(lap[unit] for lap in laps[way]), "s") for way in WAYS}
        unchecked, checked = times["lake, unchecked"], times["lake, checked"]
        figures += [
            *times.values(),
            ratio(unchecked, times["np.load"], "lake, unchecked / np.load", most=_MOST),
            ratio(checked, unchecked, "checked / unchecked"),
        ]
    sys.stdout.write("\n".join([*table(figures), ""]))
    if options.json:
        json.dump({"figures": [*map(as_values, figures)]}, sys.stdout)
        sys.stdout.write("\n")


def _lap(options: argparse.Namespace, way: str, folder: str) -> dict[str, float]:
    def npy() -> Any:
        return [np.load(Path(folder) / f"{name}.npy") for name in ("pixels", "labels")]

    def pickled() -> Any:
        with (Path(folder) / "arrays.pickle").open("rb") as file:
            return pickle.load(file)  # noqa: S301 - written a moment ago by this script

    def lake(*, check: bool) -> Any:
        return Lake(options.lake).arrays(options.split, options.role, check=check)

    ways: dict[str, partial[Any]] = {
        "np.load": partial(npy),
        "pickle": partial(pickled),
        "lake, unchecked": partial(lake, check=False),
        "lake, checked": partial(lake, check=True),
    }
    # Imports what is needed, and checks nothing.
    ways[way.replace(", checked", ", unchecked")]()
    started, begun = time.perf_counter(), time.process_time()
    ways[way]()
    return {"seconds": time.perf_counter() - started, "processor": time.process_time() - begun}


if __name__ == "__main__":
    main()
