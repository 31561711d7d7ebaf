"""Which classes are taken for which: confusion matrix, precision, recall and F1.

Metrics, with the class in `label`; without a class their mean over the classes that occur or are said:

    confusion   images of class `label` that the model says are of class `predicted`
    precision   0 to 1: of those said to be of the class, the share that is; 0 where none is said to be
    recall      0 to 1: of those of the class, the share that is said to be
    f1          0 to 1: harmonic mean of the two
    support     images of the class

Precision against recall over all thresholds of a model that tells one class from the rest.

Metrics; `label` is the class, `point` the threshold: images with this score or more are said to be of the class.

    curve_precision     0 to 1, at some of all thresholds, evenly spread over the images of the class
    curve_recall        0 to 1, at the same
    average_precision   0 to 1, the area under the curve of all thresholds
    threshold           the lowest that gives the wanted precision, in the unit of the model's scores; `point` is that
                        precision. No row where no threshold gives it
    precision_at        0 to 1, at that threshold
    recall_at           0 to 1, at that threshold
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.predict import Judged

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
        yield _confusion_row("confusion", matrix[true, said], names[true], names[said])
    rates = rates_of(matrix)
    met: list[int] = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1)).tolist()
    for metric, values in rates._asdict().items():
        for place in met:
            yield _confusion_row(metric, values[place], names[place])
        if met:
            yield _confusion_row(metric, values[met].mean())
    for place in met:
        yield _confusion_row("support", matrix[place].sum(), names[place])


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _confusion_row(metric: str, value: float, label: str | None = None, predicted: str | None = None) -> Row:
    return {"metric": metric, "value": float(value), "label": label, "predicted": predicted}


_POINTS = 100


class Curve(NamedTuple):
    """All (k,), the thresholds ascending: precision and recall of "score >= threshold"."""

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average: float


def precision_recall(judged: Judged) -> Curve | None:
    """Find precision and recall at every score that occurs; None where no image is of the class.

    References:
        scikit-learn's precision_recall_curve and average_precision_score.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve  # noqa: PLC0415 - slow to import

    positive = judged.labels == 1
    if not positive.any():
        return None
    precision, recall, threshold = precision_recall_curve(positive, judged.score)
    # The last point of scikit-learn's has no threshold: nothing is said to be of the class.
    return Curve(threshold, precision[:-1], recall[:-1], float(average_precision_score(positive, judged.score)))


def threshold_for(curve: Curve, precision: float) -> int | None:
    """Find the lowest threshold from which on the precision is reached at that threshold: its place, or None."""
    reached = np.flatnonzero(curve.precision >= precision)
    return int(reached[0]) if len(reached) else None


def curve_rows(judged: Judged, label: str) -> Iterator[Row]:
    """Spell out the curve at some of its thresholds, and its area: metric, value, label, at."""
    curve = precision_recall(judged)
    if curve is None:
        return
    # Evenly over recall, which is evenly over the images of the class.
    wanted = np.linspace(curve.recall[-1], curve.recall[0], _POINTS)
    places = np.unique(len(curve.recall) - 1 - np.searchsorted(curve.recall[::-1], wanted))
    for place in places:
        yield _threshold_row("curve_precision", curve.precision[place], label, curve.threshold[place])
        yield _threshold_row("curve_recall", curve.recall[place], label, curve.threshold[place])
    yield _threshold_row("average_precision", curve.average, label, None)


def rows_for_precision(chosen_on: Judged, told_of: Judged, label: str, precision: float) -> Iterator[Row]:
    """Spell out what the threshold for a precision, chosen on some images, does to others (or the same).

    Yields:
        metric, value, label, at; nothing where no threshold reaches the precision.
    """
    curve = precision_recall(chosen_on)
    place = None if curve is None else threshold_for(curve, precision)
    if curve is None or place is None:
        return
    threshold = float(curve.threshold[place])
    said, true = told_of.score >= threshold, told_of.labels == 1
    yield _threshold_row("threshold", threshold, label, precision)
    yield _threshold_row("precision_at", (said & true).sum() / max(1, said.sum()), label, precision)
    yield _threshold_row("recall_at", (said & true).sum() / max(1, true.sum()), label, precision)


def _threshold_row(metric: str, value: float, label: str, at: float | None) -> Row:
    return {"metric": metric, "value": float(value), "label": label, "point": None if at is None else float(at)}
