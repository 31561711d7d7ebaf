"""The data that a baseline is trained and evaluated on.

The test role is evaluated in parts: all of it, the images that overlap with training, and those that do not.
`draw_samples` chooses the training images of every fit.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.baselines.model import Examples
from pipeline.errors import BaselineError
from pipeline.hashing import order_keys
from pipeline.recipe import BaselinePart

Mask = NDArray[np.bool_]


class EvalPart(NamedTuple):
    """A part of the test role.

    Attributes:
        eval_on: original, sanitized or overlap.
        rule: the rule that found the overlap; None for the split's own sanitizing, and for the original.
        rows: (n,) bool, true for the test images of the part.
    """

    eval_on: str
    rule: str | None
    rows: Mask


def find_overlaps(clusters: pl.LazyFrame, train: pl.Series, test: pl.Series, rules: Iterable[str]) -> dict[str, Mask]:
    """Find, for each rule, the test images that have a duplicate in the images for training.

    Args:
        clusters: rows of the clusters table; rule, cluster_id and image_id are read.
        train: ids of all images that may be trained on, not only of those that a sample draws.
        test: ids of the test images.
        rules: rules to use.

    Returns:
        By rule, in the order of `rules`: (n,) bool, in the order of `test`; true if the image shares a cluster of that
        rule with an image of `train`. All false for a rule without clusters.
    """
    members = clusters.select("rule", "cluster_id", "image_id")
    with_train = members.join(train.to_frame("image_id").lazy(), on="image_id", how="semi")
    overlapping = (
        members.join(test.to_frame("image_id").lazy(), on="image_id", how="semi")
        .join(with_train, on=["rule", "cluster_id"], how="semi")
        .select("rule", "image_id")
        .collect()
    )
    return {rule: test.is_in(overlapping.filter(rule=rule)["image_id"].implode()).to_numpy() for rule in rules}


def name_parts(kept: Mask, overlaps: Mapping[str, Mask]) -> list[EvalPart]:
    """List the parts of a role to evaluate.

    Args:
        kept: (n,) bool, whether the split's own sanitizing keeps each image.
        overlaps: made by `find_overlaps`.

    Returns:
        The original; then for the split's own sanitizing (rule None) and for every rule the sanitized and the overlap
        part, which together are the original. A part may be empty.
    """
    by_rule: list[tuple[str | None, Mask]] = [(None, ~kept), *overlaps.items()]
    parts = [
        part for rule, rows in by_rule for part in (EvalPart("sanitized", rule, ~rows), EvalPart("overlap", rule, rows))
    ]
    return [EvalPart("original", None, np.ones(len(kept), dtype=np.bool_)), *parts]


class EvalData(NamedTuple):
    """The data that a baseline is trained and evaluated on.

    Attributes:
        train: examples that samples select from.
        roles: valid, if the split has it, and test.
        parts: of each of these roles; the original comes first.
        names: of the classes.
        shape: (height, width, channels) of all images.
        train_dropped: images for training that the split's sanitizing drops.
    """

    train: Examples
    roles: Mapping[str, Examples]
    parts: Mapping[str, Sequence[EvalPart]]
    names: Sequence[str]
    shape: tuple[int, int, int]
    train_dropped: int = 0


def one_against_rest(part: BaselinePart, data: EvalData) -> EvalData:
    """Reduce the classes to two, "not CLASS" and CLASS, if the recipe has `positive`.

    Raises:
        BaselineError: the split has no such class.
    """
    if part.positive is None:
        return data
    if part.positive not in data.names:
        raise BaselineError(
            f"baseline '{part.model}' has positive = '{part.positive}', but the classes of split '{part.split}' are "
            f"{', '.join(data.names)}. Set positive to one of them."
        )
    position = list(data.names).index(part.positive)

    def reduced(examples: Examples) -> Examples:
        return examples._replace(labels=(examples.labels == position).astype(np.int64))

    roles = {role: reduced(examples) for role, examples in data.roles.items()}
    return data._replace(train=reduced(data.train), roles=roles, names=(f"not {part.positive}", part.positive))


_MAX_SEEDS = 2**32  # scikit-learn takes no larger seed


class Sample(NamedTuple):
    """The training images of one fit.

    Attributes:
        size: number of training images.
        seed: of the fit.
        rows: (size,) int64 positions in the images for training. A sample with replacement has some of them several
            times.
        resampled: whether seeds after the first draw bootstrap samples at this size, and the first does not; equal for
            all seeds of the size.
    """

    size: int
    seed: int
    rows: NDArray[np.int64]
    resampled: bool


def draw_samples(part: BaselinePart, image_ids: NDArray[np.uint8]) -> list[Sample]:
    """Draw the training samples of a baseline: one for each train size and seed.

    The first seed takes the first `size` images of the split's order, which is random. Every further seed draws its own
    sample without replacement; a larger sample of a seed contains the smaller ones. If `size` is the whole train role,
    all these samples would be equal, and so would the models. Every further seed then draws a bootstrap sample: `size`
    images with replacement.

    With `replacement` every seed, also the first, draws its images with replacement, at every size.

    A sample depends on image ids and seed alone. It is the same on every machine and for every other baseline.

    Args:
        part: `train_sizes`, `seed`, `seeds` and `replacement` are used.
        image_ids: (n, 16) uint8, the images that may be trained on, in the order of the split.

    Returns:
        Samples ordered by train size as in the recipe, then by seed, the first seed first.

    Raises:
        BaselineError: a size is larger than n, or n is 0.
    """
    count = len(image_ids)
    seeds = [(part.seed + number) % _MAX_SEEDS for number in range(part.seeds)]
    return [
        Sample(size, seed, _draw_rows(part, image_ids, size, seed), size == count and not part.replacement)
        for size in resolve_sizes(part, count)
        for seed in seeds
    ]


def resolve_sizes(part: BaselinePart, available: int) -> list[int]:
    """Replace "all" in the recipe's train sizes by a number; list each size once.

    Raises:
        BaselineError: a size is larger than `available`, or `available` is 0.
    """
    requested = [available if size == "all" else size for size in part.train_sizes]
    too_large = sorted({size for size in requested if size > available})
    if too_large or not available:
        raise BaselineError(
            f"baseline '{part.model}' has train sizes {too_large or requested}, but the train role of split "
            f"'{part.split}' keeps {available} images. Take these sizes out, or make the role larger."
        )
    return list(dict.fromkeys(requested))


def _draw_rows(part: BaselinePart, image_ids: NDArray[np.uint8], size: int, seed: int) -> NDArray[np.int64]:
    if seed == part.seed and not part.replacement:
        return np.arange(size)
    count = len(image_ids)
    if size == count or part.replacement:
        # The modulo favours no image by more than count / 2^64.
        return (order_keys(image_ids[:size], seed, "baseline bootstrap") % np.uint64(count)).astype(np.int64)
    return np.argsort(order_keys(image_ids, seed, "baseline sample"), kind="stable")[:size]
