"""Train a baseline on every sample, predict train, valid and test, and make rows of the scores table.

Metrics of this module, besides those of `measure` and `metrics`:

    epoch_loss        mean cross-entropy in nats; `point` is the epoch. With role train: of the epoch's images, each
                      measured just before its batch; with role valid: of the valid role after the epoch
    epoch_accuracy    0 to 1, measured at the same times
    chosen_c          a setting that was searched, here c; chosen_c_accuracy is the accuracy in the search, 0 to 1
    fold_accuracy     0 to 1, of a fold; `point` is the fold
    accuracy          with eval_on "cross-validated": the mean of the folds
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.eval_data import EvalData, EvalPart, Sample, one_against_rest
from pipeline.baselines.fit import CrossValidation, Fitted, cross_validate, fit_once
from pipeline.baselines.measure import Fit, measure, score_row
from pipeline.baselines.metrics import confusion_rows, curve_rows, rows_for_precision
from pipeline.baselines.model import Examples, Task
from pipeline.baselines.stored import model_row
from pipeline.recipe import BaselinePart

Row = dict[str, Any]
_CROSS_VALIDATED = "cross-validated"


class Misclassified(NamedTuple):
    """The misclassified test images of the first fit of the largest train size, in the order of the test role.

    Attributes:
        size: training images.
        seed: of the fit.
        seen: (size,) positions in `EvalData.train` of the training images.
        rows: (m,) positions in the test role.
        labels: (m,) true class, by the names below.
        predicted: (m,) predicted class.
        probability: (m,) of the predicted class, or None.
        margin: (m,) score of the predicted class less that of the true one.
        names: of the classes.
    """

    size: int
    seed: int
    seen: NDArray[np.int64]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float64] | None
    margin: NDArray[np.float64]
    names: Sequence[str]


class Scored(NamedTuple):
    """The result of training one baseline.

    Attributes:
        rows: rows of the scores table without run_id and release.
        misses: the misclassified images; None without labelled test examples.
        models: rows of the models table without run_id and release: of every train size the model of the first seed.
    """

    rows: list[Row]
    misses: Misclassified | None
    models: list[Row]


def score(part: BaselinePart, samples: Sequence[Sample], data: EvalData) -> Scored:
    """Train and score one baseline.

    Args:
        part: the recipe's `[[baseline]]`.
        samples: made by `draw_samples`; their rows are positions in `data.train`.
        data: the data to train and evaluate on.

    Raises:
        BaselineError: a sample cannot be trained on, or the class `positive` is not a class of the split.
    """
    reduced = one_against_rest(part, data)
    rows: list[Row] = []
    misses: Misclassified | None = None
    models: list[Row] = []
    for size, group in groupby(samples, key=lambda sample: sample.size):
        drawn = list(group)
        fits, task = _fit_seeds(part, drawn, reduced)
        common = {"model": part.model, "split_name": part.split, "train_size": size}
        empty = {"rule": None, "label": None, "predicted": None, "point": None}
        rows += [{**common, **empty, **row} for row in _rows_of_size(part, fits, drawn[0], task, reduced)]
        models.append({**common, "seed": fits[0].seed, **model_row(part, fits[0].model, reduced.names, reduced.shape)})
        if "test" in reduced.roles and (misses is None or size > misses.size):
            misses = _misses(fits[0], drawn[0], reduced)
    return Scored(rows, misses, models)


def _fit_seeds(part: BaselinePart, drawn: Sequence[Sample], data: EvalData) -> tuple[list[Fitted], Task]:
    """Fit every seed of one train size; return the task of the first one too."""
    valid = data.roles.get("valid")
    first: Task | None = None
    fits = []
    for sample in drawn:
        task = Task(data.train.take(sample.rows), _sanitized(data, valid), len(data.names), data.shape)
        fits.append(fit_once(part, sample.seed, task, {**data.roles, "train": task.train}))
        first = first or task
    return fits, first or task


def _sanitized(data: EvalData, valid: Examples | None) -> Examples | None:
    """Leave out of the valid role what sanitizing drops: images that were trained on are no use for early stopping."""
    if valid is None:
        return None
    kept = next(part.rows for part in data.parts["valid"] if part.eval_on == "sanitized" and part.rule is None)
    return valid.take(np.flatnonzero(kept)) if kept.any() else None


def _rows_of_size(
    part: BaselinePart, fits: Sequence[Fitted], sample: Sample, task: Task, data: EvalData
) -> Iterator[Row]:
    first = fits[0]
    parts = {"train": [EvalPart("original", None, np.ones(len(task.train.labels), np.bool_))], **data.parts}
    for role in ("train", "valid", "test"):
        if role not in first.predictions or not len(first.predictions[role].labels):
            continue
        by_seed = [Fit(fit.seed, fit.cost, fit.predictions[role].correct, fit.predictions[role].loss) for fit in fits]
        measured = measure(by_seed, parts[role], resampled=sample.resampled, train_dropped=data.train_dropped)
        yield from ({"role": role, **row} for row in measured)
        yield from ({"role": role, **row} for row in _confusion_of_parts(first, role, parts[role], data.names))
    for fit in fits:
        yield from _epoch_rows(fit)
    crossed = cross_validate(part, first.seed, task) if part.folds else None
    if crossed:
        yield from _cross_validation_rows(crossed, first.seed, data.names)
    if part.positive is not None:
        yield from _threshold_rows(part, first, crossed, data)


def _confusion_of_parts(fitted: Fitted, role: str, parts: Sequence[EvalPart], names: Sequence[str]) -> Iterator[Row]:
    """Make rows of confusion, precision, recall and F1 for the original and the parts of the split's own sanitizing."""
    for part in parts:
        if part.rule is None and part.rows.any():
            rows = confusion_rows(fitted.predictions[role].take(part.rows), names)
            yield from ({**_blank_row(fitted, part.eval_on), **row} for row in rows)


