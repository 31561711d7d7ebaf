"""Softmax regression by mini-batch stochastic gradient descent on normalised pixels, in plain numpy.

It is the one-layer model of the notMNIST notebooks, which is trained for 20 epochs in batches of 128.
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.epochs import Learner, fit_by_epochs
from pipeline.baselines.model import Labels, Model, Pixels, Scores, Task
from pipeline.pixels import normalise
from pipeline.recipe.baselines import SoftmaxSgdPart

Float = TypeVar("Float", np.float32, np.float64)


class Gradient(NamedTuple):
    """The mean cross-entropy of a batch in nats, and its gradient: (features, classes) and (classes,)."""

    loss: float
    weights: NDArray[np.floating]
    bias: NDArray[np.floating]


def fit(part: SoftmaxSgdPart, task: Task) -> Model:
    """Fit, starting from weights of zero.

    Args:
        part: `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: the training data.

    Raises:
        BaselineError: there is `patience`, but no valid example; or training diverged.
    """
    return fit_by_epochs(part, task, lambda outputs: _make_learner(part.learning_rate, task, outputs))


def _make_learner(rate: float, task: Task, outputs: int) -> Learner:
    weights, bias = np.zeros((prod(task.shape), outputs), np.float32), np.zeros(outputs, np.float32)

    def step(pixels: Pixels, labels: Labels) -> float:
        gradient = find_gradient(weights, bias, normalise(pixels), labels)
        np.subtract(weights, rate * gradient.weights, out=weights, dtype=np.float32)
        np.subtract(bias, rate * gradient.bias, out=bias, dtype=np.float32)
        return gradient.loss

    def scores(pixels: Pixels) -> Scores:
        out: Scores = np.exp(log_softmax(normalise(pixels) @ weights + bias))
        return out

    def checkpoint() -> Callable[[], None]:
        saved = weights.copy(), bias.copy()

        def restore() -> None:
            weights[:], bias[:] = saved

        return restore

    return Learner(step, scores, checkpoint)


def log_softmax(scores: NDArray[Float]) -> NDArray[Float]:
    """Compute log-probabilities of scores, row by row. The largest is subtracted first, so no exponential overflows."""
    lowered: NDArray[Float] = scores - scores.max(axis=1, keepdims=True)
    lowered -= np.log(np.exp(lowered).sum(axis=1, keepdims=True))
    return lowered


def find_gradient(weights: NDArray[Float], bias: NDArray[Float], inputs: NDArray[Float], labels: Labels) -> Gradient:
    """Compute the mean cross-entropy of a batch and its gradient.

    Args:
        weights: (features, classes).
        bias: (classes,).
        inputs: (batch, features).
        labels: (batch,) class numbers.
    """
    logs = log_softmax(inputs @ weights + bias)
    rows = np.arange(len(labels))
    loss = -float(logs[rows, labels].mean())
    error = np.exp(logs)
    error[rows, labels] -= 1
    error /= len(labels)
    return Gradient(loss, inputs.T @ error, error.sum(axis=0))
