"""What is exported: the rows of each role, where their pixels lie, and a digest of them.

Cut a role into pieces of pixels: read in large blocks, handed out in small pieces, always cut alike.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from pipeline.errors import LakeError
from pipeline.pixels import Located, Scattered, gather, gather_scattered, locate, locate_scattered

_SHAPE = ["height", "width", "channels"]


@dataclass(frozen=True)
class Role:
    """The images of one role.

    Attributes:
        name: train, valid or test.
        rows: one row an image in the order of ranks: columns rank, image_id, label_index (-1: none), label, path,
            dataset, split, kept, height, width, channels, content_hash.
        where: where their pixels lie; `Scattered` where they have several shapes.
    """

    name: str
    rows: pl.DataFrame
    where: Located | Scattered

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """(height, width) for gray, (height, width, 3) for RGB; None where there are several."""
        if isinstance(self.where, Scattered):
            return None
        height, width, channels = self.where.shape
        return (height, width) if channels == 1 else (height, width, channels)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of pixels of every image: (n,) int64."""
        sizes: NDArray[np.int64] = self.shapes.prod(axis=1)
        return sizes

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Height, width and channels of every image: (n, 3) int64."""
        return self.rows.select(pl.col(*_SHAPE).cast(pl.Int64)).to_numpy()

    @property
    def ids(self) -> NDArray[np.uint8]:
        """The ids: (n, 16) uint8."""
        return np.frombuffer(b"".join(self.rows["image_id"].to_list()), dtype=np.uint8).reshape(-1, 16)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Positions among the class names, -1 where an image has no label: (n,) int64."""
        return self.rows["label_index"].to_numpy()

    @property
    def one_shape(self) -> tuple[int, ...]:
        """The shape that one array of all images needs.

        Raises:
            LakeError: they have several.
        """
        if self.shape is None:
            shapes = self.rows.select(_SHAPE).unique().sort(_SHAPE)
            listed = ", ".join("x".join(map(str, row)) for row in shapes.head(5).rows())
            raise LakeError(
                f"the images of {self.name} have several shapes ({listed}): set decode.size in the recipe to get one "
                "array, or export to parquet, imagefolder, webdataset or huggingface, which take any shape."
            )
        return self.shape


@dataclass(frozen=True)
class Selection:
    """What is exported.

    Attributes:
        split: name of the split.
        roles: those with images, in the order train, valid, test.
        classes: class names; position i names label i.
    """

    split: str
    roles: tuple[Role, ...]
    classes: tuple[str, ...]


class Work(NamedTuple):
    """What a form is given to work with.

    Attributes:
        map: runs a picklable function over items, in their order; an engine's.
        advance: told how many images were written since it was told last.
    """

    map: Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
    advance: Callable[[int], None]


def place(name: str, rows: pl.DataFrame, files: Sequence[str]) -> Role:
    """Find where the pixels of a role lie.

    Args:
        name: of the role.
        rows: as `Role.rows`.
        files: Parquet files of the images table.

    Raises:
        LakeError: an image is in none of the files.
    """
    find = locate if rows.select(_SHAPE).n_unique() <= 1 else locate_scattered
    return Role(name, rows, find(files, rows["image_id"]))


def digest_rows(roles: Sequence[Role]) -> str:
    """Digest who is in which role, in which order, with which label.

    Returns:
        xxh3-128 over, for every role: its name in UTF-8, a zero byte, the number of images (8 bytes), their ids, their
        labels (8 bytes each), numbers little-endian; 32 hexadecimal digits.
    """
    digest = xxhash.xxh3_128()
    for role in roles:
        digest.update(f"{role.name}\0".encode() + len(role).to_bytes(8, "little"))
        digest.update(role.ids.tobytes())
        digest.update(role.labels.astype("<i8").tobytes())
    return digest.hexdigest()


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
