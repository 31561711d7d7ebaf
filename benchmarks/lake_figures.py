"""Builds of imagelake for `ingest.py`: more images, nothing to do, and one more source."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from figures import Figure, ratio, seconds
from glyph_data import Glyphs
from lake_builds import Build, build, command, write_recipe
from watched import run

GIBIBYTE = 1024.0  # MiB

_IMPORTS = """
import sys
for name in sys.argv[1:]:
    try:
        __import__(name)
    except ImportError:  # the command tried as well, and went on
        pass
"""


def scale(sizes: Sequence[Glyphs], runs: int) -> tuple[list[Figure], list[str]]:
    """Build lakes of several sizes in turn, then each again to measure memory."""
    builds = [[_fresh(drawn) for drawn in sizes] for _ in range(runs)]
    peaks = [
        Figure(
            "scale",
            f"{drawn.rows:,} files, peak memory of all processes",
            (_fresh(drawn, memory=True).megabytes,),
            "MiB",
        )
        for drawn in sizes
    ]
    wholes, figures, differences = [], [], []
    for at, drawn in enumerate(sizes):
        of = [lap[at] for lap in builds]
        whole = seconds("scale", f"{drawn.rows:,} files, whole command", [lap.seconds for lap in of])
        wholes.append(whole)
        figures += [
            whole,
            seconds("scale", f"{drawn.rows:,} files, to committed images and index", [lap.committed for lap in of]),
            Figure(
                "scale",
                f"{drawn.rows:,} files, speed of the whole command",
                tuple(drawn.rows / value for value in whole.values),
                "files/s",
            ),
            peaks[at],
        ]
        differences += [f"{lap.files} of {drawn.rows} files are in the lake" for lap in of if lap.files != drawn.rows]
    return [*figures, *_ratios(sizes, wholes, peaks)], differences


def noop(recipe: Path, runs: int) -> tuple[list[Figure], list[str]]:
    """Build a finished lake again; then time the imports of that build in a separate process."""
    again = [build(recipe) for _ in range(runs)]
    names = _imported(recipe)
    alone = [run([sys.executable, "-c", _IMPORTS, *names], memory=False).seconds for _ in range(runs)]
    whole = seconds("noop", "the same build again, whole command", [lap.seconds for lap in again], most=1.0)
    imports = seconds("noop", f"  python that only imports its {len(names):,} modules", alone)
    differences = [f"a build with nothing to do did {lap.output['done']}" for lap in again if lap.output["done"]]
    return [whole, imports, ratio(imports, whole, "imports / whole command", least=0.5)], differences


def add(recipe: Path, drawn: Glyphs, runs: int) -> tuple[list[Figure], list[str]]:
    """Add the test part to copies of the lake that has the train part, and build it into an empty lake, in turn."""
    alone, added = [], []
    for _ in range(runs):
        with TemporaryDirectory(prefix="imagelake-bench-") as folder:
            alone.append(build(write_recipe(Path(folder, "alone"), [drawn.test])))
            shutil.copytree(recipe.parent, Path(folder, "both"))
            added.append(build(write_recipe(Path(folder, "both"), [drawn.train, drawn.test])))
    both = seconds("add", f"{alone[0].files:,} files of test added to {drawn.rows:,}", [lap.seconds for lap in added])
    empty = seconds("add", "the same files into an empty lake", [lap.seconds for lap in alone])
    differences = [
        line for one, two in zip(alone, added, strict=True) for line in _wrong_addition(drawn.rows, one, two)
    ]
    return [both, empty, ratio(both, empty, "added / into an empty lake", most=1.5)], differences


def _fresh(drawn: Glyphs, *, memory: bool = False) -> Build:
    with TemporaryDirectory(prefix="imagelake-bench-") as folder:
        built = build(write_recipe(Path(folder), [drawn.train]), memory=memory)
    sys.stderr.write(f"bench: a lake of {drawn.rows:,}: {built.seconds:.2f} s\n")
    return built


def _ratios(sizes: Sequence[Glyphs], wholes: Sequence[Figure], peaks: Sequence[Figure]) -> list[Figure]:
    small, middle, large = (
        Figure("scale", whole.name, (whole.value / drawn.rows,), "s")
        for drawn, whole in zip(sizes, wholes, strict=True)
    )
    few, some, many = (f"{drawn.rows:,}" for drawn in sizes)
    return [
        ratio(middle, small, f"seconds a file, {some} / {few}"),
        ratio(large, middle, f"seconds a file, {many} / {some}"),
        Figure("scale", f"peak memory, {some} files", peaks[1].values, "MiB", most=GIBIBYTE),
        ratio(peaks[2], peaks[1], f"peak memory, {many} / {some}", most=1.15),
    ]


def _imported(recipe: Path) -> list[str]:
    """List every module that a build with nothing to do imports, in the order in which their import ends."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", *command(recipe)], check=True, capture_output=True, text=True
    )
    lines = [line for line in ran.stderr.splitlines() if line.startswith("import time:")]
    return [line.split("|")[-1].strip() for line in lines[1:]]  # the first one is the heading


def _wrong_addition(rows: int, alone: Build, both: Build) -> list[str]:
    read = [item for item in both.output["done"] if item["stage"] == "ingest"]
    wrong = [f"adding one source read {len(read)}: {read}"] if len(read) != 1 else []
    if both.files != rows + alone.files:
        wrong.append(f"{both.files} files in the lake, where {rows} and {alone.files} were put")
    return wrong
