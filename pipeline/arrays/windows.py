"""In which order an epoch goes, and which part of it belongs to whom: functions of ids, seed and counts alone.

Shuffle what does not fit in memory: row groups in random order, and a full shuffle within windows of them.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.pixels import Located, gather
from pipeline.stable_order import order_keys


@dataclass(frozen=True)
class Plan:
    """How a role is cut into batches, and whose they are.

    Attributes:
        batch_size: images in every batch but the last of a rank.
        seed: any integer.
        buffer_bytes: bytes of pixels to hold.
        drop_last: whether a rank leaves out what fills no batch. Then all ranks have equally many batches.
        rank: which of the `world_size` ranks.
        world_size: ranks that share an epoch.
        worker: which of the `workers` of this rank.
        workers: processes that share a rank's batches.
    """

    batch_size: int
    seed: int
    buffer_bytes: int
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "seed", "buffer_bytes", "rank", "world_size", "worker", "workers"):
            if isinstance(found := getattr(self, name), bool) or not isinstance(found, int | np.integer):
                raise ValueError(f"{name} is {found!r}; it must be a whole number")  # noqa: TRY004 - as for other values
            object.__setattr__(self, name, int(found))  # JSON, which states go through, knows no numpy
        for name in ("batch_size", "buffer_bytes", "world_size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name, of in (("rank", self.world_size), ("worker", self.workers)):
            if not 0 <= getattr(self, name) < of:
                raise ValueError(f"{name} is {getattr(self, name)}; of {of} it must be 0 to {of - 1}")

    def span(self, count: int) -> range:
        """Tell which places of an epoch's order belong to this rank.

        Args:
            count: images of the role.

        Returns:
            Consecutive places. All ranks together have every place once, and none has two more than another; with
            `drop_last` each has the same number, a multiple of `batch_size`.
        """
        start, stop = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        if self.drop_last:
            stop = start + count // self.world_size // self.batch_size * self.batch_size
        return range(start, stop)

    def batches(self, count: int) -> int:
        """Count the batches of this rank, by all its workers, for a role of `count` images."""
        return -(-len(self.span(count)) // self.batch_size)

    def dealt(self, count: int) -> range:
        """List this worker's batches of its rank, dealt out in turn: who takes from all in turn gets them in order."""
        return range(self.worker, self.batches(count), self.workers)

    def run(self, count: int) -> range:
        """List this worker's batches of its rank, consecutive ones: it reads no row group that another reads whole."""
        return range(*(self.batches(count) * worker // self.workers for worker in (self.worker, self.worker + 1)))


def epoch_order(image_ids: NDArray[np.uint8], seed: int, epoch: int, of: str = "") -> NDArray[np.int64]:
    """Order images for an epoch.

    Args:
        image_ids: (n, 16) uint8, in the order of the split.
        seed: any integer.
        epoch: any integer; another epoch is another order.
        of: what the order is of, so that two orders of an epoch are independent; "" for the images handed out.

    Returns:
        (n,) a permutation of 0 to n - 1, uniform over all of them as far as 64-bit keys can tell.
    """
    keys = order_keys(image_ids, seed, f"epoch {epoch}{of}")
    # A stable sort takes three times as long, and matters only where two images have one key.
    order = np.argsort(keys)
    ascending = keys[order]
    return np.argsort(keys, kind="stable") if (ascending[1:] == ascending[:-1]).any() else order


class Piece(NamedTuple):
    """Some of the wanted images of a row group: `start` to `stop` of them, in an order that the epoch gives them."""

    group: int
    start: int
    stop: int


class Window(NamedTuple):
    """Images that are held together.

    Attributes:
        pixels: (m, height, width[, 3]) uint8.
        labels: (m,) int64.
        order: (m,) the order in which they are handed out: a permutation.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    order: NDArray[np.int64]


@dataclass(frozen=True)
class Grouped:
    """The images of a role by row group; made by `grouped`.

    Attributes:
        where: where the images lie.
        image_ids: (n, 16) uint8, in the order of `where`.
        labels: (n,) int64.
        images: (n,) positions in `where`, as they lie on disk.
        edges: (groups + 1,) positions in `images` where a row group begins; only groups that have any.
    """

    where: Located
    image_ids: NDArray[np.uint8]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    edges: NDArray[np.int64]

    def rows(self) -> NDArray[np.int64]:
        """Count all rows of each group, wanted or not: what reading it costs."""
        return self.where.rows[self.where.group[self.images[self.edges[:-1]]]]


def grouped(where: Located, image_ids: NDArray[np.uint8], labels: NDArray[np.int64]) -> Grouped:
    """Sort images by row group."""
    images = where.file_order()
    edges = np.flatnonzero(np.diff(where.group[images], prepend=-1, append=-1))
    return Grouped(where, image_ids, labels, images, edges)


def windows(  # noqa: PLR0913 - which images, in which order, how much of it
    of: Grouped, seed: int, epoch: int, places: range, *, buffer_bytes: int, skip: int
) -> Iterator[Window]:
    """Read an epoch, or a part of it, a window at a time: each is read by threads while the one before is in use.

    Row groups come in an order made from seed, epoch and the id of their first image. A window is as many consecutive
    ones as half the buffer holds, and its images are fully shuffled. So an image can come out anywhere in the epoch,
    but only among those of its window: neighbours of a row group stay within one window's length of each other.

    Args:
        of: the images.
        seed: any integer.
        epoch: any integer.
        places: consecutive places of the epoch.
        buffer_bytes: bytes of pixels in the two windows that are held; a window is one row group at least. While it is
            read, a row group a thread is held besides.
        skip: how many of the places have been handed out: windows before them are not read.

    Yields:
        Windows; `order` of the first is without the images to skip. Whoever keeps a window holds more than the buffer.
    """
    visits = epoch_order(of.image_ids[of.images[of.edges[:-1]]], seed, epoch, " groups")
    room = buffer_bytes // 2 // prod(of.where.shape)
    cut = fill(np.diff(of.edges)[visits], of.rows()[visits], places, room)
    while cut and skip >= (size := sum(piece.stop - piece.start for piece in cut[0])):
        skip -= size
        del cut[0]
    with ThreadPoolExecutor(1, "imagelake-window") as reader:
        ahead = [reader.submit(_read, of, visits, pieces, seed, epoch) for pieces in cut[:1]]
        for at in range(len(cut)):
            window = ahead.pop().result()
            ahead += [reader.submit(_read, of, visits, pieces, seed, epoch) for pieces in cut[at + 1 : at + 2]]
            yield window._replace(order=window.order[skip:])
            skip = 0


def fill(sizes: NDArray[np.int64], rows: NDArray[np.int64], places: range, room: int) -> list[list[Piece]]:
    """Cut consecutive places of an epoch into windows.

    The first window is also bounded by what must be read for it, not only by what is kept, so that the first batch
    comes soon where few images of a row group are wanted.

    Args:
        sizes: (groups,) wanted images of each row group, in the order of visits, none 0.
        rows: (groups,) all of its rows.
        places: places in the concatenation of the groups' wanted images.
        room: images that a window may hold. A group is never cut, even if it is larger.

    Returns:
        Windows of pieces, whose `group` counts visits. Together they are `places`, every one once.
    """
    ends = np.cumsum(sizes).tolist()
    cut: list[list[Piece]] = []
    held = 0
    first = int(np.searchsorted(ends, places.start, side="right"))
    for visit in range(first, len(ends)):
        begin = ends[visit - 1] if visit else 0
        if begin >= places.stop or not places:
            break
        piece = Piece(visit, max(places.start - begin, 0), min(places.stop, ends[visit]) - begin)
        kept = piece.stop - piece.start
        if not cut or held + (int(rows[visit]) if len(cut) == 1 else kept) > room:
            cut.append([])
            held = 0
        cut[-1].append(piece)
        held += int(rows[visit]) if len(cut) == 1 else kept
    return cut


def _read(of: Grouped, visits: NDArray[np.int64], pieces: Sequence[Piece], seed: int, epoch: int) -> Window:
    groups = sorted((int(visits[piece.group]), piece) for piece in pieces)
    # As they lie on disk, so that reading writes from front to back.
    images = np.concatenate([_images(of, group, piece, seed, epoch) for group, piece in groups])
    order = epoch_order(of.image_ids[images], seed, epoch)
    return Window(gather(of.where.take(images)), of.labels[images], order)


def _images(of: Grouped, group: int, piece: Piece, seed: int, epoch: int) -> NDArray[np.int64]:
    """List the images of a piece as they lie on disk. Which of a group's they are is random: files go by class."""
    members = of.images[of.edges[group] : of.edges[group + 1]]
    if piece.stop - piece.start == len(members):
        return members
    return members[np.sort(epoch_order(of.image_ids[members], seed, epoch, " parts")[piece.start : piece.stop])]
