"""Compare builds of the Ray engine with builds of the local engine: tables, row for row, and time.

    .venv/bin/python benchmarks/engines.py [--rows N] [--runs N] [--workers N] [--data DIR] [--json]

Both archives of shared/data, if they exist, and N generated glyphs (200,000; drawn once into DIR), under the
rules exact, sign, maxpool:4, cosine:0.95 and hamming:6. Every build is a whole command into an empty lake, engines in
turn. The time that Ray takes to start and to stop is part of its time, and is also measured alone. Figures are medians.
The exit code is 1 if a table differs.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from figures import Figure, as_values, ratio, seconds, table
from glyph_data import IMAGELAKE, glyphs
from lake_builds import write_recipe
from watched import run

from pipeline.lake_handle import Lake

ROWS = 200_000
RULES = ("exact", "sign", "maxpool:4", "cosine:0.95", "hamming:6")
ENGINES = ("local", "ray")
TABLES = ("images", "rejects", "shards", "index", "pairs", "clusters")
DATA = Path(tempfile.gettempdir()) / "imagelake-bench-data"
REAL = Path(__file__).parents[2] / "shared" / "data"
START = "from pipeline.engines.ray import RayEngine; list(RayEngine({workers}).map(abs, [1]))"


def main() -> int:
    """Run the benchmark; return 1 if a table differs."""
    options = _options()
    about = {"workers": options.workers, "runs": options.runs, "load_at_start": os.getloadavg()[0]}
    differences: list[str] = []
    figures = [_start(options)]
    for part, archives in _inputs(options):
        with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as folder:
            found, wrong = _race(part, archives, options, Path(folder))
        figures += found
        differences += wrong
    heading = f"{about['workers']} workers, load at start {about['load_at_start']:.2f}; medians of {about['runs']} runs"
    sys.stdout.write("\n".join([heading, *table(figures), ""]))
    if options.json:
        json.dump({**about, "figures": [*map(as_values, figures)], "differences": differences}, sys.stdout)
        sys.stdout.write("\n")
    sys.stderr.writelines(f"bench: {line}\n" for line in differences)
    return 1 if differences else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Builds by the Ray engine beside the local one.")
    parser.add_argument("--rows", type=int, default=ROWS, help="generated glyphs (default 200,000)")
    parser.add_argument("--runs", type=int, default=3, help="builds by each engine (default 3)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="workers of each engine")
    parser.add_argument("--data", type=Path, default=DATA, help="where generated archives are kept")
    parser.add_argument("--json", action="store_true", help="print the figures once more, as JSON on the last line")
    return parser.parse_args()


def _inputs(options: argparse.Namespace) -> Iterator[tuple[str, Sequence[Path]]]:
    real = [REAL / "notMNIST_small.tar.gz", REAL / "notMNIST_large_sample.tar.gz"]
    if all(file.exists() for file in real):
        yield "notMNIST, both archives of shared/data", real
    drawn = glyphs(options.data, options.rows)
    yield f"{options.rows:,} glyphs", [drawn.train, drawn.test]


def _start(options: argparse.Namespace) -> Figure:
    """Time the start and stop of Ray without any work."""
    command = [sys.executable, "-c", START.format(workers=options.workers)]
    times = [run(command, memory=False).seconds for _ in range(options.runs)]
    return seconds("Ray on this machine", "start, one task that does nothing, end", times)


def _race(
    part: str, archives: Sequence[Path], options: argparse.Namespace, work: Path
) -> tuple[list[Figure], list[str]]:
    times: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    differences: list[str] = []
    for number in range(options.runs):
        for engine in ENGINES:
            recipe = write_recipe(work / f"{engine}-{number}", archives, RULES)
            os.sync()
            started = time.perf_counter()
            command = [str(IMAGELAKE), "build", str(recipe), "--engine", engine, "--workers", str(options.workers)]
            run(command, memory=False)
            times[engine].append(time.perf_counter() - started)
            sys.stderr.write(f"bench: {part}, {engine}: {times[engine][-1]:.1f} s\n")
        differences += _differences(part, *(Lake(work / f"{engine}-{number}" / "lake") for engine in ENGINES))
    local, ray = (seconds(part, f"imagelake build --engine {engine}", times[engine]) for engine in ENGINES)
    return [local, ray, ratio(ray, local, "ray / local")], differences


def _differences(part: str, one: Lake, other: Lake) -> list[str]:
    """Compare all tables row for row, in order."""
    found = []
    for name in TABLES:
        left, right = (lake.scan(name).collect() for lake in (one, other))
        if not left.equals(right):
            found.append(f"{part}: table {name} differs: {len(left):,} rows and {len(right):,}")
    return found


if __name__ == "__main__":
    sys.exit(main())
