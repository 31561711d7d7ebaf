"""Ingest: compare imagelake with a plain script, a Pillow pool and the notebook's way.

    .venv/bin/python benchmarks/ingest.py [--only main|scale|noop|add] [--rows N] [--runs N] [--data DIR] [--json]

From generated glyphs in a tar.gz, drawn once into DIR (about 1.6 GB and five minutes) and kept there:

- main: the same archive by four ways, interleaved, each in processes of its own and timed whole: `imagelake build` from
  the command line into an empty lake, also up to the commit of images and index with the keys of three rules;
  `yardstick.py`; `pillow_pool.py`; `notebook_read.py`. All must agree on images, rejects and content hashes.
- scale: builds of about a fifth, of N and of four times N files; peak memory is measured in
  separate runs, because measuring takes time.
- noop: the same build again, with nothing to do, and the time of its imports.
- add: the small test part added to the lake of N, compared with the same part into an empty lake.

Before anything is timed, all ways run once on a small set and every archive is read once: the page cache is warm for
all. Lakes and extracted files (5 GB) go to a temporary folder that is removed at the end; between two runs wait
five minutes for ext4 (see `race`), or set TMPDIR=/dev/shm, which favours the ways that extract. Figures are medians,
and ratios are of medians; targets are for 529,114 files on two cores. The exit code is 1 if the results differ.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from figures import Figure, as_values, table
from glyph_data import glyphs
from ingest_ways import race
from lake_builds import build, write_recipe
from lake_figures import add, noop, scale

ROWS, SMALL, WARM_UP = 529_114, 100_000, 2_000
PARTS = ("main", "scale", "noop", "add")
DATA = Path(tempfile.gettempdir()) / "imagelake-bench-data"

Shown = tuple[list[Figure], list[str]]


def main() -> int:
    """Run the benchmark; return 1 if a way found, or a build did, something unexpected."""
    options = _options()
    about = {
        "rows": options.rows,
        "runs": options.runs,
        "slow_runs": options.slow_runs,
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as folder:
        shown = list(_parts(options, Path(folder)))
        figures = [figure for part, _ in shown for figure in part]
        differences = [line for _, wrong in shown for line in wrong]
        sys.stdout.write("\n".join([_heading(about), *table(figures), ""]))
        if options.json:
            json.dump({**about, "figures": [*map(as_values, figures)], "differences": differences}, sys.stdout)
            sys.stdout.write("\n")
        sys.stdout.flush()  # deleting the extracted files takes a while
    sys.stderr.writelines(f"bench: {line}\n" for line in differences)
    return 1 if differences else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ingest beside a plain script, a Pillow pool and the notebook's way.")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; can be repeated")
    parser.add_argument("--rows", type=int, default=ROWS, help="files in the main archive (default 529,114)")
    parser.add_argument("--runs", type=int, default=3, help="runs of imagelake and the yardstick (default 3)")
    parser.add_argument("--slow-runs", type=int, default=1, help="runs of the two slow ways (default 1)")
    parser.add_argument("--data", type=Path, default=DATA, help="where generated archives are kept")
    parser.add_argument("--json", action="store_true", help="print the figures once more, as JSON on the last line")
    return parser.parse_args()


def _parts(options: argparse.Namespace, work: Path) -> Iterator[Shown]:
    wanted: Sequence[str] = options.only or PARTS
    _, wrong = race(glyphs(options.data, WARM_UP), 1, 1, work)
    yield [], wrong
    drawn = glyphs(options.data, options.rows)
    if "main" in wanted:
        yield race(drawn, options.runs, options.slow_runs, work)
    if "scale" in wanted:
        fewer = glyphs(options.data, round(options.rows * SMALL / ROWS))
        yield scale([fewer, drawn, glyphs(options.data, 4 * options.rows)], options.runs)
    if "noop" not in wanted and "add" not in wanted:
        return
    recipe = write_recipe(work / "train", [drawn.train])
    build(recipe)
    if "noop" in wanted:
        yield noop(recipe, options.runs)
    if "add" in wanted:
        yield add(recipe, drawn, options.runs)


def _heading(about: dict[str, float]) -> str:
    return (
        f"{about['rows']:,} generated glyphs; {about['cores']} cores, load at start {about['load_at_start']:.2f}; "
        f"medians of {about['runs']} runs, of {about['slow_runs']} for Pillow pool and notebook; memory of 1"
    )


if __name__ == "__main__":
    sys.exit(main())
