"""Four ways from one tar.gz to rows, each in its own processes, and a comparison of their results: for `ingest.py`."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import polars as pl
from figures import Figure, ratio, seconds
from glyph_data import Glyphs
from lake_builds import build, contents, write_recipe
from watched import run

HERE = Path(__file__).parent
COMMITTED, WHOLE, EXTRACT, CPU = "committed", "whole", "extract", "cpu"


class Lap(NamedTuple):
    """One way, once.

    Attributes:
        seconds: by step.
        images: how many it read.
        rejects: the files it could not read, as label/name, sorted.
        hashes: (path, content_hash) of every image; None if the way computes no hashes.
    """

    seconds: dict[str, float]
    images: int
    rejects: list[str]
    hashes: pl.DataFrame | None = None


def imagelake(archive: Path, work: Path) -> Lap:
    """Build a lake from the command line."""
    recipe = write_recipe(work, [archive])
    built = build(recipe)
    hashes, rejects = contents(recipe)
    return Lap({COMMITTED: built.committed, WHOLE: built.seconds}, len(hashes), _short(rejects), hashes)


def yardstick(archive: Path, work: Path) -> Lap:
    """Run the plain script."""
    whole, told = _script("yardstick.py", archive, work)
    return Lap({WHOLE: whole, CPU: sum(told["cpu"])}, told["images"], _short(told["rejects"]), _hashes(work))


def pillow_pool(archive: Path, work: Path) -> Lap:
    """Extract, then decode with Pillow in two processes."""
    whole, told = _script("pillow_pool.py", archive, work)
    return Lap({WHOLE: whole, **told["seconds"]}, told["images"], _short(told["rejects"]), _hashes(work / "tables"))


def notebook(archive: Path, work: Path) -> Lap:
    """Extract, then decode with Pillow file by file and pickle; its imports do not count."""
    _, told = _script("notebook_read.py", archive, work)
    parts = told["seconds"]
    return Lap({WHOLE: sum(parts.values()), **parts}, told["images"], _short(told["rejects"]))


Way = Callable[[Path, Path], Lap]
FAST: tuple[Way, ...] = (imagelake, yardstick)
SLOW: tuple[Way, ...] = (pillow_pool, notebook)


def race(drawn: Glyphs, runs: int, slow_runs: int, work: Path) -> tuple[list[Figure], list[str]]:
    """Run the fast ways in turn, then the slow ones in turn; return the figures and what differed.

    The files that the slow ways extract stay in `work`. The caller deletes them after all timing: for five minutes
    after a deletion, ext4 skips the inodes of deleted files one by one, and extracting takes many times as long.
    """
    laps: dict[str, list[dict[str, float]]] = {way.__name__: [] for way in (*FAST, *SLOW)}
    differences: list[str] = []
    first: Lap | None = None
    for way in [*FAST * runs, *SLOW * slow_runs]:
        folder = Path(mkdtemp(dir=work))
        lap = way(drawn.train, folder)
        if way in FAST:
            shutil.rmtree(folder)
        sys.stderr.write(f"bench: {drawn.rows:,} by {way.__name__}: {lap.seconds[WHOLE]:.2f} s\n")
        first = first or lap
        laps[way.__name__].append(lap.seconds)
        differences += [f"{way.__name__}: {line}" for line in _differences(lap, first, drawn.rows)]
    return _figures(laps, drawn.rows), differences


def _figures(laps: dict[str, list[dict[str, float]]], rows: int) -> list[Figure]:
    def timed(way: Way, of: str, name: str) -> Figure:
        return seconds("main", name, [lap[of] for lap in laps[way.__name__]])

    committed = timed(imagelake, COMMITTED, "imagelake, to committed images and index")
    whole = timed(imagelake, WHOLE, "imagelake, whole command (clusters, report)")
    plain, cpu = (
        timed(yardstick, WHOLE, "yardstick, whole process"),
        timed(yardstick, CPU, "  CPU of that, all processes"),
    )
    pool = timed(pillow_pool, WHOLE, "Pillow pool, with extraction")
    classic = timed(notebook, WHOLE, "notebook's way, with extraction")
    extracts = [
        timed(way, EXTRACT, f"  extraction of that, by {by}")
        for way, by in ((pillow_pool, "tar"), (notebook, "tarfile"))
    ]
    speeds = [_speed(figure, rows) for figure in (committed, whole, plain, pool, classic)]
    ratios = [
        line
        for ours, name in ((committed, "committed images and index"), (whole, "whole command"))
        for line in (
            ratio(ours, plain, f"{name} / yardstick", most=1.5),
            ratio(pool, ours, f"Pillow pool / {name}", least=5),
            ratio(classic, ours, f"notebook's way / {name}", least=12),
        )
    ]
    return [committed, whole, plain, cpu, pool, extracts[0], classic, extracts[1], *speeds, *ratios]


def _speed(figure: Figure, rows: int) -> Figure:
    return Figure("main", f"speed: {figure.name}", tuple(rows / value for value in figure.values), "files/s")


def _differences(lap: Lap, first: Lap, rows: int) -> list[str]:
    """List the results of a lap that differ from those of the first, or from the truth."""
    found = []
    if lap.images + len(lap.rejects) != rows:
        found.append(f"{lap.images} images and {len(lap.rejects)} rejects of {rows} files")
    if lap.rejects != first.rejects:
        odd = sorted(set(lap.rejects) ^ set(first.rejects))
        found.append(f"{len(odd)} files are rejects by one way only, such as {odd[:3]}")
    if lap.hashes is not None and first.hashes is not None:
        counted, wanted = (frame.group_by("path", "content_hash").len() for frame in (lap.hashes, first.hashes))
        odd_rows = pl.concat(
            [counted.join(wanted, on=counted.columns, how="anti"), wanted.join(counted, on=counted.columns, how="anti")]
        )
        if len(odd_rows):
            found.append(
                f"{len(odd_rows)} of (path, content_hash) are of one way only, such as {odd_rows['path'][:3].to_list()}"
            )
    return found


def _script(name: str, archive: Path, work: Path) -> tuple[float, dict[str, Any]]:
    os.sync()
    ran = run([sys.executable, str(HERE / name), str(archive), str(work)], memory=False)
    return ran.seconds, json.loads(ran.output)


def _hashes(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "*.parquet", columns=["path", "content_hash"])


def _short(paths: Sequence[str]) -> list[str]:
    return sorted("/".join(path.split("/")[-2:]) for path in paths)
