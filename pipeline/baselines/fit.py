"""Fit a model once and predict roles, or cross-validate it; measure wall time and memory."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from pipeline.baselines.model import Examples, Model, Task
from pipeline.baselines.models import MODELS
from pipeline.baselines.predict import Predictions, merge_predictions, predict
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart

Result = TypeVar("Result")

_STATUS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost(NamedTuple):
    """The cost of a computation.

    Attributes:
        seconds: wall time.
        memory: peak memory of the process in bytes; None on systems other than Linux.
    """

    seconds: float
    memory: int | None


def measure_cost(compute: Callable[[], Result]) -> tuple[Result, Cost]:
    """Run a computation and measure its cost.

    Linux reports the peak memory since the last reset. If the reset is not permitted, it is the peak since the process
    started.
    """
    with suppress(OSError):
        _RESET_PEAK.write_text("5", encoding="ascii")
    started = time.perf_counter()
    result = compute()
    return result, Cost(time.perf_counter() - started, _peak_memory())


def _peak_memory() -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


class Fitted(NamedTuple):
    """A fitted model, the cost of the fit, and its predictions by role."""

    seed: int
    model: Model
    cost: Cost
    predictions: dict[str, Predictions]


class CrossValidation(NamedTuple):
    """Predictions for all training images by models that were not trained on them.

    Attributes:
        predictions: in the order of the training images.
        accuracies: of each fold, 0 to 1.
        cost: seconds of all fits together, and memory of the fit that used most.
    """

    predictions: Predictions
    accuracies: tuple[float, ...]
    cost: Cost


def fit_once(part: BaselinePart, seed: int, task: Task, roles: Mapping[str, Examples]) -> Fitted:
    """Fit a model and predict roles.

    Raises:
        BaselineError: the training images are all of one class, or the scores are not numbers.
    """
    model, cost = measure_cost(lambda: _fit(part, seed, task))
    with np.errstate(over="ignore", invalid="ignore"):  # the error below reports it
        predictions = {role: predict(model, examples) for role, examples in roles.items()}
    if any(np.isnan(one.score).any() for one in predictions.values()):
        raise BaselineError(
            f"baseline '{part.model}' on split '{part.split}' gives scores that are not numbers: the fit diverged. "
            "Change its settings, or take it out."
        )
    return Fitted(seed, model, cost, predictions)


def cross_validate(part: BaselinePart, seed: int, task: Task) -> CrossValidation:
    """Predict every training image by a model that was trained on the other folds.

    Folds have equal fractions of every class. They follow the split's order, which is random already.

    Raises:
        BaselineError: a class has fewer images than there are folds.

    References:
        scikit-learn's StratifiedKFold without shuffling, as cross_val_predict and cross_val_score use it.
    """
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415 - slow to import, only for builds that fit

    counts = np.bincount(task.train.labels)
    if part.folds is None or counts[counts > 0].min() < part.folds:
        raise BaselineError(
            f"baseline '{part.model}' on split '{part.split}': {part.folds} folds of {len(task.train.labels)} training "
            f"images need {part.folds} of each class; one has {counts[counts > 0].min()}. Use fewer folds or a larger "
            "train size."
        )
    predicted, costs = [], []
    for train_rows, test_rows in StratifiedKFold(part.folds).split(np.zeros(len(task.train.labels)), task.train.labels):
        fold = task._replace(train=task.train.take(train_rows))
        fitted = fit_once(part, seed, fold, {"train": task.train.take(test_rows)})
        predicted.append((test_rows, fitted.predictions["train"]))
        costs.append(fitted.cost)
    memory = max((cost.memory for cost in costs if cost.memory is not None), default=None)
    accuracies = tuple(float(one.correct.mean()) for _, one in predicted)
    return CrossValidation(merge_predictions(predicted), accuracies, Cost(sum(cost.seconds for cost in costs), memory))


def _fit(part: BaselinePart, seed: int, task: Task) -> Model:
    classes = len(np.unique(task.train.labels))
    if classes < 2 and part.model != "never":  # noqa: PLR2004 - a model needs two classes to separate
        raise BaselineError(
            f"baseline '{part.model}' on split '{part.split}': its {len(task.train.labels)} training images are of one "
            "class. Use more classes or a larger train size."
        )
    return MODELS[part.model](part.model_copy(update={"seed": seed}), task)
