"""What a model says of pictures, a block at a time: only the block is held as float32."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.model import Examples, Labels, Model

# Always the same, as a product of matrices may round differently with another number of rows.
_BLOCK = 8192


class Judged(NamedTuple):
    """What a model says of n pictures, beside what they are.

    Attributes:
        labels: (n,) int64, what they are.
        predicted: (n,) int64, what the model says.
        score: (n,) float64, what the model gives the last class: of two, the one that is looked for.
        margin: (n,) float64, how much more it gives the class it says than the one it is; 0 where it is right.
        probability: (n,) float64, what the model gives the class it says; None where it knows no probabilities.
    """

    labels: Labels
    predicted: Labels
    score: NDArray[np.float64]
    margin: NDArray[np.float64]
    probability: NDArray[np.float64] | None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        return np.equal(self.predicted, self.labels)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Judged":
        """Keep some of them."""
        probability = None if self.probability is None else self.probability[rows]
        return Judged(self.labels[rows], self.predicted[rows], self.score[rows], self.margin[rows], probability)


def judge(model: Model, examples: Examples) -> Judged:
    """Ask a model about pictures, in their order."""
    count = len(examples.labels)
    predicted = np.empty(count, np.int64)
    score, margin, probability = np.empty(count), np.empty(count), np.empty(count)
    for start in range(0, count, _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = model.scores(examples.pixels[part])
        predicted[part] = scores.argmax(axis=1)
        score[part] = scores[:, -1]
        probability[part] = scores.max(axis=1)
        margin[part] = probability[part] - scores[np.arange(len(scores)), examples.labels[part]]
    return Judged(examples.labels, predicted, score, margin, probability if model.probable else None)


def joined(parts: list[tuple[NDArray[np.int64], Judged]]) -> Judged:
    """Put together what was said of the parts of a whole, each part with its positions in it."""
    order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
    told = [one for _, one in parts]
    known = [one.probability for one in told if one.probability is not None]
    return Judged(
        np.concatenate([one.labels for one in told])[order],
        np.concatenate([one.predicted for one in told])[order],
        np.concatenate([one.score for one in told])[order],
        np.concatenate([one.margin for one in told])[order],
        np.concatenate(known)[order] if known else None,
    )
