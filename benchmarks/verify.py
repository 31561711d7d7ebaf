"""Compare `imagelake verify` with reading the same bytes with pyarrow, and with computing the same hashes.

    .venv/bin/python benchmarks/verify.py [--rows N] [--runs N] [--data DIR] [--lake DIR] [--json]

A lake of generated glyphs with the rules exact, sign and maxpool:4 is built once into a temporary folder (or into DIR,
where it is kept). Then these run in turn, each in its own processes, and their whole time counts:

- `imagelake verify`, on every core and with one worker; its memory is measured in separate runs,
  because measuring takes time;
- pyarrow: all Parquet files that the newest release names, every row group and column, decompressed and dropped: the
  fastest of one process and thread, one process with a thread per core, and one process per core;
- hashes: content hashes, ids, sums and keys of the three rules, of pixels in memory, in one process. Reading them
  is not timed.

The page cache is warm for all. CPU seconds are printed too, because wall times mean little on a shared machine. The
exit code is 1 if verify finds a fault, or a wrong number of images.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from math import prod
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
from figures import Figure, as_values, ratio, seconds, table
from glyph_data import IMAGELAKE, glyphs
from lake_builds import RULES, build, write_recipe
from watched import run

ROWS = 529_114
DATA = Path(tempfile.gettempdir()) / "imagelake-bench-data"
CORES = len(os.sched_getaffinity(0))
READINGS = ("one thread", "threads", "processes")


def main() -> int:
    """Run the benchmark, or the one way that the arguments name."""
    options = _options()
    if options.way:
        return _way(options.way, options.lake)
    with tempfile.TemporaryDirectory(prefix="imagelake-bench-") as folder:
        lake = options.lake or _built(Path(folder), options.data, options.rows)
        figures, wrong = _measure(lake, options.runs)
    bytes_ = sum(size for _, size in _files(lake)) if options.lake else 0
    about = {"rows": options.rows, "runs": options.runs, "cores": CORES, "load_at_end": os.getloadavg()[0]}
    sys.stdout.write(f"{about}{f', {bytes_ / 2**20:,.0f} MiB of Parquet' if bytes_ else ''}\n")
    sys.stdout.write("\n".join([*table(figures), ""]))
    if options.json:
        sys.stdout.write(json.dumps({**about, "figures": [*map(as_values, figures)]}) + "\n")
    sys.stderr.writelines(f"bench: {line}\n" for line in wrong)
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="imagelake verify beside reading the same bytes with pyarrow.")
    parser.add_argument("--rows", type=int, default=ROWS, help="files in the archive (default 529,114)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--data", type=Path, default=DATA, help="where generated archives are kept")
    parser.add_argument("--lake", type=Path, help="a lake that is there, instead of one that is built")
    parser.add_argument("--json", action="store_true", help="print the figures once more, as JSON on the last line")
    parser.add_argument("--way", choices=(*READINGS, "hashes"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _built(folder: Path, data: Path, rows: int) -> Path:
    recipe = write_recipe(folder, [glyphs(data, rows).train])
    build(recipe)
    return folder / "lake"


def _measure(lake: Path, runs: int) -> tuple[list[Figure], list[str]]:
    times: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    wrong: list[str] = []
    for _ in range(runs + 1):
        for name in ("verify", "verify, one worker", *READINGS, "hashes"):
            before = _cpu()
            times.setdefault(name, []).append(_timed(name, lake, wrong))
            cpu.setdefault(name, []).append(_cpu() - before)
    # The first lap warms the page cache.
    laps = {name: values[1:] for name, values in times.items()}
    peak = run(_verify(lake), memory=True).megabytes
    verify, alone, *read, hashes = (seconds("verify", _title(name), values) for name, values in laps.items())
    best = min(read, key=lambda figure: figure.value)
    figures = [verify, alone, Figure("verify", "memory of its processes", (peak,), "MiB"), *read, hashes]
    figures += [
        ratio(verify, best, "verify / best reading", most=4),
        ratio(alone, read[0], "verify, one worker / reading in one thread", most=4),
        ratio(alone, hashes, "verify, one worker / hashes"),
    ]
    spent, needed = (
        seconds("verify", f"{_title(name)}, CPU", cpu[name][1:]) for name in ("verify, one worker", READINGS[0])
    )
    figures += [spent, needed, ratio(spent, needed, "CPU of verify, one worker / of reading in one thread", most=4)]
    return figures, wrong


def _cpu() -> float:
    """Return the CPU seconds of ended commands; those of several workers are not included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _title(name: str) -> str:
    titles = {"verify": "imagelake verify", "verify, one worker": "imagelake verify --workers 1"}
    return titles.get(name) or ("hashes of pixels in memory" if name == "hashes" else f"pyarrow, {name}")


