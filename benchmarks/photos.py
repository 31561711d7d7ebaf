"""Photographs: ingest with originals at 224 x 224, export and feed, each against a bare script.

    python benchmarks/photos.py                2,000 photographs of 1,600 x 1,200 and 300 of 4,000 x 3,000
    python benchmarks/photos.py --count 0.1    a tenth of both

Each way reads the same folder, and they take turns. The bare script reads a file, decodes it with simplejpeg at reduced
scale, makes the same resize, hashes the pixels with xxh3-128, and writes bytes and pixels to zstd Parquet. The Pillow
pool does the same at full scale. Times are of whole commands with their imports; the memory is that of all processes
of a command, each counted with its share, measured in a run of its own.

The export of original files takes turns with `cp -r`, the feed of original files with a loop over the same files that
decodes and resizes them in two threads. The first batch of the feed counts. Other libraries, where they are installed,
do the same once (`photos_others.py`).
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import photos_others
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from PIL import Image
from watched import run
from xxhash import xxh3_128_digest

from pipeline.export import export
from pipeline.lake_handle import Lake

SIDE = 224
CHUNK = 50
SETS = {"1,600 x 1,200": (2_000, 1_600, 1_200), "4,000 x 3,000": (300, 4_000, 3_000)}
# Height as a share of that of the set, so that the aspect varies.
ASPECTS = (1.0, 0.75, 0.89, 1.0)
SCHEMA = pa.schema([("path", pa.string()), ("bytes", pa.binary()), ("pixels", pa.binary()), ("hash", pa.binary())])
RECIPE = """lake.root = "lake"
source = [{{ uri = "{folder}", dataset = "photos" }}]
decode = {{ size = [224, 224], mode = "RGB", originals = "keep" }}
split = [{{ name = "main", train = {{ from = "train" }} }}]
"""


def photograph(number: int, width: int, height: int) -> bytes:
    """Make a JPEG of smooth patches with some noise; every second one is upright."""
    chance = np.random.default_rng(number)
    height = round(height * ASPECTS[number % len(ASPECTS)])
    size = (height, width) if number % 2 else (width, height)
    coarse = chance.integers(0, 256, (size[1] // 40, size[0] // 40, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    # One tile of noise, repeated: random numbers for every pixel would take longer than encoding them.
    tile = chance.integers(-12, 13, (256, 256, 1), dtype=np.int16)
    noise = np.tile(tile, (-(-image.shape[0] // 256), -(-image.shape[1] // 256), 1))[: image.shape[0], : image.shape[1]]
    return simplejpeg.encode_jpeg(np.clip(image + noise, 0, 255).astype(np.uint8), 88)  # type: ignore[no-any-return]


def make(folder: Path, count: int, width: int, height: int) -> None:
    """Write photographs to ten class folders."""
    for number in range(count):
        file = folder / f"class{number % 10}" / f"IMG_{number:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photograph(number, width, height))


def bare(data: bytes) -> Image.Image:
    """Decode at the scale that leaves twice the size."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    scale = next((n for n in (8, 4, 2) if min(-(-height // n), -(-width // n)) >= 2 * SIDE), 1)
    return Image.fromarray(simplejpeg.decode_jpeg(data, min_height=-(-height // scale), min_width=-(-width // scale)))


def pillow(data: bytes) -> Image.Image:
    """Decode at full scale."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def write(way: str, out: Path, chunk: tuple[int, list[str]]) -> None:
    """Decode a chunk of files and write them to a Parquet file; in a worker."""
    decode = {"bare": bare, "pillow": pillow}[way]
    rows: list[tuple[str, bytes, bytes, bytes]] = []
    for name in chunk[1]:
        data = Path(name).read_bytes()
        pixels = np.asarray(decode(data).resize((SIDE, SIDE), Image.Resampling.BILINEAR)).tobytes()
        rows.append((name, data, pixels, xxh3_128_digest(pixels)))
    table = pa.Table.from_pydict(dict(zip(SCHEMA.names, zip(*rows, strict=True), strict=True)), SCHEMA)
    pq.write_table(table, out / f"{chunk[0]:05}.parquet", compression="zstd", compression_level=1, use_dictionary=False)


def pool(way: str, folder: Path, out: Path) -> None:
    """Read a folder in two processes."""
    out.mkdir()
    files = sorted(entry.path for label in os.scandir(folder) for entry in os.scandir(label.path))
    chunks = [(start, files[start : start + CHUNK]) for start in range(0, len(files), CHUNK)]
    with get_context("fork").Pool(2) as workers:
        for _ in workers.imap_unordered(partial(write, way, out), chunks):
            pass


def command(way: str, folder: Path, work: Path) -> list[str]:
    """Return the command of a way; its output goes to a new folder."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    if way in photos_others.INGESTS:
        return [sys.executable, photos_others.__file__, way, str(folder), str(work / "tables")]
    if way != "imagelake":
        return [sys.executable, __file__, "--way", way, str(folder), str(work / "tables")]
    (work / "photos.toml").write_text(RECIPE.format(folder=folder))
    cli = "from pipeline.cli import main; main()"
    return [sys.executable, "-c", cli, "build", str(work / "photos.toml"), "--workers", "2"]


def size_of(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def footers(lake: Path, table: str) -> float:
    """Return the bytes of footers for each row of a table."""
    files = list((lake / table).rglob("*.parquet"))
    sizes = [int.from_bytes(file.read_bytes()[-8:-4], "little") for file in files]
    rows: int = sum(pq.read_metadata(file).num_rows for file in files)
    return sum(sizes) / max(1, rows)


def beside(others: dict[str, float]) -> str:
    """Return the times of other libraries as text."""
    return "others: " + (", ".join(f"{way} {seconds:.2f} s" for way, seconds in others.items()) or "none is installed")


def seconds_of(run_once: Callable[[], object]) -> float:
    """Return the time of a call."""
    started = time.perf_counter()
    run_once()
    return time.perf_counter() - started


def measure_outputs(folder: Path, work: Path, rounds: int) -> None:
    """Print the figures of export and feed; the lake is built."""
    files = sorted(folder.rglob("*.jpg"))

    def copy() -> None:
        subprocess.run(["cp", "-r", str(folder), str(work / "copy")], check=True)

    def write_out() -> None:
        export(str(work / "lake"), "main", work / "out", "imagefolder", pinned=False)

    def plain_epoch() -> None:
        def one(file: Path) -> np.ndarray[Any, Any]:
            return np.asarray(bare(file.read_bytes()).resize((SIDE, SIDE), Image.Resampling.BILINEAR))

        with ThreadPoolExecutor(2) as threads:
            for start in range(0, len(files), 32):
                np.stack(list(threads.map(one, files[start : start + 32])))

    def epoch() -> None:
        # A feed of its own each time: a small set stays in its memory.
        feed = Lake(work / "lake").feed(
            "main", "train", batch_size=32, size=(SIDE, SIDE), decode="original", buffer_bytes=2**26
        )
        images = sum(len(labels) for _, labels in feed.epoch(0))
        if images != len(files):
            raise SystemExit(f"bench: the feed returned {images} of {len(files)} images")

    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for call in (copy, write_out, plain_epoch, epoch):
            seconds.setdefault(call.__name__, []).append(seconds_of(call))
        shutil.rmtree(work / "copy")
        shutil.rmtree(work / "out")
    copied, exported, plain, fed = (median(values) for values in seconds.values())
    others = {way: seconds_of(partial(read, folder)) for way, read in photos_others.FEEDS.items()}
    lines = [
        f"  export {exported:.2f} s, cp -r {copied:.2f} s: {copied / exported:.2f} times its speed (aim 0.5)",
        f"  feed {fed:.2f} s, loop in two threads {plain:.2f} s: {plain / fed:.2f} times its speed (aim 0.8)",
        f"  {beside(others)}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def measure(title: str, folder: Path, work: Path, rounds: int) -> None:
    """Print the figures of one set."""
    ways = ("imagelake", "bare", "pillow")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            seconds[way].append(run(command(way, folder, work), memory=False).seconds)
    ours, plain, full = (median(seconds[way]) for way in ways)
    others = {way: run(command(way, folder, work), memory=False).seconds for way in photos_others.INGESTS}
    memory = run(command("imagelake", folder, work)).megabytes
    lake, source = work / "lake", size_of(folder)
    pixels = size_of(lake / "images")
    lines = [
        f"{title}: {sum(1 for _ in folder.rglob('*.jpg')):,} photographs, {source / 1e6:,.0f} MB",
        f"  imagelake {ours:.2f} s, bare script {plain:.2f} s, Pillow pool at full scale {full:.2f} s",
        f"  {ours / plain:.2f} times the bare script (aim 1.3); {full / ours:.2f} times as fast as the pool (aim 3)",
        f"  {beside(others)}",
        f"  memory of all processes {memory:,.0f} MB (aim 700)",
        f"  lake {size_of(lake) / (source + pixels):.3f} times source and working pictures (aim 1.05)",
        f"  footers: {footers(lake, 'images'):.0f} and {footers(lake, 'originals'):.0f} bytes an image (aim 50)",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    measure_outputs(folder, work, rounds)


def main() -> None:
    """Run the bench, or one of its ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=float, default=1.0, help="share of the photographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", nargs=3, metavar=("WAY", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        pool(options.way[0], Path(options.way[1]), Path(options.way[2]))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_WORK")) as base:
        for number, (title, (count, width, height)) in enumerate(SETS.items()):
            folder = Path(base, f"set{number}")
            make(folder, max(10, round(count * options.count)), width, height)
            measure(title, folder, Path(base, "work"), options.rounds)


if __name__ == "__main__":
    main()
