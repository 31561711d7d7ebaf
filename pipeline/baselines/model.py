"""What every model is given, and what it gives back.

Libraries that only some models need.
"""

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MissingExtraError
from pipeline.recipe import BaselinePart

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Scores = NDArray[np.float32] | NDArray[np.float64]


class Examples(NamedTuple):
    """Pictures and their classes.

    Attributes:
        pixels: (n, height * width * channels) uint8.
        labels: (n,) int64, 0 to classes - 1.
    """

    pixels: Pixels
    labels: Labels

    def take(self, rows: NDArray[np.int64]) -> "Examples":
        """Keep some of them, in the order given."""
        return Examples(self.pixels[rows], self.labels[rows])


class Task(NamedTuple):
    """What to learn from.

    Attributes:
        train: to learn from.
        valid: to stop by, where there are such examples.
        classes: how many there are; some may not occur in `train`.
        shape: (height, width, channels) of a picture.
    """

    train: Examples
    valid: Examples | None
    classes: int
    shape: tuple[int, int, int]


class Epoch(NamedTuple):
    """How training stood after a pass over the training examples.

    Attributes:
        loss: mean cross-entropy of the examples, each when its batch had its turn, in nats.
        valid_accuracy: 0 to 1, or None without valid examples.
    """

    loss: float
    valid_accuracy: float | None


class Model(NamedTuple):
    """What was learned.

    Attributes:
        scores: (m, features) uint8 to (m, classes): the largest is the class that the model says, of equals the first.
        probable: whether the scores are probabilities, 0 to 1 and 1 in sum.
        epochs: how training went, where it went by epochs.
        chosen: settings that were searched, by name.
    """

    scores: Callable[[Pixels], Scores]
    probable: bool
    epochs: tuple[Epoch, ...] = ()
    chosen: Mapping[str, float] = {}


def spread(scores: Scores, known: Labels, classes: int, blank: float = 0.0) -> Scores:
    """Widen scores of the classes that a model met to all there are: it never says one of the others.

    Args:
        scores: (m, k).
        known: (k,) class of each column.
        classes: how many there are.
        blank: score of the others: no probability, or for other scores what is below them all.

    Returns:
        (m, classes).
    """
    out = np.full((len(scores), classes), blank, scores.dtype)
    out[:, known] = scores
    return out


# By model, what it imports when it is fitted.
_NEEDS = {"dense": "torch", "lenet": "torch"}


def need_extra(spec: BaselinePart) -> None:
    """Make sure that what a model needs is installed, without importing it.

    Raises:
        MissingExtraError: it is not.
    """
    needed = _NEEDS.get(spec.model)
    if needed is None or (sys.modules[needed] if needed in sys.modules else find_spec(needed)) is not None:
        return
    raise MissingExtraError(
        f"baseline '{spec.model}' on split '{spec.split}' needs {needed}, which is not installed. Install it with "
        f"pip install {needed}, or take the baseline out."
    )
