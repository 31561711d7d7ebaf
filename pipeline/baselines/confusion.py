"""Which classes are taken for which: confusion matrix, precision, recall and F1.

Metrics, with the class in `label`; without a class their mean over the classes that occur or are said:

    confusion   images of class `label` that the model says are of class `predicted`
    precision   0 to 1: of those said to be of the class, the share that is; 0 where none is said to be
    recall      0 to 1: of those of the class, the share that is said to be
    f1          0 to 1: harmonic mean of the two
    support     images of the class
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.judge import Judged

Row = dict[str, Any]


class Rates(NamedTuple):
    """By class, all (classes,) float64, 0 to 1."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def confusion_matrix(judged: Judged, classes: int) -> NDArray[np.int64]:
    """Count images by what they are and what is said: (classes, classes) int64, one row a true class."""
    return np.bincount(judged.labels * classes + judged.predicted, minlength=classes**2).reshape(classes, classes)


def rates_of(matrix: NDArray[np.int64]) -> Rates:
    """Find precision, recall and F1 of every class; 0 where there is nothing to divide by."""
    hits, said, there = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return Rates(_share(hits, said), _share(hits, there), _share(2 * hits, said + there))


def confusion_rows(judged: Judged, names: Sequence[str]) -> Iterator[Row]:
    """Spell out the confusion matrix and what follows from it.

    Args:
        judged: what was said.
        names: of the classes.

    Yields:
        metric, value, label, predicted. No row for a cell of no images.
    """
    matrix = confusion_matrix(judged, len(names))
    for true, said in np.argwhere(matrix).tolist():
        yield _row("confusion", matrix[true, said], names[true], names[said])
    rates = rates_of(matrix)
    met: list[int] = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1)).tolist()
    for metric, values in rates._asdict().items():
        for place in met:
            yield _row(metric, values[place], names[place])
        if met:
            yield _row(metric, values[met].mean())
    for place in met:
        yield _row("support", matrix[place].sum(), names[place])


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _row(metric: str, value: float, label: str | None = None, predicted: str | None = None) -> Row:
    return {"metric": metric, "value": float(value), "label": label, "predicted": predicted}
