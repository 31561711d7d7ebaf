"""Cut a role into pieces of pixels: read in large blocks, handed out in small pieces, always cut alike."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays.exports.scattered import Scattered, gather_scattered
from pipeline.arrays.exports.selection import Role
from pipeline.arrays.gather import gather

# A block is gathered from all over the images table, so every block may read all of it: the larger, the fewer readings.
BLOCK_BYTES = 2**28
# What a worker is sent, and what a row group holds.
PIECE_BYTES = 2**22
ROW_GROUP_BYTES = 2**24


class Piece(NamedTuple):
    """Some images that follow one another in a role.

    Attributes:
        start: position of the first in the role.
        shapes: (n, 3) int64: height, width and channels of each.
        pixels: their pixels one after the other, uint8.
    """

    start: int
    shapes: NDArray[np.int64]
    pixels: NDArray[np.uint8]

    @property
    def stop(self) -> int:
        """Position behind the last in the role."""
        return self.start + len(self.shapes)

    @property
    def edges(self) -> NDArray[np.int64]:
        """Where each image begins in `pixels`, and where the last one ends: (n + 1,) int64."""
        return np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1))])

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """See the images one by one, for an encoder: (height, width) for gray, (height, width, 3) for RGB."""
        edges = self.edges.tolist()
        for n, (height, width, channels) in enumerate(self.shapes.tolist()):
            shape = (height, width) if channels == 1 else (height, width, channels)
            yield self.pixels[edges[n] : edges[n + 1]].reshape(shape)


def pieces(role: Role, most: int) -> Iterator[Piece]:
    """Read a role piece by piece, in the order of ranks.

    A block is held, of `BLOCK_BYTES` of pixels or one piece if that is larger; and, while the next one is read, the one
    before, of which pieces may still be at work.

    Args:
        role: what to read.
        most: bytes of pixels in a piece, one image at least.
    """
    shapes, sizes = role.shapes, role.sizes
    edges = cuts(sizes, most)
    inside = np.add.reduceat(sizes, edges[:-1]) if len(sizes) else sizes
    blocks = cuts(inside, BLOCK_BYTES)
    for first, last in zip(blocks[:-1].tolist(), blocks[1:].tolist(), strict=True):
        start = int(edges[first])
        held = _read(role, start, int(edges[last]))
        at = 0
        for low, high in zip(edges[first:last].tolist(), edges[first + 1 : last + 1].tolist(), strict=True):
            size = int(sizes[low:high].sum())
            yield Piece(low, shapes[low:high], held[at : at + size])
            at += size


def cuts(sizes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Cut a row of things into runs of at most `most`, as long as can be, one thing at least.

    Args:
        sizes: (n,) int64.
        most: sum of the sizes in a run.

    Returns:
        Edges of the runs: ascending, from 0 to n.
    """
    ends = np.cumsum(sizes)
    edges = [0]
    while edges[-1] < len(sizes):
        before = ends[edges[-1] - 1] if edges[-1] else 0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(ends, before + most, side="right"))))
    return np.array(edges, dtype=np.int64)


def _read(role: Role, start: int, stop: int) -> NDArray[np.uint8]:
    if isinstance(role.where, Scattered):
        return gather_scattered(role.where, start, stop)
    return gather(role.where.take(np.arange(start, stop))).reshape(-1)
