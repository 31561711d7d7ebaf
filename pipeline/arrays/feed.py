"""A role of a split, ready to be handed out in shuffled batches, epoch after epoch."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.arrays.batches import Batch, Batches, cut, done
from pipeline.arrays.windows import Grouped, Plan, Window, epoch_order, grouped, windows
from pipeline.errors import MissingExtraError
from pipeline.pixels import Located, gather

if TYPE_CHECKING:
    from pipeline.arrays.torch_feed import TorchFeed

BUFFER_BYTES = 2**28


@dataclass(frozen=True)
class Images:
    """The images of a role.

    Attributes:
        about: what they are: release, split, role, sanitized.
        image_ids: (n, 16) uint8, in the order of the split.
        labels: (n,) int64, -1 where an image has none.
        where: where their pixels lie, in the same order: in a lake, or in a file of numpy's format.
    """

    about: Mapping[str, str | int | bool]
    image_ids: NDArray[np.uint8]
    labels: NDArray[np.int64]
    where: Located | str

    def __len__(self) -> int:
        return len(self.labels)


class _Held(NamedTuple):
    """All images, as they lie on disk: image i of the role is at `rows[i]`."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


class Feed:
    """Shuffled batches of a role; made by `Lake.feed` and `NpyFolder.feed`.

    An epoch hands out every image once; its order is made by ids, seed and epoch alone.

    - A role that fits into the buffer is read with the first batch and held for all epochs, and so is a file that is
      mapped into memory (its pages are the system's). Every epoch is a full shuffle, the same wherever it comes from,
      and ranks have consecutive parts of it. Workers of a rank take its batches in turn.
    - A larger one is read anew every epoch, in windows of half the buffer; see `windows`. The order also depends on
      `buffer_bytes` and on how many ranks and workers there are, never on threads or time.

    It can be pickled: the copy has no pixels and reads its own.

    Args:
        images: what to hand out.
        plan: how.
    """

    def __init__(self, images: Images, plan: Plan) -> None:
        self.images, self.plan = images, plan

    def __len__(self) -> int:
        """Count the images of this rank, without those that `drop_last` leaves out."""
        return len(self.plan.span(len(self.images)))

    def __getstate__(self) -> dict[str, Any]:
        return {"images": self.images, "plan": self.plan}

    @property
    def batches_per_epoch(self) -> int:
        """How many batches this rank has, by all its workers."""
        return self.plan.batches(len(self.images))

    @property
    def held_whole(self) -> bool:
        """Whether every epoch is a full shuffle: the role fits into the buffer, or is mapped into memory."""
        where = self.images.where
        return isinstance(where, str) or len(where) * prod(where.shape) <= self._buffer_bytes

    def epoch(self, epoch: int, *, state: Mapping[str, str | int | bool] | None = None) -> Batches:
        """Hand out an epoch.

        Args:
            epoch: any integer; another epoch is another order.
            state: what `Batches.state` told: go on with the batch after. What was handed out is not read again.

        Returns:
            An iterator of (batch, height, width[, 3]) uint8 and (batch,) int64. Every batch is full but the last, and
            is an array of its own.

        Raises:
            FeedError: the state is of other batches; what differs is named.
        """
        about = {**self.images.about, "images": self._digest, **asdict(self.plan), "epoch": index(epoch)}
        skip = done(state, about, self.plan.batches(len(self.images)))
        return Batches(self._batches(index(epoch), skip), about, skip)

    def torch(self, *, normalised: bool = False, rank: int | None = None, world_size: int | None = None) -> "TorchFeed":
        """Make a dataset for PyTorch's DataLoader, with `batch_size=None` there; see `TorchFeed`.

        Args:
            normalised: pixels as (batch, channels, height, width) float32, (p - 127.5) / 255, instead of uint8 with
                channels last.
            rank: which of `world_size` ranks this is. Where neither is given: this feed's, or, if that has
                one rank only, the process's where torch.distributed is initialised.
            world_size: how many ranks there are.

        Raises:
            MissingExtraError: PyTorch is not installed.
        """
        try:
            from pipeline.arrays.torch_feed import TorchFeed, ranks  # noqa: PLC0415 - torch is optional, and slow to load
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingExtraError(
                "torch is not installed, and a dataset for its DataLoader needs it. Run: pip install torch. "
                "Feed.epoch needs no torch."
            ) from error
        return TorchFeed(Feed(self.images, ranks(self.plan, rank, world_size)), normalised=normalised)

    def part(self, worker: int, workers: int) -> Self:
        """Make the feed of one of several processes that share this rank's batches and, in equal parts, its buffer."""
        return type(self)(self.images, replace(self.plan, worker=worker, workers=workers))

    @property
    def _buffer_bytes(self) -> int:
        return self.plan.buffer_bytes // self.plan.workers

    @cached_property
    def _digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(self.images.image_ids).data)

    @cached_property
    def _held(self) -> _Held:
        where, labels = self.images.where, self.images.labels
        rows = np.arange(len(labels))
        if isinstance(where, str):
            # A plain array on the same pages: batches of it are plain arrays too.
            return _Held(np.asarray(np.load(where, mmap_mode="r", allow_pickle=False)), labels, rows)
        # In the order of the files they are read twice as fast, and an epoch is shuffled anyway.
        lying = where.file_order()
        rows[lying] = np.arange(len(lying))
        return _Held(gather(where.take(lying)), labels[lying], rows)

    @cached_property
    def _grouped(self) -> Grouped:
        if isinstance(self.images.where, str):
            raise TypeError("a mapped file has no row groups")
        return grouped(self.images.where, self.images.image_ids, self.images.labels)

    def _batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        if not len(self):
            return iter(())
        read = self._whole if self.held_whole else self._windows
        return cut(read(epoch, skip), self.plan.batch_size)

    def _whole(self, epoch: int, skip: int) -> Iterator[Window]:
        span, size = self.plan.span(len(self.images)), self.plan.batch_size
        order = epoch_order(self.images.image_ids, self.plan.seed, epoch)[span.start : span.stop]
        mine = self.plan.dealt(len(self.images))[skip:]
        if len(mine) < self.plan.batches(len(self.images)):
            order = np.concatenate([order[n * size : (n + 1) * size] for n in mine] or [order[:0]])
        held = self._held
        yield Window(held.pixels, held.labels, held.rows[order])

    def _windows(self, epoch: int, skip: int) -> Iterator[Window]:
        span, size = self.plan.span(len(self.images)), self.plan.batch_size
        mine = self.plan.run(len(self.images))
        places = span[mine.start * size : mine.stop * size]
        return windows(self._grouped, self.plan.seed, epoch, places, buffer_bytes=self._buffer_bytes, skip=skip * size)
