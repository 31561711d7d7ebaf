"""Train a model on every sample and score each of them on every part of the test role."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines import logistic
from pipeline.baselines.measure import Fit, measure
from pipeline.baselines.parts import Part
from pipeline.baselines.samples import Sample
from pipeline.recipe import BaselinePart

_MODELS = {"logistic": logistic.fit}


class Examples(NamedTuple):
    """Pictures and their classes.

    Attributes:
        pixels: gives rows of pictures, normalised, by their positions: (k,) int64 to (k, features) float32. Only
            what is asked for is held as float32.
        labels: (n,) int64 class indices.
    """

    pixels: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    labels: NDArray[np.int64]


def score(  # noqa: PLR0913 - what is trained, on what, and what it is scored on
    spec: BaselinePart,
    samples: Sequence[Sample],
    train: Examples,
    test: Examples,
    parts: Sequence[Part],
    *,
    train_dropped: int = 0,
) -> Iterator[dict[str, Any]]:
    """Train and score one baseline; every model predicts the test role once, and all parts are counted from that.

    Args:
        spec: the recipe's `[[baseline]]`.
        samples: made by `draw_samples`; their rows are positions in `train`.
        train: training examples.
        test: all test examples.
        parts: made by `name_parts`, over the rows of `test`.
        train_dropped: images that may be trained on although the split's sanitizing drops them.

    Yields:
        For each train size the rows of `measure`: model, split_name, train_size, eval_on, rule, metric, value, seed,
        seconds. Nothing without test examples.

    Raises:
        BaselineError: the labels of a sample do not serve.
    """
    if not len(test.labels):
        return
    pixels = test.pixels(np.arange(len(test.labels)))
    for size, group in groupby(samples, key=lambda sample: sample.size):
        drawn = list(group)
        fits = [_fit(spec, sample, train, pixels, test.labels) for sample in drawn]
        for row in measure(fits, parts, resampled=drawn[0].resampled, train_dropped=train_dropped):
            yield {"model": spec.model, "split_name": spec.split, "train_size": size, **row}


def _fit(
    spec: BaselinePart,
    sample: Sample,
    train: Examples,
    pixels: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> Fit:
    seen = train.pixels(sample.rows)
    started = time.perf_counter()
    predict = _MODELS[spec.model](spec.model_copy(update={"seed": sample.seed}), seen, train.labels[sample.rows])
    seconds = time.perf_counter() - started
    return Fit(sample.seed, seconds, predict(pixels) == labels)
