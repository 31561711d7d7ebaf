"""Train a model on every sample, ask each about train, valid and test, and make rows of what it says."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.details import epoch_rows, fold_rows, part_rows, threshold_rows
from pipeline.baselines.exam import Exam, of_two_classes
from pipeline.baselines.fits import Fitted, fit_folds, fit_once
from pipeline.baselines.measure import Fit, measure
from pipeline.baselines.model import Examples, Task
from pipeline.baselines.parts import Part
from pipeline.baselines.samples import Sample
from pipeline.recipe import BaselinePart

Row = dict[str, Any]


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
