"""The input and the output of every model, and the check for optional libraries."""

import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MissingExtraError
from pipeline.recipe import BaselinePart

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Scores = NDArray[np.float32] | NDArray[np.float64]
# The fitted numbers of a model, by name. They have no pixels of training images.
Weights = Mapping[str, NDArray[Any]]


class Examples(NamedTuple):
    """Images and their classes.

    Attributes:
        pixels: (n, height * width * channels) uint8.
        labels: (n,) int64, 0 to classes - 1.
    """

    pixels: Pixels
    labels: Labels

    def take(self, rows: NDArray[np.int64]) -> "Examples":
        """Select rows, in the order given."""
        return Examples(self.pixels[rows], self.labels[rows])


class Task(NamedTuple):
    """The data that a model is trained on.

    Attributes:
        train: training examples.
        valid: examples for early stopping, if there are any.
        classes: number of classes; some may not occur in `train`.
        shape: (height, width, channels) of an image.
    """

    train: Examples
    valid: Examples | None
    classes: int
    shape: tuple[int, int, int]


class StoredModel(NamedTuple):
    """All that is needed to make a fitted model again.

    Attributes:
        part: the recipe's `[[baseline]]`.
        weights: the fitted numbers.
        classes: number of classes.
        shape: (height, width, channels) of an image.
    """

    part: BaselinePart
    weights: Weights
    classes: int
    shape: tuple[int, int, int]


class Epoch(NamedTuple):
    """The result of one pass over the training examples.

    Attributes:
        loss: mean cross-entropy of the examples in nats, each measured just before its batch was learned.
        accuracy: 0 to 1, of the examples, measured at the same time.
        valid_loss: mean cross-entropy of the valid examples after the pass, or None without valid examples.
        valid_accuracy: 0 to 1, of the valid examples after the pass, or None without valid examples.
    """

    loss: float
    accuracy: float
    valid_loss: float | None
    valid_accuracy: float | None


class Model(NamedTuple):
    """A fitted model.

    Attributes:
        weights: what the model is made of again, by its loader in `pipeline.baselines.models`.
        scores: (m, features) uint8 to (m, classes). The largest score is the predicted class, of equal scores the
            first.
        probable: whether the scores are probabilities: 0 to 1, with sum 1.
        epochs: the epochs, if it was trained by epochs.
        chosen: settings that were searched, by name.
    """

    weights: Weights
    scores: Callable[[Pixels], Scores]
    probable: bool
    epochs: tuple[Epoch, ...] = ()
    chosen: Mapping[str, float] = {}


def widen_scores(scores: Scores, known: Labels, classes: int, missing: float = 0.0) -> Scores:
    """Add columns for the classes that had no training image. They are never predicted.

    Args:
        scores: (m, k).
        known: (k,) class of each column.
        classes: number of all classes.
        missing: score of the other classes: probability 0, or a score below all others.

    Returns:
        (m, classes).
    """
    out = np.full((len(scores), classes), missing, scores.dtype)
    out[:, known] = scores
    return out


# Optional libraries, by the model that imports them.
_EXTRAS = {"dense": "torch", "lenet": "torch"}


def need_extra(part: BaselinePart) -> None:
    """Check that the optional library of a model is installed, without importing it.

    Raises:
        MissingExtraError: it is not installed.
    """
    library = _EXTRAS.get(part.model)
    if library is None or (sys.modules[library] if library in sys.modules else find_spec(library)) is not None:
        return
    raise MissingExtraError(
        f"baseline '{part.model}' on split '{part.split}' needs {library}, which is not installed. Install it with "
        f"pip install {library}, or take the baseline out."
    )
