"""Read pixels of located images into one array: every pixel is copied once, from the decompressed page to its place."""

import os
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.arrays.locate import Located
from pipeline.rows import from_binary

# (p - 127.5) / 255 for every byte value: looking it up is exact and faster than computing it.
_NORMALISED = ((np.arange(256) - 127.5) / 255).astype(np.float32)


def gather(where: Located) -> NDArray[np.uint8]:
    """Read pixels in the order asked for.

    Besides the result, at most one row group a thread is held.

    Args:
        where: which images.

    Returns:
        (n, height, width) uint8 for gray, (n, height, width, 3) for RGB, 0 to 255, C-contiguous.
    """
    width = prod(where.shape)
    out = np.empty((len(where), width), dtype=np.uint8)
    order = np.argsort(where.file, kind="stable")
    edges = np.searchsorted(where.file[order], np.arange(len(where.files) + 1))
    jobs = [(name, order[edges[n] : edges[n + 1]]) for n, name in enumerate(where.files) if edges[n] < edges[n + 1]]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # list() so that an error in a thread is raised here.
        list(pool.map(lambda job: _fill(out, job[0], where.row[job[1]], job[1], width), jobs))
    return shaped(out, where.shape)


def shaped(rows: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """See rows of bytes as pictures, without a copy: (n, height, width) for gray, (n, height, width, 3) for RGB."""
    height, width, channels = shape
    return rows.reshape(len(rows), height, width, *([channels] if channels > 1 else []))


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale pixels as the notMNIST notebooks do: (p - 127.5) / 255.

    Args:
        pixels: uint8 of any shape.

    Returns:
        float32 of the same shape, -0.5 to 0.5.
    """
    return _NORMALISED[pixels]


def _fill(out: NDArray[np.uint8], name: str, rows: NDArray[np.int64], places: NDArray[np.int64], width: int) -> None:
    by_row = np.argsort(rows, kind="stable")
    rows, places = rows[by_row], places[by_row]
    with pq.ParquetFile(name) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            low, high = np.searchsorted(rows, [start, stop])
            if low < high:
                chunks = file.read_row_group(group, columns=["pixels"]).column(0).chunks
                # One chunk unless the group is over 2 GiB, and then row groups were not written by imagelake.
                views = [from_binary(chunk, width) for chunk in chunks]
                pixels = views[0] if len(views) == 1 else np.concatenate(views)
                out[places[low:high]] = pixels[rows[low:high] - start]
            start = stop
