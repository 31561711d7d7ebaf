"""Read pixels of located images into one array: every pixel is copied once, from the decompressed page to its place."""

import os
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
from numpy.typing import NDArray

from pipeline import storage
from pipeline.arrays.locate import Located, RowGroup
from pipeline.rows import from_binary


def gather(where: Located) -> NDArray[np.uint8]:
    """Read pixels in the order asked for.

    Only the row groups that hold wanted images are read, each once, in threads. Besides the result, at most one row
    group a thread is held. Images asked for as they lie on disk (`Located.file_order`) are read fastest.

    Args:
        where: which images.

    Returns:
        (n, height, width) uint8 for gray, (n, height, width, 3) for RGB, 0 to 255, C-contiguous.
    """
    out = np.empty((len(where), prod(where.shape)), dtype=np.uint8)
    order = where.file_order()
    edges = np.searchsorted(where.group[order], np.arange(len(where.groups) + 1))
    wanted = np.flatnonzero(np.diff(edges))
    if not len(wanted):
        return shaped(out, where.shape)

    def fill(group: int) -> None:
        places = order[edges[group] : edges[group + 1]]
        _fill(out, where.groups[group], where.row[places], places)

    with ThreadPoolExecutor(min(len(wanted), threads())) as pool:
        # list() so that an error in a thread is raised here.
        list(pool.map(fill, wanted.tolist()))
    return shaped(out, where.shape)


def threads() -> int:
    """Tell how many threads read: as many as this process may use cores."""
    return len(os.sched_getaffinity(0))


def shaped(rows: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """See rows of bytes as pictures, without a copy: (n, height, width) for gray, (n, height, width, 3) for RGB."""
    height, width, channels = shape
    return rows.reshape(len(rows), height, width, *([channels] if channels > 1 else []))


def _fill(out: NDArray[np.uint8], group: RowGroup, rows: NDArray[np.int32], places: NDArray[np.int64]) -> None:
    """Copy ascending rows of a row group to their places."""
    # Buffering ahead would copy the compressed group once more, and other threads read meanwhile anyway.
    with storage.open_parquet(group.file, pre_buffer=False) as file:
        chunks = file.read_row_group(group.number, columns=["pixels"], use_threads=False).column(0).chunks
    # One chunk unless the group is over 2 GiB, and then row groups were not written by imagelake.
    views = [from_binary(chunk, out.shape[1]) for chunk in chunks]
    pixels = views[0] if len(views) == 1 else np.concatenate(views)
    if places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
        # mode="raise" would gather into a buffer first and copy that.
        np.take(pixels, rows, axis=0, out=out[places[0] : places[-1] + 1], mode="clip")
    else:
        out[places] = pixels[rows]
