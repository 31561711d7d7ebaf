"""What a baseline is trained and examined on.

Parts of the test role that a model is scored on: all of it, and what overlaps with training and what does not.

Which training images every fit of a baseline sees.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.baselines.model import Examples
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart
from pipeline.stable_order import order_keys

Mask = NDArray[np.bool_]


class Part(NamedTuple):
    """A part of the test role.

    Attributes:
        eval_on: original, sanitized or overlap.
        rule: by which it was told apart; None for the split's own sanitizing, and for the original.
        rows: (n,) bool, true for the test images in it.
    """

    eval_on: str
    rule: str | None
    rows: Mask


def find_overlaps(clusters: pl.LazyFrame, train: pl.Series, test: pl.Series, rules: Iterable[str]) -> dict[str, Mask]:
    """Find, rule by rule, the test images whose picture the model may have been trained on.

    Args:
        clusters: rows of the clusters table; rule, cluster_id and image_id are read.
        train: ids of all images that may be trained on, not only of those that a sample draws.
        test: ids of the test images.
        rules: rules to tell by.

    Returns:
        By rule, in the order of `rules`: (n,) bool, in the order of `test`; true where the image shares a cluster of
        that rule with an image of `train`. All false for a rule without clusters.
    """
    members = clusters.select("rule", "cluster_id", "image_id")
    seen = members.join(train.to_frame("image_id").lazy(), on="image_id", how="semi")
    touched = (
        members.join(test.to_frame("image_id").lazy(), on="image_id", how="semi")
        .join(seen, on=["rule", "cluster_id"], how="semi")
        .select("rule", "image_id")
        .collect()
    )
    return {rule: test.is_in(touched.filter(rule=rule)["image_id"].implode()).to_numpy() for rule in rules}


def name_parts(kept: Mask, overlaps: Mapping[str, Mask]) -> list[Part]:
    """Name the parts to score on.

    Args:
        kept: (n,) bool, whether the split's own sanitizing keeps each test image.
        overlaps: made by `find_overlaps`.

    Returns:
        The original; then for the split's own sanitizing (rule None) and for every rule the sanitized and the overlap
        part, which share out the original without remainder. A part may be empty.
    """
    told: list[tuple[str | None, Mask]] = [(None, ~kept), *overlaps.items()]
    halves = [part for rule, rows in told for part in (Part("sanitized", rule, ~rows), Part("overlap", rule, rows))]
    return [Part("original", None, np.ones(len(kept), dtype=np.bool_)), *halves]


class Exam(NamedTuple):
    """What a baseline is trained and examined on.

    Attributes:
        train: examples that samples point into.
        roles: valid, where there is one, and test.
        parts: of each of these roles; the original comes first.
        names: of the classes.
        shape: (height, width, channels) of all pictures.
        train_dropped: images that may be trained on although the split's sanitizing drops them.
    """

    train: Examples
    roles: Mapping[str, Examples]
    parts: Mapping[str, Sequence[Part]]
    names: Sequence[str]
    shape: tuple[int, int, int]
    train_dropped: int = 0


def of_two_classes(spec: BaselinePart, exam: Exam) -> Exam:
    """Make it a question of two classes, where the recipe asks for one of them.

    Raises:
        BaselineError: the class is none of the split's.
    """
    if spec.positive is None:
        return exam
    if spec.positive not in exam.names:
        raise BaselineError(
            f"baseline '{spec.model}' looks for class '{spec.positive}', but split '{spec.split}' has "
            f"{', '.join(exam.names)}. Give one of these as positive."
        )
    place = list(exam.names).index(spec.positive)

    def told(examples: Examples) -> Examples:
        return examples._replace(labels=(examples.labels == place).astype(np.int64))

    roles = {role: told(examples) for role, examples in exam.roles.items()}
    return exam._replace(train=told(exam.train), roles=roles, names=(f"not {spec.positive}", spec.positive))


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
