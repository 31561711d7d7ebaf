"""Which training images every fit of a baseline sees."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BaselineError
from pipeline.mixing import order_keys
from pipeline.recipe import BaselinePart

_SEEDS = 2**32  # what scikit-learn takes


class Sample(NamedTuple):
    """What one fit is trained on.

    Attributes:
        size: the train size asked for, in images.
        seed: of the fit.
        rows: (size,) int64 positions in the pool; some occur several times where the sample is a bootstrap sample.
        resampled: whether seeds after the first draw bootstrap samples at this size; the same for all of its seeds.
    """

    size: int
    seed: int
    rows: NDArray[np.int64]
    resampled: bool


def draw_samples(spec: BaselinePart, image_ids: NDArray[np.uint8]) -> list[Sample]:
    """Draw the training samples of a baseline: one for each train size and seed.

    The first seed takes the first `size` images of the split's order, which is random. Every further seed draws a
    sample of its own without replacement; a larger sample of one seed holds the smaller ones. Where `size` is the whole
    pool, such samples would all be equal, and so would the models: there every further seed draws a bootstrap sample,
    `size` images with replacement.

    A sample is made by image id and seed alone: equal on every machine, whatever else is trained.

    Args:
        spec: the recipe's `[[baseline]]`: train_sizes, seed and seeds are used.
        image_ids: (n, 16) uint8, the images that may be trained on, in the order of the split.

    Returns:
        Ordered by train size as the recipe asks for them, then by seed, the first seed first.

    Raises:
        BaselineError: a size is larger than the pool, or the pool is empty.
    """
    count = len(image_ids)
    seeds = [(spec.seed + number) % _SEEDS for number in range(spec.seeds)]
    return [
        Sample(size, seed, _rows(image_ids, size, seed, first=seed == spec.seed), size == count)
        for size in sizes(spec, count)
        for seed in seeds
    ]


def sizes(spec: BaselinePart, available: int) -> list[int]:
    """Resolve the recipe's train sizes against the images there are; equal sizes are trained once.

    Raises:
        BaselineError: a size is larger than `available`.
    """
    asked = [available if size == "all" else size for size in spec.train_sizes]
    over = sorted({size for size in asked if size > available})
    if over or not available:
        raise BaselineError(
            f"baseline '{spec.model}' asks for train sizes {over or asked}, but the train role of split '{spec.split}' "
            f"keeps {available} images. Take these sizes out, or make the role larger."
        )
    return list(dict.fromkeys(asked))


def _rows(image_ids: NDArray[np.uint8], size: int, seed: int, *, first: bool) -> NDArray[np.int64]:
    if first:
        return np.arange(size)
    count = len(image_ids)
    if size == count:
        # Of 2^64 numbers, count take each image equally often but for one in 2^64 / count.
        return (order_keys(image_ids, seed, "baseline bootstrap") % np.uint64(count)).astype(np.int64)
    return np.argsort(order_keys(image_ids, seed, "baseline sample"), kind="stable")[:size]
