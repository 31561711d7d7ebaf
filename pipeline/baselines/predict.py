"""Predict images with a fitted model, and find their nearest training images, in blocks of limited memory."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.model import Examples, Labels, Model

# Always the same size: a matrix product with another number of rows may round differently.
BLOCK_ROWS = 8192


class Predictions(NamedTuple):
    """The predictions for n images, next to their labels.

    Attributes:
        labels: (n,) int64, true class.
        predicted: (n,) int64, predicted class.
        score: (n,) float64, score of the last class. Of two classes this is the positive one.
        margin: (n,) float64, score of the predicted class less that of the true one; 0 if the prediction is right.
        probability: (n,) float64, of the predicted class; None if the model has no probabilities.
        loss: (n,) float64, cross-entropy in nats: minus the logarithm of the true class's probability; None if the
            model has no probabilities.
    """

    labels: Labels
    predicted: Labels
    score: NDArray[np.float64]
    margin: NDArray[np.float64]
    probability: NDArray[np.float64] | None
    loss: NDArray[np.float64] | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) bool, true if the prediction is right."""
        return np.equal(self.predicted, self.labels)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Predictions":
        """Select rows, by position or by mask."""
        probability, loss = (None if one is None else one[rows] for one in (self.probability, self.loss))
        chosen = self.labels[rows], self.predicted[rows], self.score[rows], self.margin[rows]
        return Predictions(*chosen, probability, loss)


def predict(model: Model, examples: Examples) -> Predictions:
    """Predict the class of each example, in order.

    A probability is clipped to eps and 1 - eps before its logarithm is taken, where eps is the machine epsilon of the
    model's scores: a class that the model rules out costs 15.9 nats in float32, 36.0 in float64.

    References:
        scikit-learn's log_loss.
    """
    count = len(examples.labels)
    predicted = np.empty(count, np.int64)
    score, margin, probability, loss = (np.empty(count) for _ in range(4))
    for start in range(0, count, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        scores = model.scores(examples.pixels[block])
        predicted[block] = scores.argmax(axis=1)
        score[block] = scores[:, -1]
        probability[block] = scores.max(axis=1)
        of_label = scores[np.arange(len(scores)), examples.labels[block]]
        margin[block] = probability[block] - of_label
        if model.probable:
            eps = np.finfo(of_label.dtype).eps
            loss[block] = -np.log(np.clip(of_label, eps, 1 - eps).astype(np.float64))
    of_class = (probability, loss) if model.probable else (None, None)
    return Predictions(examples.labels, predicted, score, margin, *of_class)


def merge_predictions(parts: list[tuple[NDArray[np.int64], Predictions]]) -> Predictions:
    """Merge predictions of parts of a role.

    Args:
        parts: positions of each part in the role, and its predictions. Together they have every position once.

    Returns:
        The predictions in the order of the role.
    """
    order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
    listed = [one for _, one in parts]
    probabilities = [one.probability for one in listed if one.probability is not None]
    losses = [one.loss for one in listed if one.loss is not None]
    return Predictions(
        np.concatenate([one.labels for one in listed])[order],
        np.concatenate([one.predicted for one in listed])[order],
        np.concatenate([one.score for one in listed])[order],
        np.concatenate([one.margin for one in listed])[order],
        np.concatenate(probabilities)[order] if probabilities else None,
        np.concatenate(losses)[order] if losses else None,
    )


Pixels = NDArray[np.uint8]
_BLOCK_BYTES = 2**23


class Nearest(NamedTuple):
    """The nearest training image of each query image.

    Attributes:
        place: (m,) int64, position of the nearest; of equal distances the first.
        distance: (m,) float64, root of the mean squared difference of the pixels, 0 to 255.
    """

    place: NDArray[np.int64]
    distance: NDArray[np.float64]


def find_nearest(queries: Pixels, training: Pixels) -> Nearest:
    """Find nearest images by Euclidean distance of their pixels.

    Sums of products of whole numbers are exact in float64 up to 2^53, enough for more than 10^11 pixels, so rounding
    never changes the result.

    Args:
        queries: (m, features) uint8.
        training: (n, features) uint8, n at least 1.
    """
    count, features = queries.shape
    squared, best, place = np.empty(count), np.full(count, np.inf), np.zeros(count, np.int64)
    step = max(1, _BLOCK_BYTES // (8 * max(1, features)))
    rows = max(1, _BLOCK_BYTES // (8 * step))
    for start in range(0, len(training), step):
        block = training[start : start + step].astype(np.float64)
        squares = np.einsum("ij,ij->i", block, block)
        for low in range(0, count, rows):
            part = slice(low, low + rows)
            wanted = queries[part].astype(np.float64)
            squared[part] = np.einsum("ij,ij->i", wanted, wanted)
            # The square of the query is left out: it is the same for all training images.
            found = wanted @ block.T
            found *= -2
            found += squares
            at = found.argmin(axis=1)
            least = found[np.arange(len(at)), at]
            nearer = least < best[part]
            best[part] = np.where(nearer, least, best[part])
            place[part] = np.where(nearer, start + at, place[part])
    return Nearest(place, np.sqrt((best + squared) / max(1, features)))
