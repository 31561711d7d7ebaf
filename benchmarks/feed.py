"""Shuffled batches: compare imagelake with a memory map and with common loaders.

    .venv/bin/python benchmarks/feed.py [--rows N] [--size N] [--part N] [--runs N] [--data DIR] [--mosaic DIR]
        [--json]

A lake is built from generated glyphs (drawn once into DIR and kept there), and its train role written in the formats of
the other loaders, into a temporary folder that is deleted at the end. Every way then runs in its own processes, the
fast ones in turn: batches of 256, the first epoch from opening, three later epochs, and one more that is not timed. Its
pixels and labels are summed, to check that every way returns each image once. Slow ways run on a part of the images;
the table has its size. All files are in the page cache.

MosaicML streaming is measured if it can be imported. It needs other versions of common packages than those in the lock;
`--mosaic DIR` names a folder made by `pip install --target DIR`. Figures are medians over all epochs of all runs.
Ratios are also given by processor time, which other work on the machine changes least. The exit code is 1 if a way
returned wrong images.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from feed_data import write_all
from feed_ways import BOUND, DECODED_AGAIN, FAST, SLOW, Way
from figures import Figure, as_values, ratio, table
from glyph_data import glyphs
from watched import run

ROWS, SIZE, PART, EPOCHS = 529_114, 200_000, 20_000, 3
DATA = Path(tempfile.gettempdir()) / "imagelake-bench-data"
_SCRIPT = Path(__file__).with_name("feed_ways.py")

Laps = dict[str, list[dict[str, Any]]]


def main() -> int:
    """Run the benchmark; return 1 if a way returned wrong images."""
    options = _options()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as folder:
        facts = write_all(Path(folder), glyphs(options.data, options.rows), options.size, options.part)
        run([*_python("Mosaic", options), str(_SCRIPT.with_name("feed_mosaic.py")), folder, str(options.part)])
        laps: Laps = {way.name: [] for way in (*FAST, *SLOW)}
        for way in [*FAST * options.runs, *SLOW]:
            laps[way.name] += _lap(way, folder, options)
    differences = [line for way in (*FAST, *SLOW) for lap in laps[way.name] for line in _wrong(way, lap, facts)]
    figures = _figures(laps, facts)
    about = f"{len(os.sched_getaffinity(0))} cores, load at start {load:.2f}; medians of {options.runs} runs"
    missing = [f"  {name}: not installed" for name, of in laps.items() if not of]
    sys.stdout.write("\n".join([about, *table(figures), *missing, ""]))
    if options.json:
        json.dump(
            {"load_at_start": load, "figures": [*map(as_values, figures)], "differences": differences}, sys.stdout
        )
        sys.stdout.write("\n")
    sys.stderr.writelines(f"bench: {line}\n" for line in differences)
    return 1 if differences else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Shuffled batches beside a memory map and other loaders.")
    parser.add_argument("--rows", type=int, default=ROWS, help="files the lake is built from (default 529,114)")
    parser.add_argument("--size", type=int, default=SIZE, help="images of the train role (default 200,000)")
    parser.add_argument("--part", type=int, default=PART, help="images that slow ways run on (default 20,000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of the fast ways (default 3)")
    parser.add_argument("--data", type=Path, default=DATA, help="where generated archives are kept")
    parser.add_argument("--mosaic", type=Path, help="where MosaicML streaming is installed, if not here")
    parser.add_argument("--json", action="store_true", help="print the figures once more, as JSON on the last line")
    return parser.parse_args()


def _python(way: str, options: argparse.Namespace) -> list[str]:
    if options.mosaic is None or "Mosaic" not in way:
        return [sys.executable]
    return ["env", f"PYTHONPATH={options.mosaic}", sys.executable]


def _lap(way: Way, folder: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    ran = run([*_python(way.name, options), str(_SCRIPT), way.name, folder, str(EPOCHS)], memory=False)
    found = json.loads(ran.output.splitlines()[-1])
    if found:
        best = found["summary"]["images"] / min(found["later"])
        sys.stderr.write(f"bench: {way.name}: {best:,.0f} images/s at best\n")
    return [found] if found else []


def _wrong(way: Way, lap: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    wanted = facts["part" if way.part else "whole"]
    lines = []
    if lap["summary"] != wanted:
        lines.append(f"{way.name}: handed out {lap['summary']}, not {wanted}")
    if lap["counted"] != (EPOCHS + 1) * wanted["images"]:
        lines.append(f"{way.name}: {lap['counted']} images in {EPOCHS + 1} epochs of {wanted['images']}")
    return lines


def _figures(laps: Laps, facts: dict[str, Any]) -> list[Figure]:
    def speed(way: Way) -> Figure:
        count = facts["part" if way.part else "whole"]["images"]
        values = tuple(count / seconds for lap in laps[way.name] for seconds in lap["later"])
        return Figure(f"later epochs of {count:,}", way.name, values, "images/s")

    def opening(way: Way) -> list[Figure]:
        count = facts["whole"]["images"]
        first = tuple(lap["first"] for lap in laps[way.name])
        whole = tuple(count / lap["whole"] for lap in laps[way.name])
        return [
            Figure("first epoch, from opening", f"to batch 1: {way.name}", first, "s", most=1),
            Figure("first epoch, from opening", way.name, whole, "images/s"),
        ]

    ours = [way for way in FAST if way.name.startswith("imagelake")]
    bound = speed(BOUND)
    speeds = [speed(way) for way in sorted((*FAST, *SLOW), key=lambda way: way.part) if laps[way.name]]
    used = {way: _processor(way, laps[way.name]) for way in (BOUND, *ours)}
    ratios = [ratio(speed(way), bound, f"{way.name} / bound", least=_least(way)) for way in ours]
    ratios += [ratio(used[BOUND], used[way], f"bound / {way.name}", least=_least(way)) for way in ours]
    return [*(line for way in ours for line in opening(way)), *speeds, *ratios]


def _processor(way: Way, laps: list[dict[str, Any]]) -> Figure:
    return Figure("processor time of later epochs", way.name, tuple(s for lap in laps for s in lap["processor"]), "s")


def _least(way: Way) -> float | None:
    return None if way.name == DECODED_AGAIN else 0.5


if __name__ == "__main__":
    sys.exit(main())
