"""Train a model on every sample, ask each about train, valid and test, and make rows of what it says.

Rows of the first fit beyond its accuracies: by class, by epoch, by fold, by threshold.

Metrics, beside those of `confusion.py` and `thresholds.py`:

    epoch_loss        mean cross-entropy of an epoch's images, each when its batch had its turn, in nats; `point` is the
                      epoch
    epoch_accuracy    0 to 1, on the valid role after an epoch
    chosen_c          and the like: a setting that was searched, and as chosen_c_accuracy what its search gave, 0 to 1
    fold_accuracy     0 to 1, of a fold; `point` is the fold
    accuracy          with eval_on "cross-validated": the mean of the folds
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.eval_data import Exam, Part, Sample, of_two_classes
from pipeline.baselines.fit import Fitted, Folded, fit_folds, fit_once
from pipeline.baselines.measure import Fit, measure, row_of
from pipeline.baselines.metrics import confusion_rows, curve_rows, rows_for_precision
from pipeline.baselines.model import Examples, Task
from pipeline.recipe import BaselinePart

Row = dict[str, Any]
_CROSS = "cross-validated"


def part_rows(fitted: Fitted, role: str, parts: Sequence[Part], names: Sequence[str]) -> Iterator[Row]:
    """Spell out confusion, precision, recall and F1 on the parts that no rule of its own tells apart."""
    for part in parts:
        if part.rule is None and part.rows.any():
            told = confusion_rows(fitted.judged[role].take(part.rows), names)
            yield from ({**_blank(fitted, part.eval_on), **row} for row in told)


def epoch_rows(fitted: Fitted) -> Iterator[Row]:
    """Spell out how training went, and what was searched."""
    for number, epoch in enumerate(fitted.model.epochs, start=1):
        yield {
            **_blank(fitted, "original"),
            "role": "train",
            "metric": "epoch_loss",
            "value": epoch.loss,
            "point": number,
        }
        if epoch.valid_accuracy is not None:
            seen = {"role": "valid", "metric": "epoch_accuracy", "value": epoch.valid_accuracy, "point": number}
            yield {**_blank(fitted, "sanitized"), **seen}
    for name, value in fitted.model.chosen.items():
        yield {**_blank(fitted, "original"), "role": "train", "metric": f"chosen_{name}", "value": value}


def fold_rows(folded: Folded, seed: int, names: Sequence[str]) -> Iterator[Row]:
    """Spell out what cross-validation says."""
    known = {**row_of(_CROSS, None, "accuracy", 0.0, seed, folded.effort), "role": "train"}
    for number, value in enumerate(folded.accuracies, start=1):
        yield {**known, "metric": "fold_accuracy", "value": value, "point": number}
    yield {**known, "value": float(np.mean(folded.accuracies))}
    yield from ({**known, **row} for row in confusion_rows(folded.judged, names))


def threshold_rows(spec: BaselinePart, fitted: Fitted, folded: Folded | None, exam: Exam) -> Iterator[Row]:
    """Spell out precision against recall, and the threshold for the wanted precision, never chosen on the test role."""
    label = exam.names[-1]
    places = {(role, "original"): fitted.judged[role] for role in fitted.judged if role != "train"}
    if folded:
        places["train", _CROSS] = folded.judged
    chosen_on = folded.judged if folded else fitted.judged.get("valid")
    for (role, eval_on), judged in places.items():
        told = list(curve_rows(judged, label))
        if spec.precision is not None and chosen_on is not None:
            told += rows_for_precision(chosen_on, judged, label, spec.precision)
        yield from ({**_blank(fitted, eval_on), "role": role, **row} for row in told)


def _blank(fitted: Fitted, eval_on: str) -> Row:
    return row_of(eval_on, None, "", 0.0, fitted.seed, fitted.effort)


class Misses(NamedTuple):
    """What the first fit of the largest train size got wrong, in the order of the test images.

    Attributes:
        size: training images.
        seed: of the fit.
        seen: (size,) positions in `Exam.train` of the images it was trained on.
        rows: (m,) positions in the test role.
        labels: (m,) what they are, by the names below.
        predicted: (m,) what it says.
        probability: (m,) what it gives that, or None.
        margin: (m,) how much more that is than it gives what they are.
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