def _verify(lake: Path, *more: str) -> list[str]:
    return [str(IMAGELAKE), "verify", str(lake), "--json", *more]


def _timed(name: str, lake: Path, wrong: list[str]) -> float:
    if not name.startswith("verify"):
        ran = run([sys.executable, __file__, "--way", name, "--lake", str(lake)], memory=False)
        return float(ran.output) if name == "hashes" else ran.seconds
    ran = run(_verify(lake, *(["--workers", "1"] if "one" in name else [])), memory=False)
    checks = json.loads(ran.output)
    images = next(check["checked"] for check in checks if check["name"].startswith("pixels"))
    wrong += [fault["message"] for check in checks for fault in check["faults"]]
    if images != _images(lake):
        wrong.append(f"verify hashed {images} of {_images(lake)} images")
    return ran.seconds


def _images(lake: Path) -> int:
    from lakes import files  # noqa: PLC0415 - loaded when needed

    return sum(part.rows for part in files(str(lake), "images"))


def _files(lake: Path) -> list[tuple[str, int]]:
    """List the Parquet files of the newest release, and of the tables that no release names, with their bytes."""
    from lakes import files  # noqa: PLC0415 - loaded when needed

    from pipeline.lake_handle import Lake  # noqa: PLC0415

    named = {**dict.fromkeys(("releases", "exports")), **Lake(lake).versions}
    return [
        (f"{lake}/{name}/{part.path}", part.size)
        for name, version in named.items()
        for part in files(str(lake), name, version)
    ]


def _way(name: str, lake: Path) -> int:
    names = [file for file, _ in _files(lake)]
    if name == "one thread":
        rows = sum(map(_read, names))
    elif name == "threads":
        with ThreadPoolExecutor(CORES) as threads:
            rows = sum(threads.map(_read, names))
    elif name == "processes":
        # Not fork: threads that read the lake's log still run.
        with ProcessPoolExecutor(CORES, get_context("forkserver")) as pool:
            rows = sum(pool.map(_read, names, chunksize=4))
    else:
        sys.stdout.write(str(_hash(names)))
        return 0
    sys.stdout.write(str(rows))
    return 0


def _read(name: str) -> int:
    with pq.ParquetFile(name) as file:
        return sum(file.read_row_group(at, use_threads=False).num_rows for at in range(file.num_row_groups))


def _hash(names: Sequence[str]) -> float:
    """Hash the pixels of all images, one row group at a time; return the seconds."""
    from pipeline.arrow_columns import from_binary  # noqa: PLC0415
    from pipeline.dedup.rules import parse_rule  # noqa: PLC0415
    from pipeline.hashing import content_hashes, image_ids, pixel_sums  # noqa: PLC0415

    rules = [parse_rule(rule) for rule in RULES]
    spent = 0.0
    for name in (name for name in names if "/images/" in name):
        with pq.ParquetFile(name) as file:
            for at in range(file.num_row_groups):
                rows = file.read_row_group(at).combine_chunks()
                shape = [rows[column][0].as_py() for column in ("height", "width", "channels")]
                pixels = from_binary(rows["pixels"].chunk(0), prod(shape)).reshape(len(rows), *shape)
                paths = rows["path"].to_pylist()
                started = time.perf_counter()
                content_hashes(pixels)
                image_ids("glyphs", "train", paths)
                pixel_sums(pixels)
                for rule in rules:
                    rule.index(pixels)
                spent += time.perf_counter() - started
    return spent


if __name__ == "__main__":
    sys.exit(main())
