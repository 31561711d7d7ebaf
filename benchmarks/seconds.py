"""Where every second of a build goes, beside the plain script: wall and processor time by stage.

    python benchmarks/seconds.py [--rows 200000] [--runs 3] [--data DIR]

`imagelake build` reads generated glyphs from a tar.gz into an empty lake: three rules by keys, their clusters, a split
that is sanitized, and the report. `yardstick.py` reads the same archive. They run in turn, whole processes with their
imports. The table has medians. Processor time is that of all processes; it says more than wall time on a machine that
others use too. docs/benchmarks/seconds.md has a table of this script.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from glyph_data import Glyphs, glyphs
from lake_builds import RULES, write_recipe
from watched import run

HERE = Path(__file__).parent
_SPLIT = """
[[split]]
name = "main"
seed = 1
sanitize = "sign"
train = { from = "train" }
valid = { from = "train", size = 1000 }
"""
PLAIN, WHOLE = "the plain script", "all"


class Spent(NamedTuple):
    """Seconds of a stage: wall time, processor time of the command's process, and of its workers."""

    wall: float
    driver: float
    workers: float

    @property
    def processor(self) -> float:
        """Processor time of all processes."""
        return self.driver + self.workers


def measure(drawn: Glyphs, work: Path) -> dict[str, Spent]:
    """Run the plain script, then a build; return seconds by stage, and of both as a whole."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        os.sync()
        plain = run([sys.executable, str(HERE / "yardstick.py"), str(drawn.train), folder], memory=False)
        cpu = json.loads(plain.output)["cpu"]
    with tempfile.TemporaryDirectory(dir=work) as folder:
        recipe = write_recipe(Path(folder), [drawn.train], RULES, _SPLIT)
        os.sync()
        # Not as a script: worker processes import a script again, with everything that it imports.
        code = "import seconds_stages; seconds_stages.main()"
        built = run([sys.executable, "-c", code, str(time.time()), str(recipe)], HERE, memory=False)
    notes = json.loads(built.output)
    spent = {
        stage: Spent(*(b - a for a, b in zip(begin, end, strict=True)))
        for (stage, *begin), (_, *end) in pairwise(notes)
    }
    whole = Spent(built.seconds, notes[-1][2], notes[-1][3])  # the end of its processes is in the wall time only
    return {**spent, WHOLE: whole, PLAIN: Spent(plain.seconds, *cpu)}


def table(runs: Sequence[dict[str, Spent]]) -> list[str]:
    """Format medians as lines of a Markdown table."""
    whole = median(lap[WHOLE].processor for lap in runs)
    lines = ["| stage | wall, s | processor: command | workers | share |", "|---|---|---|---|---|"]
    for stage in runs[0]:
        wall, driver, workers = (median(lap[stage][column] for lap in runs) for column in range(3))
        share = "" if stage in (PLAIN, WHOLE) else f"{(driver + workers) / whole:.0%}"
        lines.append(f"| {stage} | {wall:.2f} | {driver:.2f} | {workers:.2f} | {share} |")
    wall = median(lap[WHOLE].wall / lap[PLAIN].wall for lap in runs)
    processor = median(lap[WHOLE].processor / lap[PLAIN].processor for lap in runs)
    return [*lines, "", f"all, compared with the plain script: wall time {wall:.2f}, processor time {processor:.2f}"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="files in the archive (default 200,000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each way, in turn (default 3)")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "imagelake-bench-data")
    asked = parser.parse_args()
    drawn = glyphs(asked.data, asked.rows)
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as work:
        runs = [measure(drawn, Path(work)) for _ in range(asked.runs)]
    load = os.getloadavg()[0]
    heading = (
        f"{asked.rows:,} glyphs; {len(os.sched_getaffinity(0))} cores, load {load:.1f}; medians of {asked.runs} runs"
    )
    sys.stdout.write("\n".join([heading, "", *table(runs), ""]))


if __name__ == "__main__":
    main()
