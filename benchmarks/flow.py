"""Compare a whole build with the notebook's way, step by step. Both run in turn, each in its own processes.

    .venv/bin/python benchmarks/flow.py [--data DIR] [--runs N] [--json]

The notebook's way (`notebook.py`) extracts, decodes file by file, pickles per class, finds overlap by MD5 and by the
dense ratio, trains and plots. imagelake's steps (`steps.py`) are those of a build. Both read notMNIST_small as test and
a sample of notMNIST_large as train; if these are missing, generated glyphs. Both must find the same; otherwise
the script prints the differences and the exit code is 1. Figures are medians over the runs. The whole includes imports;
the steps do not.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from watched import Ran, run

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared" / "data"
ARCHIVES = ("notMNIST_large_sample.tar.gz", "notMNIST_small.tar.gz")
IMAGELAKE = Path(sys.executable).with_name("imagelake")
GLYPHS = 4_000
WAYS = ("notebook", "imagelake")

# Rows of the table, and what each way does there.
STEPS = {
    "read": ("extract, Pillow, pickle per class", "decode, hash, commit"),
    "overlap, exact": ("MD5 set", "clusters of exact"),
    "overlap, sign": ("dense ratio >= 1", "clusters of sign"),
    "splits": ("merge, shuffle, pickle", "draw, sanitize, commit"),
    "arrays": ("load the pickle", "read three roles"),
    "baselines": ("fit and score", "read the arrays again, fit and score"),
    "release": ("none", "make the build visible"),
    "report": ("sample pictures as PNG", "the whole report as HTML"),
}
WHOLE, AGAIN, MEMORY = "whole, from the command line", "again, nothing changed", "peak memory, MB"

RECIPE = """
[lake]
root = "lake"
[[source]]
uri = {train}
dataset = "bench"
split = "train"
[[source]]
uri = {test}
dataset = "bench"
split = "test"
[decode]
size = [28, 28]
[dedup]
rules = ["exact", "sign"]
[[split]]
name = "main"
seed = 133
sanitize = "sign"
train = {{ from = "train" }}
valid = {{ from = "train", size = 300 }}
test = {{ from = "test" }}
[[baseline]]
model = "logistic"
split = "main"
train_sizes = [50, 100, 1000, "all"]
"""


class Lap(NamedTuple):
    """One way, once: seconds by step, what was found, accuracies by train size, and the figures of the whole."""

    steps: dict[str, float]
    found: dict[str, Any]
    accuracy: dict[str, list[float]]
    whole: dict[str, float]


class Row(NamedTuple):
    """One line of the table; `ratio` is the notebook's figure over imagelake's."""

    step: str
    notebook: float
    imagelake: float
    ratio: float


def main() -> int:
    """Run the benchmark; return 1 if the two ways found different things."""
    options = _options()
    notebooks: list[Lap] = []
    lakes: list[Lap] = []
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as folder:
        archives, data = _archives(options.data, Path(folder))
        for number in range(options.runs):
            notebooks.append(_notebook(archives, Path(folder, f"notebook-{number}")))
            lakes.append(_imagelake(archives, Path(folder, f"imagelake-{number}")))
    rows = _rows(notebooks, lakes)
    differences = _differences(notebooks, lakes)
    if options.json:
        accuracy = dict(zip(WAYS, (notebooks[0].accuracy, lakes[0].accuracy), strict=True))
        laps = {
            way: [{**lap.steps, **lap.whole} for lap in of] for way, of in zip(WAYS, (notebooks, lakes), strict=True)
        }
        values = {"data": data, "runs": options.runs, "rows": [row._asdict() for row in rows], "laps": laps}
        json.dump({**values, "found": lakes[0].found, "accuracy": accuracy, "differences": differences}, sys.stdout)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join([f"{data}; medians of {options.runs} runs", "", *_table(rows, lakes[0].found), ""]))
    sys.stderr.writelines(f"bench: the two ways differ: {line}\n" for line in differences)
    return 1 if differences else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The whole flow beside the notebook's way, as a ratio per step.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the notMNIST archives")
    parser.add_argument("--runs", type=int, default=3, help="how often each way runs, in turn (default 3)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def _archives(folder: Path, work: Path) -> tuple[Sequence[Path], str]:
    found = [folder / name for name in ARCHIVES]
    cores = f"{len(os.sched_getaffinity(0))} cores"
    if all(file.exists() for file in found):
        return found, f"train {ARCHIVES[0]}, test {ARCHIVES[1]}; {cores}"
    run([str(IMAGELAKE), "synth", str(work / "glyphs"), "--rows", str(GLYPHS)])
    told = f"{GLYPHS:,} generated glyphs, because {folder} does not hold {' and '.join(ARCHIVES)}; {cores}"
    return [work / "glyphs" / "train.tar.gz", work / "glyphs" / "test.tar.gz"], told


def _notebook(archives: Sequence[Path], work: Path) -> Lap:
    """Run the notebook's way from the start, and again with its files in place."""
    work.mkdir()
    command = [sys.executable, str(HERE / "notebook.py"), *map(str, archives), str(work)]
    first, again = run(command), run(command)
    return Lap(**json.loads(first.output), whole=_whole(first, again))


