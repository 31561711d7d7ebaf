"""In which order an epoch goes, and which part of it belongs to whom: functions of ids, seed and counts alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.mixing import order_keys


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