def _epoch_rows(fitted: Fitted) -> Iterator[Row]:
    """Make rows of every epoch, and of the settings that were searched."""
    for number, epoch in enumerate(fitted.model.epochs, start=1):
        measured = (
            ("train", "original", "epoch_loss", epoch.loss),
            ("train", "original", "epoch_accuracy", epoch.accuracy),
            ("valid", "sanitized", "epoch_loss", epoch.valid_loss),
            ("valid", "sanitized", "epoch_accuracy", epoch.valid_accuracy),
        )
        for role, eval_on, metric, value in measured:
            if value is not None:
                row = {"role": role, "metric": metric, "value": value, "point": number}
                yield {**_blank_row(fitted, eval_on), **row}
    for name, value in fitted.model.chosen.items():
        yield {**_blank_row(fitted, "original"), "role": "train", "metric": f"chosen_{name}", "value": value}


def _cross_validation_rows(crossed: CrossValidation, seed: int, names: Sequence[str]) -> Iterator[Row]:
    common = {**score_row(_CROSS_VALIDATED, None, "accuracy", 0.0, seed, crossed.cost), "role": "train"}
    for number, value in enumerate(crossed.accuracies, start=1):
        yield {**common, "metric": "fold_accuracy", "value": value, "point": number}
    yield {**common, "value": float(np.mean(crossed.accuracies))}
    yield from ({**common, **row} for row in confusion_rows(crossed.predictions, names))


def _threshold_rows(
    part: BaselinePart, fitted: Fitted, crossed: CrossValidation | None, data: EvalData
) -> Iterator[Row]:
    """Make rows of precision against recall, and of the threshold for the wanted precision.

    The threshold is chosen on the cross-validated predictions, else on the valid role, never on the test role.
    """
    label = data.names[-1]
    evaluated = {(role, "original"): fitted.predictions[role] for role in fitted.predictions if role != "train"}
    if crossed:
        evaluated["train", _CROSS_VALIDATED] = crossed.predictions
    chosen_on = crossed.predictions if crossed else fitted.predictions.get("valid")
    for (role, eval_on), predictions in evaluated.items():
        rows = list(curve_rows(predictions, label))
        if part.precision is not None and chosen_on is not None:
            rows += rows_for_precision(chosen_on, predictions, label, part.precision)
        yield from ({**_blank_row(fitted, eval_on), "role": role, **row} for row in rows)


def _blank_row(fitted: Fitted, eval_on: str) -> Row:
    return score_row(eval_on, None, "", 0.0, fitted.seed, fitted.cost)


def _misses(fitted: Fitted, sample: Sample, data: EvalData) -> Misclassified:
    predictions = fitted.predictions["test"]
    rows = np.flatnonzero(~predictions.correct)
    wrong = predictions.take(rows)
    return Misclassified(
        sample.size,
        sample.seed,
        sample.rows,
        rows,
        wrong.labels,
        wrong.predicted,
        wrong.probability,
        wrong.margin,
        data.names,
    )
