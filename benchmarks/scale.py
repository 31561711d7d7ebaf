"""The cost of an image as lakes grow: time, memory and tasks by stage, and bytes by table, of builds of glyphs.

    python benchmarks/scale.py [--sizes 500000 2000000 10000000] [--data DIR] [--json FILE]

docs/benchmarks/scaling.md estimates the cost of a billion images from its tables. Archives are drawn once and kept;
lakes are deleted.
The largest lake needs about 1 KB of disk for each image, with its archive.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from glyph_data import glyphs
from lake_builds import RULES, write_recipe
from watched import tree_megabytes

# Most training images of the baseline, so that the table shows the costs that grow with the lake.
_MORE = """
[[split]]
name = "main"
seed = 1
sanitize = "sign"
train = { from = "train" }
test = { from = "test" }
[[baseline]]
model = "logistic"
split = "main"
train_sizes = [50, 1000]
max_iter = 20
"""
_LOOK_EVERY = 0.5


class Stage(NamedTuple):
    """The cost of a stage.

    Attributes:
        name: name in the progress bar.
        seconds: wall time.
        megabytes: highest memory of all processes while it ran (PSS).
        tasks: number of tasks of the engine.
    """

    name: str
    seconds: float
    megabytes: float
    tasks: int


class Scaled(NamedTuple):
    """A build of one size: images and rejects; stages in order; bytes and rows by table; bytes of the sources."""

    images: int
    stages: list[Stage]
    tables: dict[str, list[int]]
    sources: int


def measure(data: Path, rows: int) -> Scaled:
    """Build a lake of a number of glyphs and their test part, and measure it."""
    drawn = glyphs(data, rows)
    with tempfile.TemporaryDirectory(dir=data) as folder:
        recipe = write_recipe(Path(folder), [drawn.train, drawn.test], RULES, _MORE)
        os.sync()
        stages, noted = stages_of(recipe)
    size = sum(file.stat().st_size for file in (drawn.train, drawn.test))
    return Scaled(noted["images"], stages, noted["tables"], size)


def stages_of(recipe: Path) -> tuple[list[Stage], dict[str, Any]]:
    """Build a recipe in a process of its own: its stages, and what `scale_stages.py` prints."""
    noted, seen = _watched([sys.executable, str(Path(__file__).with_name("scale_stages.py")), str(recipe)])
    stages = [
        Stage(
            name,
            end - begin,
            max((m for at, m in seen if begin <= at <= end), default=0.0),
            noted["tasks"].get(name, 0),
        )
        for (name, begin), (_, end) in pairwise(noted["stages"])
    ]
    return _merged(stages), noted


def _merged(stages: Sequence[Stage]) -> list[Stage]:
    """Combine stages of the same name."""
    found: dict[str, Stage] = {}
    for stage in stages:
        old = found.get(stage.name, Stage(stage.name, 0.0, 0.0, 0))
        megabytes = max(old.megabytes, stage.megabytes)
        found[stage.name] = Stage(stage.name, old.seconds + stage.seconds, megabytes, stage.tasks)
    return list(found.values())


def _watched(command: Sequence[str]) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    seen: list[tuple[float, float]] = []
    done = threading.Event()

    def look(session: int) -> None:
        while not done.wait(_LOOK_EVERY):
            seen.append((time.time(), tree_megabytes(session)))

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        watcher = threading.Thread(target=look, args=(process.pid,))
        watcher.start()
        output, _ = process.communicate()
        done.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"bench: the build ended with exit code {process.returncode}")
    noted: dict[str, Any] = json.loads(output)
    return noted, seen


def report(scaled: Scaled) -> list[str]:
    """Format the costs of a build, by stage and by table."""
    million = scaled.images / 1e6
    lines = [f"\n{scaled.images:,} images from {scaled.sources / 1e6:,.0f} MB of archives"]
    lines.append(f"  {'stage':<28}{'s':>8}{'s / million':>13}{'MB':>8}{'tasks':>8}")
    for name, seconds, megabytes, tasks in scaled.stages:
        lines.append(f"  {name:<28}{seconds:>8.1f}{seconds / million:>13.2f}{megabytes:>8.0f}{tasks or '':>8}")
    total = sum(stage.seconds for stage in scaled.stages)
    most = max(stage.megabytes for stage in scaled.stages)
    lines.append(f"  {'all':<28}{total:>8.1f}{total / million:>13.2f}{most:>8.0f}")
    lines.append(f"  {'table':<28}{'MB':>8}{'bytes / image':>15}{'rows':>14}")
    for name, (size, rows) in scaled.tables.items():
        if rows:
            lines.append(f"  {name:<28}{size / 1e6:>8.1f}{size / scaled.images:>15.1f}{rows:>14,}")
    return lines


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[500_000, 2_000_000, 10_000_000])
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "imagelake-bench-data")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    asked.data.mkdir(parents=True, exist_ok=True)
    made = []
    for rows in asked.sizes:
        if shutil.disk_usage(asked.data).free < 2_000 * rows:
            sys.stderr.write(f"bench: not enough disk for {rows:,} images; left out\n")
            continue
        made.append(measure(asked.data, rows))
        sys.stdout.write("\n".join(report(made[-1])) + "\n")
        sys.stdout.flush()
    if asked.json:
        told = [{**item._asdict(), "stages": [stage._asdict() for stage in item.stages]} for item in made]
        asked.json.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