def score(spec: BaselinePart, samples: Sequence[Sample], exam: Exam) -> tuple[list[Row], Misses | None]:
    """Train and score one baseline.

    Args:
        spec: the recipe's `[[baseline]]`.
        samples: made by `draw_samples`; their rows are positions in `exam.train`.
        exam: what to train and score on.

    Returns:
        Rows of the scores table but for run_id and release; and what was missed, None without test examples.

    Raises:
        BaselineError: the labels of a sample do not serve, or the class that is looked for is none of the split's.
    """
    asked = of_two_classes(spec, exam)
    rows: list[Row] = []
    missed: Misses | None = None
    for size, group in groupby(samples, key=lambda sample: sample.size):
        drawn = list(group)
        fits, task = _fits(spec, drawn, asked)
        known = {"model": spec.model, "split_name": spec.split, "train_size": size}
        blank = {"rule": None, "label": None, "predicted": None, "point": None}
        rows += [{**known, **blank, **row} for row in _rows(spec, fits, drawn[0], task, asked)]
        if len(asked.roles["test"].labels) and (missed is None or size > missed.size):
            missed = _misses(fits[0], drawn[0], asked)
    return rows, missed


def _fits(spec: BaselinePart, drawn: Sequence[Sample], exam: Exam) -> tuple[list[Fitted], Task]:
    """Fit every seed of one train size; give the first one's task too."""
    valid = exam.roles.get("valid")
    first: Task | None = None
    fits = []
    for sample in drawn:
        task = Task(exam.train.take(sample.rows), _kept(exam, valid), len(exam.names), exam.shape)
        fits.append(fit_once(spec, sample.seed, task, {**exam.roles, "train": task.train}))
        first = first or task
    return fits, first or task


def _kept(exam: Exam, valid: Examples | None) -> Examples | None:
    """Leave out of the valid role what sanitizing drops: what was trained on tells nothing about when to stop."""
    if valid is None:
        return None
    kept = next(part.rows for part in exam.parts["valid"] if part.eval_on == "sanitized" and part.rule is None)
    return valid.take(np.flatnonzero(kept)) if kept.any() else None


def _rows(spec: BaselinePart, fits: Sequence[Fitted], sample: Sample, task: Task, exam: Exam) -> Iterator[Row]:
    first = fits[0]
    everything = {"train": [Part("original", None, np.ones(len(task.train.labels), np.bool_))], **exam.parts}
    for role in ("train", "valid", "test"):
        if role not in first.judged or not len(first.judged[role].labels):
            continue
        told = [Fit(fit.seed, fit.effort, fit.judged[role].correct) for fit in fits]
        measured = measure(told, everything[role], resampled=sample.resampled, train_dropped=exam.train_dropped)
        yield from ({"role": role, **row} for row in measured)
        yield from ({"role": role, **row} for row in part_rows(first, role, everything[role], exam.names))
    for fit in fits:
        yield from epoch_rows(fit)
    folded = fit_folds(spec, first.seed, task) if spec.folds else None
    if folded:
        yield from fold_rows(folded, first.seed, exam.names)
    if spec.positive is not None:
        yield from threshold_rows(spec, first, folded, exam)


def _misses(fitted: Fitted, sample: Sample, exam: Exam) -> Misses:
    judged = fitted.judged["test"]
    rows = np.flatnonzero(~judged.correct)
    wrong = judged.take(rows)
    return Misses(
        sample.size,
        sample.seed,
        sample.rows,
        rows,
        wrong.labels,
        wrong.predicted,
        wrong.probability,
        wrong.margin,
        exam.names,
    )
