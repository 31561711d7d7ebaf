"""What a change of a folder costs: builds of the command line after some files more, one file more and nothing.

    python benchmarks/changes.py FOLDER [--images 40000] [--more 400]

Random gray pictures of 28 x 28 lie in ten class folders, under the rules exact, sign, cosine:0.95 and hamming:6. The
alternative is a build of the same files from nothing, in the same run. Prints for each build the seconds of wall time
and of processor time of all its processes, the files that it decoded, and the new files of the lake without the report
and without marks of writers. Checks that the lake has the rows of one that was built from nothing.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from glyph_data import IMAGELAKE
from PIL import Image

from pipeline.lake_handle import Lake

_RECIPE = """
[lake]
root = "{lake}"
[dedup]
rules = ["exact", "sign", "cosine:0.95", "hamming:6"]
[[source]]
uri = "set"
dataset = "d"
[[split]]
name = "main"
sanitize = ["sign"]
[split.train]
from = "train"
share = 0.8
[split.test]
from = "train"
share = 0.2
"""
_CLASSES = "ABCDEFGHIJ"
_TABLES = ("images", "index", "rejects", "pairs", "clusters", "splits")


class Cost(NamedTuple):
    """What a build took.

    Attributes:
        wall: seconds of wall time.
        processor: seconds of processor time, of all its processes.
        read: files that it decoded.
        files: new files of the lake.
    """

    wall: float
    processor: float
    read: int
    files: int


def main() -> None:
    """Run the scenario and print one line a build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--more", type=int, default=400)
    wanted = parser.parse_args()
    base: Path = wanted.folder
    for lake in ("lake", "fresh"):
        shutil.rmtree(base / lake, ignore_errors=True)
    for file in base.glob("set/*/*.png"):
        if int(file.stem) >= wanted.images:
            file.unlink()
    _write(base / "set", range(wanted.images))
    costs = {"from nothing": build(base, "lake")}
    _write(base / "set", range(wanted.images, wanted.images + wanted.more))
    costs[f"{wanted.more} files more"] = build(base, "lake")
    costs["with these, from nothing"] = build(base, "fresh")
    _write(base / "set", range(wanted.images + wanted.more, wanted.images + wanted.more + 1))
    costs["1 file more"] = build(base, "lake")
    costs["nothing new"] = build(base, "lake")
    shutil.rmtree(base / "fresh")
    costs["all, from nothing"] = build(base, "fresh")
    for name, cost in costs.items():
        sys.stdout.write(json.dumps({"build": name, **cost._asdict()}) + "\n")
    same = [_rows(base / "lake", name).equals(_rows(base / "fresh", name)) for name in _TABLES]
    sys.stdout.write(json.dumps({"equal": all(same)}) + "\n")


def build(base: Path, lake: str) -> Cost:
    """Build a lake of the folder `set` by the command line."""
    recipe = base / f"{lake}.toml"
    recipe.write_text(_RECIPE.format(lake=lake), encoding="utf-8")
    before = _files(base / lake)
    os.sync()
    used, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [str(IMAGELAKE), "build", str(recipe), "--json"]
    # An installed package has its bytecode; here the first build writes it.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    made: dict[str, Any] = json.loads(output)
    return Cost(round(wall, 2), round(processor, 2), made["read"], len(_files(base / lake) - before))


def _write(folder: Path, numbers: range) -> None:
    """Write a random picture for each number, the same for the same number; those of an earlier run are kept."""
    for number in numbers:
        file = folder / _CLASSES[number % len(_CLASSES)] / f"{number:06}.png"
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(file)


def _files(lake: Path) -> set[str]:
    """List the files of the tables of a lake, without the report and the marks of writers beside them."""
    return {str(file) for file in lake.glob("[a-z]*/**/*") if file.is_file()}


def _rows(lake: Path, table: str) -> Any:
    rows = Lake(str(lake)).scan(table).collect().drop("shard", strict=False)
    return rows.sort(rows.columns)


if __name__ == "__main__":
    main()
