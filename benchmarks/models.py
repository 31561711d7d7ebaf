"""Compare every model with the same model in a notebook: seconds from stored data to the scored model, and accuracy.

    .venv/bin/python benchmarks/models.py [--only MODEL] [--size N] [--data DIR] [--json]

The notebook's way (`model_plain.py`) loads a pickle of arrays, scales all of it and calls scikit-learn, numpy or torch
itself. imagelake (`model_lake.py`) opens a lake that was built before, reads its arrays and fits by
`pipeline.baselines`, as a build does. Both have the same pictures in the same order, on real MNIST, or on generated
glyphs if that is missing. Each runs in its own process, one after the other; imports are not timed.
The svm's C is given. Seconds are of single runs: all of MNIST takes a quarter of an hour.
"""

import argparse
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from model_choice import IMPORTS
from watched import run

from pipeline.lake_handle import Lake

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared" / "data" / "mnist"
IMAGELAKE = Path(sys.executable).with_name("imagelake")
GLYPHS = 20_000

RECIPE = """
[lake]
root = "lake"
{sources}
[decode]
size = [28, 28]
[[split]]
name = "main"
seed = 0
train = {{ from = "train", size = {size} }}
test = {{ from = "test" }}
"""
DIGITS = """
[[source]]
uri = {images}
labels = {labels}
format = "idx"
dataset = "bench"
split = "{split}"
"""
LETTERS = """
[[source]]
uri = {images}
dataset = "bench"
split = "{split}"
"""


class Side(NamedTuple):
    """One model, one way: seconds until the arrays were there, seconds in all, accuracy on the test images."""

    load: float
    seconds: float
    accuracy: float


class Row(NamedTuple):
    """One model, both ways."""

    model: str
    notebook: Side
    imagelake: Side

    @property
    def ratio(self) -> float:
        """imagelake's seconds divided by the notebook's."""
        return self.imagelake.seconds / self.notebook.seconds


def main() -> None:
    """Run the benchmark."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as folder:
        work = Path(folder)
        data = _build(options.data, work, options.size or "all")
        data = f"{data}, {_pickle(work):,} to train on; {len(os.sched_getaffinity(0))} cores"
        rows = [_row(model, work) for model in options.only or IMPORTS if _can(model)]
    if options.json:
        values = [{"model": row.model, "ratio": row.ratio, **_sides(row)} for row in rows]
        json.dump({"data": data, "rows": values}, sys.stdout)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join([data, "", *_table(rows), ""]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Every model beside itself in a notebook.")
    parser.add_argument("--only", action="append", choices=list(IMPORTS), help="this model; may be given again")
    parser.add_argument("--size", type=int, help="training images, shared out over the classes (default all)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the four MNIST files")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def _can(model: str) -> bool:
    there = find_spec(IMPORTS[model]) is not None
    if not there:
        sys.stderr.write(f"bench: {model} is left out: {IMPORTS[model]} is not installed\n")
    return there


def _build(folder: Path, work: Path, size: int | str) -> str:
    """Build the lake; return a description of its content."""
    if folder.exists():
        told = "MNIST"
        sources = [
            DIGITS.format(
                images=json.dumps(str(folder / f"{stem}-images-idx3-ubyte.gz")),
                labels=json.dumps(str(folder / f"{stem}-labels-idx1-ubyte.gz")),
                split=split,
            )
            for split, stem in (("train", "train"), ("test", "t10k"))
        ]
    else:
        told = f"generated glyphs, because {folder} is not there"
        run([str(IMAGELAKE), "synth", str(work / "glyphs"), "--rows", str(GLYPHS)], memory=False)
        archives = {split: work / "glyphs" / f"{split}.tar.gz" for split in ("train", "test")}
        sources = [LETTERS.format(images=json.dumps(str(file)), split=split) for split, file in archives.items()]
    (work / "recipe.toml").write_text(RECIPE.format(sources="".join(sources), size=json.dumps(size)), encoding="utf-8")
    run([str(IMAGELAKE), "build", str(work / "recipe.toml")], memory=False)
    return told


def _pickle(work: Path) -> int:
    """Pickle the input of the notebook, in the order of the lake; return the number of training images."""
    lake = Lake(work / "lake")
    train, test = (lake.arrays("main", role) for role in ("train", "test"))
    with (work / "arrays.pickle").open("wb") as stream:
        pickle.dump((train, test), stream, pickle.HIGHEST_PROTOCOL)
    return len(train[1])


def _row(model: str, work: Path) -> Row:
    sys.stderr.write(f"bench: {model}\n")
    plain, lake = (
        run([sys.executable, str(HERE / script), model, str(work)], HERE, memory=False)
        for script in ("model_plain.py", "model_lake.py")
    )
    return Row(model, Side(**json.loads(plain.output)), Side(**json.loads(lake.output)))


def _sides(row: Row) -> dict[str, Any]:
    return {"notebook": row.notebook._asdict(), "imagelake": row.imagelake._asdict()}


def _table(rows: Sequence[Row]) -> list[str]:
    heads = ("notebook", "imagelake", "ratio", "load", "load", "accuracy", "accuracy")
    lines = [f"{'seconds':<14}" + "".join(f"{head:>11}" for head in heads)]
    for row in rows:
        ours, theirs = row.imagelake, row.notebook
        figures = (theirs.seconds, ours.seconds, row.ratio, theirs.load, ours.load)
        shares = "".join(f"{side.accuracy:>11.4f}" for side in (theirs, ours))
        lines.append(f"{row.model:<14}" + "".join(f"{figure:>11.2f}" for figure in figures) + shares)
    return [*lines, "", "ratio: imagelake over notebook; of each pair the notebook's figure comes first."]


if __name__ == "__main__":
    main()
