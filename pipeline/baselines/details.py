"""Rows of the first fit beyond its accuracies: by class, by epoch, by fold, by threshold.

Metrics, beside those of `confusion.py` and `thresholds.py`:

    epoch_loss        mean cross-entropy of an epoch's images, each when its batch had its turn, in nats; `point` is the
                      epoch
    epoch_accuracy    0 to 1, on the valid role after an epoch
    chosen_c          and the like: a setting that was searched, and as chosen_c_accuracy what its search gave, 0 to 1
    fold_accuracy     0 to 1, of a fold; `point` is the fold
    accuracy          with eval_on "cross-validated": the mean of the folds
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.baselines.confusion import confusion_rows
from pipeline.baselines.exam import Exam
from pipeline.baselines.fits import Fitted, Folded
from pipeline.baselines.measure import row_of
from pipeline.baselines.parts import Part
from pipeline.baselines.thresholds import curve_rows, rows_for_precision
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
