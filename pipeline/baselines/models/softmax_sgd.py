"""Softmax regression by mini-batch stochastic gradient descent on normalised pixels, in plain numpy.

It stands for the one-layer model of the notMNIST notebooks, which went by batches of 128 for 20 epochs.
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.epochs import Learner, fit_by_epochs
from pipeline.baselines.model import Labels, Model, Pixels, Scores, Task
from pipeline.pixels import normalise
from pipeline.recipe import BaselinePart

Float = TypeVar("Float", np.float32, np.float64)


class Slope(NamedTuple):
    """Mean cross-entropy of a batch, in nats, and its gradient: (features, classes) and (classes,)."""

    loss: float
    weights: NDArray[np.floating]
    bias: NDArray[np.floating]


def fit(spec: BaselinePart, task: Task) -> Model:
    """Fit from weights of zero.

    Args:
        spec: `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: what to learn from.

    Raises:
        BaselineError: there is `patience`, but no valid example.
    """
    return fit_by_epochs(spec, task, lambda outputs: _learner(cast("float", spec.learning_rate), task, outputs))


def _learner(rate: float, task: Task, outputs: int) -> Learner:
    weights, bias = np.zeros((prod(task.shape), outputs), np.float32), np.zeros(outputs, np.float32)

    def step(pixels: Pixels, labels: Labels) -> float:
        slope = find_slope(weights, bias, normalise(pixels), labels)
        np.subtract(weights, rate * slope.weights, out=weights, dtype=np.float32)
        np.subtract(bias, rate * slope.bias, out=bias, dtype=np.float32)
        return slope.loss

    def scores(pixels: Pixels) -> Scores:
        out: Scores = np.exp(log_softmax(normalise(pixels) @ weights + bias))
        return out

    def remember() -> Callable[[], None]:
        held = weights.copy(), bias.copy()

        def back() -> None:
            weights[:], bias[:] = held

        return back

    return Learner(step, scores, remember)


def log_softmax(scores: NDArray[Float]) -> NDArray[Float]:
    """Make log-probabilities of scores, row by row: less the largest first, so that no exponential overflows."""
    lowered: NDArray[Float] = scores - scores.max(axis=1, keepdims=True)
    lowered -= np.log(np.exp(lowered).sum(axis=1, keepdims=True))
    return lowered


def find_slope(weights: NDArray[Float], bias: NDArray[Float], inputs: NDArray[Float], labels: Labels) -> Slope:
    """Find the mean cross-entropy of a batch and its gradient.

    Args:
        weights: (features, classes).
        bias: (classes,).
        inputs: (batch, features).
        labels: (batch,) positions of classes.
    """
    logs = log_softmax(inputs @ weights + bias)
    rows = np.arange(len(labels))
    loss = -float(logs[rows, labels].mean())
    error = np.exp(logs)
    error[rows, labels] -= 1
    error /= len(labels)
    return Slope(loss, inputs.T @ error, error.sum(axis=0))
