"""A feed as a dataset for PyTorch's DataLoader. The only module that imports torch, and only who asks for it does."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.arrays.batches import Batch, Batches, State
from pipeline.arrays.feed import Feed
from pipeline.arrays.windows import Plan
from pipeline.errors import FeedError
from pipeline.pixels import normalise


class TorchFeed(IterableDataset):  # type: ignore[misc] # torch may be missing, and is Any to the type checker
    """Batches as tensors; made by `Feed.torch`, for `DataLoader(dataset, batch_size=None, num_workers=k)`.

    An item is a whole batch: (batch, height, width[, 3]) uint8 and (batch,) int64. Workers share a rank's batches, so
    none is lost or doubled and `len` is right for any number of them. They also share the buffer; where the role fits
    into a worker's part of it, batches come in the same order for any number of workers.

    Reading takes threads, not workers: without transforms `num_workers=0` is fastest. Workers may be forked or spawned;
    they open the files and read pixels themselves.

    Every iteration is the epoch that `set_epoch` named, at first epoch 0. As torchdata's StatefulDataLoader wants it,
    `state_dict` tells how far the iteration has come in this process, and `load_state_dict` makes the next one go on.

    Args:
        feed: where batches come from, for this rank.
        normalised: pixels as (batch, channels, height, width) float32, (p - 127.5) / 255.
    """

    def __init__(self, feed: Feed, *, normalised: bool = False) -> None:
        super().__init__()
        self.feed, self.normalised = feed, normalised
        # Shared, so that workers that outlive an epoch (persistent_workers) hear of the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        # Shared too: workers tell that they, and not this process, know how far an iteration has come.
        self._elsewhere = torch.zeros((), dtype=torch.bool).share_memory_()
        self._begun: Batches | None = None
        self._state: State | None = None
        # By worker: one that outlives an epoch keeps its pixels.
        self._parts: dict[tuple[int, int], Feed] = {}

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self.feed.batches_per_epoch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_begun": None, "_parts": {}}

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        state, self._state = self._state, None
        self._elsewhere.fill_(get_worker_info() is not None)
        self._begun = self._feed().epoch(self.epoch, state=state)
        return map(self._as_tensors, self._begun)

    @property
    def epoch(self) -> int:
        """The epoch that an iteration hands out."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, which starts at its beginning; also in workers that are running."""
        self._epoch.fill_(epoch)
        self._state = None

    def state_dict(self) -> State:
        """Tell how far the last iteration has come in this process; before any, that its epoch is to begin.

        Raises:
            FeedError: the iteration is in workers of a DataLoader, which alone know.
        """
        if self._state is not None:
            return self._state
        if get_worker_info() is None and self._elsewhere.item():
            raise FeedError(
                "the batches were handed out by workers of a DataLoader, so this process does not know how far they "
                "are. Use torchdata's StatefulDataLoader and save its state, or num_workers=0."
            )
        return (self._begun or self._feed().epoch(self.epoch)).state()

    def load_state_dict(self, state: Mapping[str, str | int | bool]) -> None:
        """Go on, with the next iteration, where a state was saved.

        Raises:
            FeedError: it is of another dataset, rank or worker; what differs is named.
        """
        epoch = int(state.get("epoch", 0))
        self._feed().epoch(epoch, state=state)
        self._epoch.fill_(epoch)
        self._state = dict(state)

    def _feed(self) -> Feed:
        worker = get_worker_info()
        if worker is None:
            return self.feed
        part = (worker.id, worker.num_workers)
        return self._parts.setdefault(part, self.feed.part(*part))

    def _as_tensors(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, labels = batch
        if not self.normalised:
            return torch.from_numpy(pixels), torch.from_numpy(labels)
        scaled = torch.from_numpy(normalise(pixels))
        placed = scaled.unsqueeze(1) if pixels.ndim == 3 else scaled.permute(0, 3, 1, 2).contiguous()  # noqa: PLR2004 - gray has no channel axis
        return placed, torch.from_numpy(labels)


def ranks(plan: Plan, rank: int | None, world_size: int | None) -> Plan:
    """Decide which rank a dataset is for; see `Feed.torch`.

    Raises:
        ValueError: one is given without the other, or rank is not below world_size.
    """
    if (rank is None) != (world_size is None):
        raise ValueError("rank and world_size belong together: give both or neither")
    if rank is not None and world_size is not None:
        return replace(plan, rank=rank, world_size=world_size)
    if plan.world_size == 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        return replace(plan, rank=torch.distributed.get_rank(), world_size=torch.distributed.get_world_size())
    return plan
