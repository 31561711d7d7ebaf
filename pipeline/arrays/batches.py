"""Shuffled batches: every image once an epoch, in an order made by seed and epoch alone."""

from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays.gather import gather
from pipeline.arrays.locate import Located
from pipeline.mixing import order_keys

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def epoch_order(image_ids: NDArray[np.uint8], seed: int, epoch: int) -> NDArray[np.int64]:
    """Order images for an epoch.

    Args:
        image_ids: (n, 16) uint8, in the order of the split.
        seed: any integer.
        epoch: any integer; another epoch is another order.

    Returns:
        (n,) a permutation of 0 to n - 1, uniform over all of them as far as 64-bit keys can tell.
    """
    return np.argsort(order_keys(image_ids, seed, f"epoch {epoch}"), kind="stable")


def batches(
    where: Located, labels: NDArray[np.int64], order: NDArray[np.int64], batch_size: int, buffer_bytes: int
) -> Iterator[Batch]:
    """Hand out batches in a given order.

    Pixels are read a buffer at a time. A split larger than the buffer is read once for every buffer it fills: the order
    is a full shuffle whatever the buffer, which is bought with reading.

    Args:
        where: the images of the split.
        labels: (n,) int64, in the order of `where`.
        order: (n,) permutation of the images.
        batch_size: images in every batch but the last.
        buffer_bytes: bytes of pixels to hold, at least those of one batch.

    Yields:
        (batch, height, width[, 3]) uint8 and (batch,) int64.
    """
    per_batch = max(1, prod(where.shape) * batch_size)
    step = max(1, buffer_bytes // per_batch) * batch_size
    for start in range(0, len(order), step):
        part = order[start : start + step]
        pixels = gather(where.take(part))
        for at in range(0, len(part), batch_size):
            yield pixels[at : at + batch_size], labels[part[at : at + batch_size]]
