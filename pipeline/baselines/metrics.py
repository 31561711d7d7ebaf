"""Confusion matrix, precision, recall and F1 of predictions, and precision against recall over all thresholds.

Metrics with the class in `label`; rows without a class are the mean over the classes that occur or are predicted:

    confusion   images of class `label` that are predicted as class `predicted`
    precision   0 to 1: share of the images predicted as the class that are of it; 0 if none is predicted as it
    recall      0 to 1: share of the images of the class that are predicted as it
    f1          0 to 1: harmonic mean of the two
    support     images of the class

Metrics of a model that separates one class from the rest. `label` is the class, and `point` the threshold: images with
this score or a higher one are predicted as the class.

    curve_precision     0 to 1, at some of all thresholds, evenly spread over the images of the class
    curve_recall        0 to 1, at the same thresholds
    average_precision   0 to 1, the area under the curve of all thresholds
    threshold           the lowest that gives the wanted precision, in the unit of the model's scores; `point` is that
                        precision. There is no row if no threshold gives it
    precision_at        0 to 1, at that threshold
    recall_at           0 to 1, at that threshold
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.predict import Predictions

Row = dict[str, Any]


class Rates(NamedTuple):
    """Precision, recall and F1 of every class: (classes,) float64 each, 0 to 1."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def confusion_matrix(predictions: Predictions, classes: int) -> NDArray[np.int64]:
    """Count images by true and predicted class: (classes, classes) int64, one row per true class."""
    return np.bincount(predictions.labels * classes + predictions.predicted, minlength=classes**2).reshape(
        classes, classes
    )


def rates_of(matrix: NDArray[np.int64]) -> Rates:
    """Compute precision, recall and F1 of every class; 0 where the denominator is 0."""
    hits, predicted, true = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return Rates(_share(hits, predicted), _share(hits, true), _share(2 * hits, predicted + true))


def confusion_rows(predictions: Predictions, names: Sequence[str]) -> Iterator[Row]:
    """Make rows of the confusion matrix and of the rates that follow from it.

    Args:
        predictions: with their labels.
        names: of the classes.

    Yields:
        Rows with metric, value, label, predicted. A cell without images has no row.
    """
    matrix = confusion_matrix(predictions, len(names))
    for true, predicted in np.argwhere(matrix).tolist():
        yield _confusion_row("confusion", matrix[true, predicted], names[true], names[predicted])
    rates = rates_of(matrix)
    occurring: list[int] = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1)).tolist()
    for metric, values in rates._asdict().items():
        for number in occurring:
            yield _confusion_row(metric, values[number], names[number])
        if occurring:
            yield _confusion_row(metric, values[occurring].mean())
    for number in occurring:
        yield _confusion_row("support", matrix[number].sum(), names[number])


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _confusion_row(metric: str, value: float, label: str | None = None, predicted: str | None = None) -> Row:
    return {"metric": metric, "value": float(value), "label": label, "predicted": predicted}


_CURVE_POINTS = 100


class Curve(NamedTuple):
    """Precision and recall of "score >= threshold".

    Attributes:
        threshold: (k,) ascending.
        precision: (k,) 0 to 1.
        recall: (k,) 0 to 1.
        average: average precision, 0 to 1.
    """

    threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    average: float


def precision_recall(predictions: Predictions) -> Curve | None:
    """Compute precision and recall at every score that occurs; None if no image is of the class.

    References:
        scikit-learn's precision_recall_curve and average_precision_score.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve  # noqa: PLC0415 - slow to import

    positive = predictions.labels == 1
    if not positive.any():
        return None
    precision, recall, threshold = precision_recall_curve(positive, predictions.score)
    # scikit-learn adds a last point without a threshold, where nothing is predicted as the class.
    return Curve(threshold, precision[:-1], recall[:-1], float(average_precision_score(positive, predictions.score)))


def threshold_for(curve: Curve, precision: float) -> int | None:
    """Find the position of the lowest threshold that gives this precision or a higher one; None if there is none."""
    reached = np.flatnonzero(curve.precision >= precision)
    return int(reached[0]) if len(reached) else None


def curve_rows(predictions: Predictions, label: str) -> Iterator[Row]:
    """Make rows of the curve at some of its thresholds, and of its area: metric, value, label, point."""
    curve = precision_recall(predictions)
    if curve is None:
        return
    # Evenly spaced in recall, and so over the images of the class.
    wanted = np.linspace(curve.recall[-1], curve.recall[0], _CURVE_POINTS)
    for at in np.unique(len(curve.recall) - 1 - np.searchsorted(curve.recall[::-1], wanted)):
        yield _threshold_row("curve_precision", curve.precision[at], label, curve.threshold[at])
        yield _threshold_row("curve_recall", curve.recall[at], label, curve.threshold[at])
    yield _threshold_row("average_precision", curve.average, label, None)


def rows_for_precision(chosen_on: Predictions, applied_to: Predictions, label: str, precision: float) -> Iterator[Row]:
    """Choose the threshold for a precision on some images, and measure it on others (or on the same).

    Yields:
        Rows with metric, value, label, point; none if no threshold gives the precision.
    """
    curve = precision_recall(chosen_on)
    at = None if curve is None else threshold_for(curve, precision)
    if curve is None or at is None:
        return
    threshold = float(curve.threshold[at])
    predicted, true = applied_to.score >= threshold, applied_to.labels == 1
    yield _threshold_row("threshold", threshold, label, precision)
    yield _threshold_row("precision_at", (predicted & true).sum() / max(1, predicted.sum()), label, precision)
    yield _threshold_row("recall_at", (predicted & true).sum() / max(1, true.sum()), label, precision)


def _threshold_row(metric: str, value: float, label: str, point: float | None) -> Row:
    return {"metric": metric, "value": float(value), "label": label, "point": None if point is None else float(point)}
