"""Feed a role of a split to a training loop: shuffled batches, epoch after epoch."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline import arguments
from pipeline.arrays.epoch import (
    Batch,
    Batches,
    Plan,
    RoleByGroup,
    Window,
    batches_done,
    cut_into_batches,
    epoch_order,
    read_windows,
    sort_by_group,
)
from pipeline.arrays.spill import SpilledGroups, SpillFile
from pipeline.errors import MissingExtraError
from pipeline.pixels import Located, RaggedImages, gather, gather_ragged, padded

if TYPE_CHECKING:
    from pipeline.arrays.torch_feed import TorchFeed

BUFFER_BYTES = 2**28


@dataclass(frozen=True)
class Images:
    """The images of a role.

    Attributes:
        about: release, split, role and sanitized.
        image_ids: (n, 16) uint8, in the order of the split.
        labels: (n,) int64, -1 for an image without a label; or (n, labels) uint8, 0 and 1, of several labels an image.
        where: location of the pixels, in the same order: rows of a lake, or the path of a .npy file.
    """

    about: Mapping[str, str | int | bool]
    image_ids: NDArray[np.uint8]
    labels: NDArray[Any]
    where: Located | str

    def __len__(self) -> int:
        return len(self.labels)


class _InMemory(NamedTuple):
    """All images in the order of the file; image i of the role is at `rows[i]`."""

    pixels: NDArray[np.uint8] | RaggedImages
    labels: NDArray[Any]
    rows: NDArray[np.int64]


class Feed:
    """Shuffled batches of a role; made by `Lake.feed` and `NpyFolder.feed`.

    An epoch returns every image once. Its order depends on image ids, seed and epoch.

    - A role that fits into the buffer is read with the first batch and stays in memory for all epochs. A .npy file is
      memory-mapped. In both cases every epoch is a full shuffle, the same for a lake and its export. Ranks have
      consecutive parts of it, and the workers of a rank take its batches in turn.
    - A larger role is read in windows of half the buffer; see `epoch.read_windows`. The order then also depends on
      `buffer_bytes` and on the number of ranks and workers, never on threads or time. Its pixels are decoded once, into
      a temporary file that later epochs read; what does not fit there is decoded again in every epoch.

    A feed can be pickled. The copy has no pixels and reads its own.

    Args:
        images: the images of the role.
        plan: how to shuffle, cut and share them.
        pad: whether a batch of images of several shapes is one array of the largest height and width in it, with zeros
            to the right and below; else it is a list.
        spill: file for the decoded pixels of a role that is larger than the buffer.
    """

    def __init__(self, images: Images, plan: Plan, *, pad: bool = False, spill: SpillFile | None = None) -> None:
        self.images, self.plan, self.pad, self.spill = images, plan, pad, spill

    def __len__(self) -> int:
        """Count the images of this rank, without those that `drop_last` leaves out."""
        return len(self.plan.rank_positions(len(self.images)))

    def __getstate__(self) -> dict[str, Any]:
        return {"images": self.images, "plan": self.plan, "pad": self.pad, "spill": self.spill}

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this rank, over all its workers."""
        return self.plan.batches(len(self.images))

    @property
    def held_whole(self) -> bool:
        """Whether every epoch is a full shuffle: the role fits into the buffer, or is memory-mapped."""
        where = self.images.where
        return isinstance(where, str) or int(where.sizes.sum()) <= self._buffer_bytes

    def epoch(self, epoch: int, *, state: Mapping[str, str | int | bool] | None = None) -> Batches:
        """Iterate over an epoch.

        Args:
            epoch: any integer; each epoch has another order.
            state: made by `Batches.state`: continue with the next batch. Earlier batches are not read again.

        Returns:
            An iterator of (batch, height, width[, 3]) uint8, or a list of such images if they have several shapes, and
            (batch,) int64. Every batch except the last is full, and every batch is a new array.

        Raises:
            FeedError: the state is of other batches. The error lists the differences.
            TypeError: `epoch` is not a whole number.
        """
        epoch = arguments.whole_number("epoch", epoch)
        identity = {**self.images.about, "images": self._ids_digest, **asdict(self.plan), "epoch": epoch}
        skip = batches_done(state, identity, self.plan.batches(len(self.images)))
        return Batches(self._batches(epoch, skip), identity, skip)

    def torch(self, *, normalised: bool = False, rank: int | None = None, world_size: int | None = None) -> "TorchFeed":
        """Make a dataset for PyTorch's DataLoader, to be used with `batch_size=None`; see `TorchFeed`.

        Args:
            normalised: pixels as (batch, channels, height, width) float32, (p - 127.5) / 255, instead of uint8 with
                channels last.
            rank: this rank of `world_size`. Without both arguments it is the rank of this feed. If the feed has only
                one rank and torch.distributed is initialised, it is the rank of the process.
            world_size: number of ranks.

        Raises:
            MissingExtraError: PyTorch is not installed.
            ValueError: only one of rank and world_size is given, or rank is not below world_size.
        """
        try:
            from pipeline.arrays.torch_feed import TorchFeed, plan_of_rank  # noqa: PLC0415 - torch is optional, and slow
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingExtraError(
                "torch is not installed, and a dataset for its DataLoader needs it. Run: pip install torch. "
                "Feed.epoch works without torch."
            ) from error
        if self.spill is not None:
            # Opened before workers start: they share it then.
            self.spill.open()
        ranked = self._with_plan(plan_of_rank(self.plan, rank, world_size))
        return TorchFeed(ranked, normalised=normalised)

    def part(self, worker: int, workers: int) -> Self:
        """Make the feed of one of several worker processes. They share the batches of this rank, and its buffer."""
        return self._with_plan(replace(self.plan, worker=worker, workers=workers))

    def _with_plan(self, plan: Plan) -> Self:
        return type(self)(self.images, plan, pad=self.pad, spill=self.spill)

    @property
    def _buffer_bytes(self) -> int:
        return self.plan.buffer_bytes // self.plan.workers

    @cached_property
    def _ids_digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(self.images.image_ids).data)

    @cached_property
    def _in_memory(self) -> _InMemory:
        where, labels = self.images.where, self.images.labels
        rows = np.arange(len(labels))
        if isinstance(where, str):
            # A plain array over the mapped pages, so that batches are plain arrays too.
            return _InMemory(np.asarray(np.load(where, mmap_mode="r", allow_pickle=False)), labels, rows)
        # File order is read twice as fast, and an epoch is shuffled anyway.
        file_order = where.file_order()
        rows[file_order] = np.arange(len(file_order))
        read = gather if where.shapes is None else gather_ragged
        return _InMemory(read(where.take(file_order)), labels[file_order], rows)

    @cached_property
    def _by_group(self) -> RoleByGroup:
        if isinstance(self.images.where, str):
            raise TypeError("a mapped file has no row groups")
        return sort_by_group(self.images.where, self.images.image_ids, self.images.labels)

    @cached_property
    def _spilled(self) -> SpilledGroups | None:
        if self.spill is None or self.spill.open() is None:
            return None
        return SpilledGroups(self.spill, self._by_group.where)

    def _batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        if not len(self):
            return iter(())
        read = self._one_window if self.held_whole else self._windows
        batches = cut_into_batches(read(epoch, skip), self.plan.batch_size)
        return ((padded(pictures), labels) for pictures, labels in batches) if self.pad else batches

    def _one_window(self, epoch: int, skip: int) -> Iterator[Window]:
        positions, size = self.plan.rank_positions(len(self.images)), self.plan.batch_size
        order = epoch_order(self.images.image_ids, self.plan.seed, epoch)[positions.start : positions.stop]
        batches = self.plan.interleaved_batches(len(self.images))[skip:]
        if len(batches) < self.plan.batches(len(self.images)):
            order = np.concatenate([order[n * size : (n + 1) * size] for n in batches] or [order[:0]])
        held = self._in_memory
        yield Window(held.pixels, held.labels, held.rows[order])

    def _windows(self, epoch: int, skip: int) -> Iterator[Window]:
        size = self.plan.batch_size
        batches = self.plan.consecutive_batches(len(self.images))
        positions = self.plan.rank_positions(len(self.images))[batches.start * size : batches.stop * size]
        return read_windows(
            self._by_group,
            self.plan.seed,
            epoch,
            positions,
            buffer_bytes=self._buffer_bytes,
            skip=skip * size,
            decoded=self._spilled,
        )
