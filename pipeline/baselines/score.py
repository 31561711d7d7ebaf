"""Train a model at every asked size and score it on every part of the test role."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines import logistic
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart

_MODELS = {"logistic": logistic.fit}


class Examples(NamedTuple):
    """Pictures and their classes: (n, features) float32 and (n,) int64."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]


def score(spec: BaselinePart, train: Examples, tests: Mapping[str, Examples]) -> Iterator[dict[str, Any]]:
    """Train and score one baseline.

    Args:
        spec: the recipe's `[[baseline]]`.
        train: training examples in the order of the split: a train size takes the first so many.
        tests: what to score on, by name (original, sanitized, overlap); empty ones are left out.

    Yields:
        For each size and each part: model, split_name, train_size, eval_on, metric, value (0 to 1), seed, seconds.

    Raises:
        BaselineError: a size is larger than the train role, or the labels do not serve.
    """
    for size in sizes(spec, len(train.labels)):
        started = time.perf_counter()
        predict = _MODELS[spec.model](spec, train.pixels[:size], train.labels[:size])
        seconds = time.perf_counter() - started
        for eval_on, test in tests.items():
            if len(test.labels):
                yield {
                    "model": spec.model,
                    "split_name": spec.split,
                    "train_size": size,
                    "eval_on": eval_on,
                    "rule": None,
                    "metric": "accuracy",
                    "value": float(np.mean(predict(test.pixels) == test.labels)),
                    "seed": spec.seed,
                    "seconds": seconds,
                }


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
