"""Fit a model once and ask it about every role; or fold by fold, about the images that it was not trained on.

What a fit costs: wall time, and the memory that the process held.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from pipeline.baselines.model import Examples, Model, Task
from pipeline.baselines.models import MODELS
from pipeline.baselines.predict import Judged, joined, judge
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart

Made = TypeVar("Made")

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Effort(NamedTuple):
    """What something took.

    Attributes:
        seconds: wall time.
        memory: bytes that the process held at most meanwhile; None where the system does not tell.
    """

    seconds: float
    memory: int | None


def measured(make: Callable[[], Made]) -> tuple[Made, Effort]:
    """Do something, and tell what it took.

    Linux tells how much memory a process held at most since it was last asked to forget. Where it may not be asked,
    that is since the process began.
    """
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")
    started = time.perf_counter()
    made = make()
    return made, Effort(time.perf_counter() - started, _peak())


def _peak() -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


class Fitted(NamedTuple):
    """A model, what it took, and by role what it says."""

    seed: int
    model: Model
    effort: Effort
    judged: dict[str, Judged]


class Folded(NamedTuple):
    """What models say of training images that they were not trained on, and how right each fold's was, 0 to 1."""

    judged: Judged
    accuracies: tuple[float, ...]
    effort: Effort


def fit_once(spec: BaselinePart, seed: int, task: Task, roles: Mapping[str, Examples]) -> Fitted:
    """Fit a model and ask it about roles.

    Raises:
        BaselineError: the training images are all of one class, or what was learned is no numbers.
    """
    model, effort = measured(lambda: _fit(spec, seed, task))
    with np.errstate(over="ignore", invalid="ignore"):  # told below, in words
        judged = {role: judge(model, examples) for role, examples in roles.items()}
    if any(np.isnan(one.score).any() for one in judged.values()):
        raise BaselineError(
            f"baseline '{spec.model}' on split '{spec.split}' gives scores that are no numbers: its fit diverged. "
            "Change its settings, or take it out."
        )
    return Fitted(seed, model, effort, judged)


def fit_folds(spec: BaselinePart, seed: int, task: Task) -> Folded:
    """Judge every training image by a model that was trained on the other folds.

    Folds have equal shares of every class and are runs of the split's order, which is random already.

    Raises:
        BaselineError: a class has fewer images than there are folds.

    References:
        scikit-learn's StratifiedKFold without shuffling, as cross_val_predict and cross_val_score use it.
    """
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415 - slow to import, only for builds that fit

    counts = np.bincount(task.train.labels)
    if spec.folds is None or counts[counts > 0].min() < spec.folds:
        raise BaselineError(
            f"baseline '{spec.model}' on split '{spec.split}': {spec.folds} folds of {len(task.train.labels)} training "
            f"images need {spec.folds} of each class; one has {counts[counts > 0].min()}. Ask for fewer folds or a "
            "larger train size."
        )
    told, efforts = [], []
    for seen, asked in StratifiedKFold(spec.folds).split(np.zeros(len(task.train.labels)), task.train.labels):
        fold = task._replace(train=task.train.take(seen))
        fitted = fit_once(spec, seed, fold, {"train": task.train.take(asked)})
        told.append((asked, fitted.judged["train"]))
        efforts.append(fitted.effort)
    most = max((effort.memory for effort in efforts if effort.memory is not None), default=None)
    accuracies = tuple(float(one.correct.mean()) for _, one in told)
    return Folded(joined(told), accuracies, Effort(sum(effort.seconds for effort in efforts), most))


def _fit(spec: BaselinePart, seed: int, task: Task) -> Model:
    met = len(np.unique(task.train.labels))
    if met < 2 and spec.model != "never":  # noqa: PLR2004 - there is nothing to tell apart
        raise BaselineError(
            f"baseline '{spec.model}' on split '{spec.split}': its {len(task.train.labels)} training images are of one "
            "class. Ask for more classes or a larger train size."
        )
    return MODELS[spec.model](spec.model_copy(update={"seed": seed}), task)