def _imagelake(archives: Sequence[Path], work: Path) -> Lap:
    """Run imagelake's steps, then build another lake from the command line, and build it again."""
    train, test = (json.dumps(str(archive)) for archive in archives)
    for name in ("steps", "build"):
        (work / name).mkdir(parents=True)
        (work / name / "recipe.toml").write_text(RECIPE.format(train=train, test=test), encoding="utf-8")
    # Not as a script: worker processes import a script again, with everything that it imports.
    code = "import steps; steps.main()"
    steps = run([sys.executable, "-c", code, str(work / "steps" / "recipe.toml")], HERE)
    command = [str(IMAGELAKE), "build", str(work / "build" / "recipe.toml")]
    first, again = run(command), run(command)
    return Lap(**json.loads(steps.output), whole=_whole(first, again))


def _whole(first: Ran, again: Ran) -> dict[str, float]:
    return {WHOLE: first.seconds, AGAIN: again.seconds, MEMORY: first.megabytes}


def _rows(notebooks: Sequence[Lap], lakes: Sequence[Lap]) -> list[Row]:
    rows = []
    for step in [*STEPS, *lakes[0].whole]:
        ours, theirs = (
            median({**lap.steps, **lap.whole}.get(step, 0.0) for lap in laps) for laps in (notebooks, lakes)
        )
        rows.append(Row(step, ours, theirs, ours / theirs))
    return rows


def _differences(notebooks: Sequence[Lap], lakes: Sequence[Lap]) -> list[str]:
    """List the results of a run that differ from those of the first."""
    wanted = notebooks[0].found
    return [
        f"{name}: {wanted[name]} by the notebook's way, {lap.found[name]} in run {number} of {way}"
        for way, laps in (("the notebook's way", notebooks), ("imagelake", lakes))
        for number, lap in enumerate(laps, start=1)
        for name in wanted
        if lap.found[name] != wanted[name]
    ]


def _table(rows: Sequence[Row], found: dict[str, Any]) -> list[str]:
    lines = [f"{'seconds':<30}{'notebook':>10}{'imagelake':>11}{'ratio':>8}   what each does"]
    for row in rows:
        digits = 0 if row.step == MEMORY else 2
        ratio = f"{row.ratio:.1f}x" if row.notebook else ""
        does = " | ".join(STEPS.get(row.step, ()))
        line = f"{row.step:<30}{row.notebook:>10,.{digits}f}{row.imagelake:>11,.{digits}f}{ratio:>8}   {does}"
        lines.append(line.rstrip())
    train, test = found["images"]
    counts = [f"{found[name]:,} {name}" for name in found if name.startswith("test images")]
    both = [f"{train:,} train and {test:,} test images", f"{len(found['rejects'])} rejects", *counts]
    return [*lines, "", f"Found in every run: {', '.join(both)}."]


if __name__ == "__main__":
    sys.exit(main())
