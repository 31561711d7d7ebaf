"""A feed as a dataset for PyTorch's DataLoader. Only `Feed.torch` imports this module: importing torch is slow."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.arrays.epoch import Batch, Batches, Plan, State
from pipeline.errors import FeedError
from pipeline.pixels import normalise


class EpochSource(Protocol):
    """What a dataset needs of a feed; `feed.Feed` has it. That module makes datasets, so this one cannot import it."""

    plan: Plan

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this rank, over all its workers."""

    def epoch(self, epoch: int, *, state: Mapping[str, str | int | bool] | None = None) -> Batches:
        """Iterate over an epoch, from a saved state on."""
        ...

    def part(self, worker: int, workers: int) -> Self:
        """Make the feed of one of several worker processes."""
        ...


class TorchFeed(IterableDataset):  # type: ignore[misc] # torch may be missing, and is Any to the type checker
    """Batches as tensors; made by `Feed.torch`, for `DataLoader(dataset, batch_size=None, num_workers=k)`.

    An item is a whole batch: (batch, height, width[, 3]) uint8, or a list of images of several shapes, and (batch,)
    int64. Workers share the batches of a
    rank: none is lost or repeated, and `len` is right for any number of workers. They also share the buffer. Batches
    come in the same order for any number of workers if the role fits into a worker's part of the buffer.

    Threads read the pixels, so `num_workers=0` is fastest unless there are transforms. Workers may be forked or
    spawned. Each opens the files and reads pixels itself.

    Every iteration is the epoch that `set_epoch` chose, at first epoch 0. `state_dict` and `load_state_dict` follow
    torchdata's StatefulDataLoader: the first returns the progress of the iteration in this process, the second makes
    the next iteration continue from it.

    Args:
        feed: where batches come from, for this rank.
        normalised: pixels as (batch, channels, height, width) float32, (p - 127.5) / 255.
    """

    def __init__(self, feed: EpochSource, *, normalised: bool = False) -> None:
        super().__init__()
        self.feed, self.normalised = feed, normalised
        # In shared memory, so that `set_epoch` reaches workers that outlive an epoch (persistent_workers).
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        # In shared memory too: workers set it, and this process then refuses to return a state.
        self._in_workers = torch.zeros((), dtype=torch.bool).share_memory_()
        self._current: Batches | None = None
        self._state: State | None = None
        # By worker: a worker that outlives an epoch keeps its pixels.
        self._parts: dict[tuple[int, int], EpochSource] = {}

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self.feed.batches_per_epoch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_current": None, "_parts": {}}

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor]]:
        state, self._state = self._state, None
        self._in_workers.fill_(get_worker_info() is not None)
        self._current = self._feed_of_process().epoch(self.epoch, state=state)
        return map(self._as_tensors, self._current)

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, which starts at its beginning. Running workers use it too."""
        self._epoch.fill_(epoch)
        self._state = None

    def state_dict(self) -> State:
        """Return the progress of the last iteration in this process. Before any iteration, it is the epoch's start.

        Raises:
            FeedError: DataLoader workers run the iteration, and only they have its progress.
        """
        if self._state is not None:
            return self._state
        if get_worker_info() is None and self._in_workers.item():
            raise FeedError(
                "workers of a DataLoader return the batches, so their progress is not available in this process. "
                "Use torchdata's StatefulDataLoader and save its state, or num_workers=0."
            )
        return (self._current or self._feed_of_process().epoch(self.epoch)).state()

    def load_state_dict(self, state: Mapping[str, str | int | bool]) -> None:
        """Make the next iteration continue from a saved state.

        Raises:
            FeedError: the state is of another dataset, rank or worker. The error lists the differences.
        """
        epoch = int(state.get("epoch", 0))
        self._feed_of_process().epoch(epoch, state=state)
        self._epoch.fill_(epoch)
        self._state = dict(state)

    def _feed_of_process(self) -> EpochSource:
        worker = get_worker_info()
        if worker is None:
            return self.feed
        part = (worker.id, worker.num_workers)
        return self._parts.setdefault(part, self.feed.part(*part))

    def _as_tensors(self, batch: Batch) -> tuple[Any, torch.Tensor]:
        pixels, labels = batch
        if isinstance(pixels, list):
            return [self._as_tensor(picture[None])[0] for picture in pixels], torch.from_numpy(labels)
        return self._as_tensor(pixels), torch.from_numpy(labels)

    def _as_tensor(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        if not self.normalised:
            return torch.from_numpy(pixels)
        scaled = torch.from_numpy(normalise(pixels))
        return scaled.unsqueeze(1) if pixels.ndim == 3 else scaled.permute(0, 3, 1, 2).contiguous()  # noqa: PLR2004 - gray has no channel axis


def plan_of_rank(plan: Plan, rank: int | None, world_size: int | None) -> Plan:
    """Choose the rank of a dataset; see `Feed.torch`.

    Raises:
        ValueError: only one of rank and world_size is given, or rank is not below world_size.
    """
    if (rank is None) != (world_size is None):
        raise ValueError("rank and world_size belong together: give both or neither")
    if rank is not None and world_size is not None:
        return replace(plan, rank=rank, world_size=world_size)
    if plan.world_size == 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        return replace(plan, rank=torch.distributed.get_rank(), world_size=torch.distributed.get_world_size())
    return plan
