"""One epoch of a role: its order, the windows it is read in, and the batches it is cut into.

Everything here follows from image ids, seed, epoch number and counts alone, never from threads or time. A role that
does not fit in memory is shuffled approximately: its row groups are read in random order, in windows of consecutive
row groups, and the images of a window are fully shuffled.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline import arguments
from pipeline.errors import FeedError
from pipeline.hashing import order_keys
from pipeline.pixels import DecodedGroups, Located, RaggedImages, gather, gather_ragged

# Pixels, (batch, height, width[, 3]) uint8, or a list of such arrays if they have several shapes; and labels: (batch,)
# int64, or (batch, labels) uint8 of images with several labels.
Batch = tuple[Any, NDArray[Any]]
State = dict[str, str | int | bool]

BATCHES_DONE = "batches_done"


@dataclass(frozen=True)
class Plan:
    """How a role is cut into batches, and how ranks and workers share them.

    Attributes:
        batch_size: images in every batch except the last of a rank.
        seed: any integer.
        buffer_bytes: bytes of pixels to hold in memory.
        drop_last: leave out a last batch that is not full. All ranks then have the same number of batches.
        rank: this rank, 0 to `world_size` - 1.
        world_size: ranks that share an epoch.
        worker: this worker of the rank, 0 to `workers` - 1.
        workers: processes that share the batches of a rank.
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
            # States are saved as JSON, which has no numpy integers.
            object.__setattr__(self, name, arguments.whole_number(name, getattr(self, name)))
        object.__setattr__(self, "drop_last", arguments.true_or_false("drop_last", self.drop_last))
        for name in ("batch_size", "buffer_bytes", "world_size", "workers"):
            if getattr(self, name) < 1:
                raise FeedError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name, count in (("rank", self.world_size), ("worker", self.workers)):
            if not 0 <= getattr(self, name) < count:
                raise FeedError(f"{name} is {getattr(self, name)}; of {count} it must be 0 to {count - 1}")

    def rank_positions(self, count: int) -> range:
        """List the positions in the order of an epoch that belong to this rank.

        Args:
            count: images of the role.

        Returns:
            Consecutive positions. Together the ranks have every position once, and their lengths differ by at most
            one. With `drop_last` all lengths are equal, a multiple of `batch_size`.
        """
        start, stop = (count * rank // self.world_size for rank in (self.rank, self.rank + 1))
        if self.drop_last:
            stop = start + count // self.world_size // self.batch_size * self.batch_size
        return range(start, stop)

    def batches(self, count: int) -> int:
        """Count the batches of this rank, over all its workers, for a role of `count` images."""
        return -(-len(self.rank_positions(count)) // self.batch_size)

    def interleaved_batches(self, count: int) -> range:
        """List this worker's batches when workers take the batches of a rank in turn.

        Taking one batch from each worker in turn gives the batches of the rank in order.
        """
        return range(self.worker, self.batches(count), self.workers)

    def consecutive_batches(self, count: int) -> range:
        """List this worker's batches when each worker takes consecutive ones.

        Two workers then read the same row group only at the boundary between them.
        """
        return range(*(self.batches(count) * worker // self.workers for worker in (self.worker, self.worker + 1)))


def epoch_order(image_ids: NDArray[np.uint8], seed: int, epoch: int, purpose: str = "") -> NDArray[np.int64]:
    """Shuffle images for an epoch.

    Args:
        image_ids: (n, 16) uint8, in the order of the split.
        seed: any integer.
        epoch: any integer; each epoch has another order.
        purpose: makes orders of one epoch independent of each other; "" for the order of the batches.

    Returns:
        (n,) a permutation of 0 to n - 1. All permutations are equally likely, as far as 64-bit keys allow.
    """
    keys = order_keys(image_ids, seed, f"epoch {epoch}{purpose}")
    # A stable sort takes three times as long, and matters only where two images have the same key.
    order = np.argsort(keys)
    ascending = keys[order]
    return np.argsort(keys, kind="stable") if (ascending[1:] == ascending[:-1]).any() else order


class Window(NamedTuple):
    """Images that are in memory together.

    Attributes:
        pixels: (m, height, width[, 3]) uint8, or m images of several shapes.
        labels: (m,) int64, or (m, labels) uint8.
        order: (m,) a permutation: the order of the images in the batches.
    """

    pixels: NDArray[np.uint8] | RaggedImages
    labels: NDArray[Any]
    order: NDArray[np.int64]


class GroupSlice(NamedTuple):
    """The wanted images `start` to `stop` of a row group, in the random order that the epoch gives them."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class RoleByGroup:
    """The images of a role in file order, so that those of a row group are consecutive; made by `sort_by_group`.

    Attributes:
        where: row group and row of every image.
        image_ids: (n, 16) uint8.
        labels: (n,) int64, or (n, labels) uint8.
        edges: (groups + 1,) positions where each row group starts. Row groups without images of the role are left out.
    """

    where: Located
    image_ids: NDArray[np.uint8]
    labels: NDArray[Any]
    edges: NDArray[np.int64]

    def rows(self) -> NDArray[np.int64]:
        """Count all rows of each row group, wanted or not: the cost of reading it."""
        return self.where.rows[self.where.group[self.edges[:-1]]]

    def sizes(self) -> NDArray[np.int64]:
        """Mean bytes of the wanted images of each row group, rounded up."""
        means: NDArray[np.int64] = -(-np.add.reduceat(self.where.sizes, self.edges[:-1]) // np.diff(self.edges))
        return means


def sort_by_group(where: Located, image_ids: NDArray[np.uint8], labels: NDArray[Any]) -> RoleByGroup:
    """Sort images by row group and row."""
    images = where.file_order()
    where = where.take(images)
    edges = np.flatnonzero(np.diff(where.group, prepend=-1, append=-1))
    return RoleByGroup(where, image_ids[images], labels[images], edges)


def read_windows(  # noqa: PLR0913 - which images, in which order, how much of it
    role: RoleByGroup,
    seed: int,
    epoch: int,
    positions: range,
    *,
    buffer_bytes: int,
    skip: int,
    decoded: DecodedGroups | None = None,
) -> Iterator[Window]:
    """Read an epoch, or a part of it, window by window. A thread reads the next window while this one is in use.

    Row groups come in an order made from seed, epoch and the id of their first image. A window is as many consecutive
    row groups as fit in half of the buffer, and its images are fully shuffled. An image can therefore appear anywhere
    in the epoch, but images of one row group stay within one window's length of each other.

    Args:
        role: the images.
        seed: any integer.
        epoch: any integer.
        positions: consecutive positions of the epoch.
        buffer_bytes: bytes of pixels in the two windows that are in memory. A window has at least one row group.
            While a window is read, each thread holds one more row group.
        skip: how many of the positions to leave out at the start. Windows that lie before them are not read.
        decoded: where row groups that are decoded are kept for later epochs.

    Yields:
        Windows. The `order` of the first has no images to skip. Keeping a window holds more memory than the buffer.
    """
    visits = epoch_order(role.image_ids[role.edges[:-1]], seed, epoch, " groups")
    planned = plan_windows(
        np.diff(role.edges)[visits], role.rows()[visits], positions, buffer_bytes // 2, role.sizes()[visits]
    )
    while planned and skip >= (size := sum(part.stop - part.start for part in planned[0])):
        skip -= size
        del planned[0]

    def read(parts: Sequence[GroupSlice]) -> Window:
        return _read_window(role, visits, parts, seed, epoch, decoded=decoded)

    with ThreadPoolExecutor(1, "imagelake-window") as reader:
        pending = [reader.submit(read, parts) for parts in planned[:1]]
        for at in range(len(planned)):
            window = pending.pop().result()
            pending += [reader.submit(read, parts) for parts in planned[at + 1 : at + 2]]
            yield window._replace(order=window.order[skip:])
            skip = 0


def plan_windows(
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    positions: range,
    room: int,
    image_bytes: NDArray[np.int64] | None = None,
) -> list[list[GroupSlice]]:
    """Cut consecutive positions of an epoch into windows.

    The first window is limited by the rows to read for it, not only by the images to keep, so that the first batch
    comes soon also where few images of a row group are wanted.

    Args:
        sizes: (groups,) wanted images of each row group, in the order of visits, all above 0.
        rows: (groups,) all rows of each row group.
        positions: positions in the concatenation of the row groups' wanted images.
        room: bytes that fit in a window. A row group is never cut for this limit, even if it is larger.
        image_bytes: (groups,) bytes of an image of each row group; 1 by default.

    Returns:
        Windows, each a list of slices whose `group` counts visits. Together they are `positions`, each once.
    """
    ends = np.cumsum(sizes).tolist()
    weights = np.ones_like(sizes) if image_bytes is None else image_bytes
    planned: list[list[GroupSlice]] = []
    held = 0
    first = int(np.searchsorted(ends, positions.start, side="right"))
    for visit in range(first, len(ends)):
        begin = ends[visit - 1] if visit else 0
        if begin >= positions.stop or not positions:
            break
        part = GroupSlice(visit, max(positions.start - begin, 0), min(positions.stop, ends[visit]) - begin)
        kept, weight = part.stop - part.start, int(weights[visit])
        if not planned or held + weight * (int(rows[visit]) if len(planned) == 1 else kept) > room:
            planned.append([])
            held = 0
        planned[-1].append(part)
        held += weight * (int(rows[visit]) if len(planned) == 1 else kept)
    return planned


def _read_window(  # noqa: PLR0913 - which images, in which order, and where they may be already
    role: RoleByGroup,
    visits: NDArray[np.int64],
    parts: Sequence[GroupSlice],
    seed: int,
    epoch: int,
    *,
    decoded: DecodedGroups | None,
) -> Window:
    by_group = sorted((int(visits[part.group]), part) for part in parts)
    # In file order, so that reading fills the array from front to back.
    images = np.concatenate([_images_of_slice(role, group, part, seed, epoch) for group, part in by_group])
    order = epoch_order(role.image_ids[images], seed, epoch)
    where = role.where.take(images)
    read = gather if where.shapes is None else gather_ragged
    return Window(read(where, decoded), role.labels[images], order)


def _images_of_slice(role: RoleByGroup, group: int, part: GroupSlice, seed: int, epoch: int) -> NDArray[np.int64]:
    """List the images of a slice in file order. They are a random choice: files are often sorted by class."""
    members = np.arange(role.edges[group], role.edges[group + 1])
    if part.stop - part.start == len(members):
        return members
    return members[np.sort(epoch_order(role.image_ids[members], seed, epoch, " parts")[part.start : part.stop])]


def cut_into_batches(windows: Iterator[Window], batch_size: int) -> Iterator[Batch]:
    """Cut windows into batches. A batch may start in one window and end in the next.

    Args:
        windows: in the order of the epoch.
        batch_size: images in every batch except the last.

    Yields:
        (batch, height, width[, 3]) uint8, and (batch,) int64 or (batch, labels) uint8.
    """
    begun: list[Batch] = []
    missing = batch_size
    for window in windows:
        at = 0
        while at < len(window.order):
            begun.append(_take_rows(window, window.order[at : at + missing]))
            at += missing
            missing -= len(begun[-1][1])
            if not missing:
                yield _concatenate(begun)
                begun, missing = [], batch_size
        # Released before the next window is read, so that at most two windows are in memory.
        del window
    if begun:
        yield _concatenate(begun)


def _take_rows(window: Window, rows: NDArray[np.int64]) -> Batch:
    if isinstance(window.pixels, RaggedImages):
        return window.pixels.take(rows), window.labels[rows]
    # np.take is faster than indexing. mode="clip" saves a check: these rows are always in range.
    return np.take(window.pixels, rows, axis=0, mode="clip"), window.labels[rows]


def _concatenate(begun: list[Batch]) -> Batch:
    if len(begun) == 1:
        return begun[0]
    labels = np.concatenate([labels for _, labels in begun])
    if isinstance(begun[0][0], list):
        return [picture for pictures, _ in begun for picture in pictures], labels
    return np.concatenate([pixels for pixels, _ in begun]), labels


class Batches(Iterator[Batch]):
    """Iterate over the batches of an epoch; made by `Feed.epoch`. Every batch is a new array that may be modified.

    Args:
        remaining: the batches to come.
        identity: everything that the order of the batches depends on.
        done: batches that were returned before.
    """

    def __init__(self, remaining: Iterator[Batch], identity: Mapping[str, str | int | bool], done: int) -> None:
        self._remaining, self._identity, self._done = remaining, identity, done

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch = next(self._remaining)
        self._done += 1
        return batch

    def state(self) -> State:
        """Return the progress of the epoch as a dict that JSON can hold. `Feed.epoch` continues from it."""
        return {**self._identity, BATCHES_DONE: self._done}


def batches_done(
    state: Mapping[str, str | int | bool] | None, identity: Mapping[str, str | int | bool], total: int
) -> int:
    """Read from a saved state how many batches were returned before it.

    Args:
        state: made by `Batches.state`; None to start at the beginning.
        identity: as `Batches` has it, of the epoch to continue.
        total: batches of the epoch.

    Returns:
        0 to `total`; 0 without a state.

    Raises:
        FeedError: the state is damaged, or of another feed or epoch.
    """
    if state is None:
        return 0
    if not isinstance(state, Mapping) or BATCHES_DONE not in state:
        raise FeedError(f"the state is damaged: it has no {BATCHES_DONE}. Use one that `state()` made.")
    wrong = [
        f"{key} is {identity[key]!r}, in the state {state.get(key)!r}"
        for key in identity
        if state.get(key) != identity[key]
    ]
    if wrong:
        raise FeedError(f"the state is of other batches: {'; '.join(wrong)}. Use the feed that the state was saved of.")
    found = state[BATCHES_DONE]
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= total:
        raise FeedError(f"the state is damaged: {BATCHES_DONE} is {found!r}. Use one that `state()` made.")
    return found
