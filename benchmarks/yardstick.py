"""The reference of `ingest.py`: a plain script from tar.gz to Parquet, optimized for one kind of archive.

One process gunzips (ISA-L's igzip) into shared memory and walks the tar headers itself; two decode with libpng
(imagecodecs), hash with xxh3-128 and write zstd Parquet, one file for each slot: path, label, pixels,
content_hash. The processes exchange offsets, not bytes. Damaged pictures are skipped and listed. It does less than an
ingest: every picture is a gray PNG of 28x28, names are short, header checksums are ignored, nothing is checked or
committed.

Run by `ingest.py` in its own process: `yardstick.py ARCHIVE.tar.gz FOLDER` prints the number of images, the files
that were skipped and CPU seconds (the reader's, then the workers'), as JSON. Its whole time counts, with imports.
"""

import json
import resource
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from mmap import mmap
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from imagecodecs import PngError, png_decode
from isal import igzip
from picture_table import Made, blank, together, write_pictures
from xxhash import xxh3_128_digest

WORKERS = 2
SLOT, SLOTS = 8 << 20, 2 * WORKERS + 1  # bytes of tar that a worker gets at a time, and how many such in memory
BLOCK, NAME, SIZE, KIND = 512, 100, slice(124, 135), 156  # of a tar header: its size, and what is where in it
FILE, DIRECTORY = b"0\0", b"5"

_memory = mmap(-1, SLOT * SLOTS)  # anonymous and shared: the workers are forks and see what the reader writes


class Filled(NamedTuple):
    """A slot of whole files: the offset of each header, and the length of its file."""

    number: int
    starts: list[int]
    sizes: list[int]


def run(archive: Path, folder: Path) -> Made:
    """Write an archive's pictures to Parquet files in a folder."""
    made: list[Made] = []
    waiting: deque[Future[Made]] = deque()
    with ProcessPoolExecutor(WORKERS, get_context("fork")) as pool:
        for filled in slots(archive):
            waiting.append(pool.submit(partial(write, folder), filled))
            if len(waiting) == SLOTS:  # the next to be filled is the oldest
                made.append(waiting.popleft().result())
        made += [future.result() for future in waiting]
    return together(made)


def slots(archive: Path) -> Iterator[Filled]:
    """Gunzip into one slot after the other; a file that does not fit is continued in the next."""
    rest, number, more = b"", 0, True
    opened = igzip.IGzipFile(archive)  # type: ignore[no-untyped-call] # its stub has no arguments
    with opened as stream, memoryview(_memory) as memory:
        while more:
            with memory[number % SLOTS * SLOT :][:SLOT] as slot:
                end = len(rest)
                slot[:end] = rest
                while end < SLOT and (count := stream.readinto(slot[end:])):
                    end += count
                filled, stop = walk(number, slot[:end])
                rest, more = bytes(slot[stop:end]), end == SLOT
            yield filled
            number += 1
            if len(rest) == SLOT:
                raise SystemExit(f"yardstick: {archive} holds a file that is longer than a slot, {SLOT} bytes")
    if rest.strip(b"\0"):
        raise SystemExit(f"yardstick: {archive} ends inside a file")


def walk(number: int, slot: memoryview) -> tuple[Filled, int]:
    """Find the files that are completely in a slot, and the offset of the next one."""
    starts, sizes = [], []
    at, end = 0, len(slot)
    while at + BLOCK <= end and slot[at]:
        size = int(bytes(slot[at:][SIZE]), 8)
        after = at + BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
        if after > end:
            break
        if slot[at + KIND] in FILE:
            starts.append(at)
            sizes.append(size)
        elif slot[at + KIND] not in DIRECTORY:
            raise SystemExit(f"yardstick: a tar member of kind {chr(slot[at + KIND])!r}, neither file nor directory")
        at = after
    return Filled(number, starts, sizes), at


def write(folder: Path, filled: Filled) -> Made:
    """Decode a slot's files and write them as one Parquet file; in a worker."""
    rows, pictures = blank(len(filled.starts))
    good: list[str] = []
    bad: list[str] = []
    hashes: list[bytes] = []
    start = filled.number % SLOTS * SLOT
    with memoryview(_memory)[start : start + SLOT] as slot:
        for at, size in zip(filled.starts, filled.sizes, strict=True):
            path = bytes(slot[at : at + NAME]).rstrip(b"\0").decode()
            count = len(good)
            try:
                png_decode(slot[at + BLOCK : at + BLOCK + size], out=pictures[count])  # type: ignore[arg-type] # it takes any buffer
            except (PngError, ValueError):  # damaged, or of another shape
                bad.append(path)
                continue
            good.append(path)
            hashes.append(xxh3_128_digest(rows[count]))
    write_pictures(folder / f"{filled.number}.parquet", good, rows, hashes)
    return Made(len(good), bad)


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    done = run(Path(sys.argv[1]), Path(sys.argv[2]))
    cpu = [_cpu(resource.RUSAGE_SELF), _cpu(resource.RUSAGE_CHILDREN)]
    json.dump({**done._asdict(), "cpu": cpu}, sys.stdout)
