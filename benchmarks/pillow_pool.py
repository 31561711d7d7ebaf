"""The usual script, for `ingest.py`: the `tar` command extracts, two processes decode with Pillow in chunks of files.

Each worker hashes with xxh3-128 and writes a zstd Parquet file a chunk, so that no pixels go between processes. It uses
the `tar` command, because Python's tarfile takes two to three times as long to extract as many small files.

Run by `ingest.py` in its own process: `pillow_pool.py ARCHIVE.tar.gz FOLDER` prints the number of images, the
files that were skipped and the seconds of the extraction, as JSON. Its whole time counts, with imports.
"""

import json
import os
import subprocess
import sys
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from picture_table import Made, blank, together, write_pictures
from PIL import Image
from stopwatch import Stopwatch
from xxhash import xxh3_128_digest

WORKERS = 2
CHUNK = 4096

Chunk = tuple[int, list[str]]


def run(archive: Path, folder: Path, watch: Stopwatch) -> Made:
    """Extract an archive and write its pictures to Parquet files in a folder."""
    root, tables = folder / "files", folder / "tables"
    root.mkdir()
    tables.mkdir()
    with watch("extract"):
        subprocess.run(["tar", "-xzf", str(archive), "-C", str(root)], check=True)
    files = [entry.path for letter in _letters(root) for entry in os.scandir(letter)]
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    with get_context("fork").Pool(WORKERS) as pool:
        return together(pool.imap_unordered(partial(write, root, tables), enumerate(chunks)))


def _letters(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*") if path.is_dir())


def write(root: Path, folder: Path, chunk: Chunk) -> Made:
    """Decode a chunk of files and write them as one Parquet file; in a worker."""
    number, files = chunk
    rows, pictures = blank(len(files))
    good: list[str] = []
    bad: list[str] = []
    hashes: list[bytes] = []
    prefix = len(str(root)) + 1
    for file in files:
        count = len(good)
        try:
            with Image.open(file) as image:
                pictures[count] = np.asarray(image)
        except (OSError, SyntaxError, ValueError):  # unreadable; Pillow's error for a broken PNG; another shape
            bad.append(file[prefix:])
            continue
        good.append(file[prefix:])
        hashes.append(xxh3_128_digest(rows[count]))
    write_pictures(folder / f"{number}.parquet", good, rows, hashes)
    return Made(len(good), bad)


if __name__ == "__main__":
    stopwatch = Stopwatch()
    made = run(Path(sys.argv[1]), Path(sys.argv[2]), stopwatch)
    json.dump({**made._asdict(), "seconds": stopwatch.seconds}, sys.stdout)
