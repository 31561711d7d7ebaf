"""Train by passes over the training images, each in an order of its own, and stop where passes no longer help."""

from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np

from pipeline.baselines.model import Epoch, Examples, Labels, Model, Pixels, Scores, Task, spread
from pipeline.baselines.predict import judge
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart


class Learner(NamedTuple):
    """Something that learns from batches.

    Attributes:
        step: learns from (batch, features) uint8 and (batch,) int64; gives the mean cross-entropy before it, in nats.
        scores: (m, features) uint8 to (m, outputs) probabilities.
        remember: keeps what was learned so far; calling what it gives returns to that.
    """

    step: Callable[[Pixels, Labels], float]
    scores: Callable[[Pixels], Scores]
    remember: Callable[[], Callable[[], None]]


def fit_by_epochs(spec: BaselinePart, task: Task, begin: Callable[[int], Learner]) -> Model:
    """Train for `epochs` passes, or until `patience` passes brought no better accuracy on the valid examples.

    With `patience` the model is that of the best pass, of equals the first; without, that of the last. Batches are
    taken from the uint8 pixels, so that the learner can scale one at a time. The last batch of a pass may be smaller.

    Args:
        spec: `epochs`, `batch_size`, `patience` and `seed` are used.
        task: what to learn from. Classes that do not occur in `train` get no output, and probability 0.
        begin: makes the learner of so many outputs.

    Raises:
        BaselineError: there is `patience`, but no valid example; or training diverged.
    """
    if spec.patience is not None and task.valid is None:
        raise BaselineError(
            f"baseline '{spec.model}' on split '{spec.split}' has patience, but there is no valid image to stop by. "
            "Give the split a valid role, or take patience out."
        )
    known, labels = np.unique(task.train.labels, return_inverse=True)
    learner = begin(len(known))
    model = Model(lambda pixels: spread(learner.scores(pixels), known, task.classes), probable=True)
    return model._replace(epochs=_run(spec, task._replace(train=Examples(task.train.pixels, labels)), learner, model))


def _run(spec: BaselinePart, task: Task, learner: Learner, model: Model) -> tuple[Epoch, ...]:
    """Train; leave the learner as it is to stay."""
    epochs: list[Epoch] = []
    best, best_at, back = -1.0, 0, None
    for number in range(cast("int", spec.epochs)):  # the recipe fills in every setting that its model has
        with np.errstate(over="ignore", invalid="ignore"):  # told below, in words
            loss = _pass(spec, task.train, learner, number)
            accuracy = None if task.valid is None else float(judge(model, task.valid).correct.mean())
        if not np.isfinite(loss):
            raise BaselineError(
                f"baseline '{spec.model}' on split '{spec.split}': training diverged in epoch {number + 1} (its loss "
                f"is {loss}). Lower learning_rate, which is {spec.learning_rate:g}."
            )
        epochs.append(Epoch(loss, accuracy))
        if spec.patience is None or accuracy is None:
            continue
        if accuracy > best:
            best, best_at, back = accuracy, number, learner.remember()
        elif number - best_at >= spec.patience:
            break
    if back is not None:
        back()
    return tuple(epochs)


def _pass(spec: BaselinePart, train: Examples, learner: Learner, number: int) -> float:
    """Learn from every image once; give the mean cross-entropy that they had when their turn came."""
    size, count = cast("int", spec.batch_size), len(train.labels)
    order = np.random.default_rng([spec.seed, number]).permutation(count)
    total = 0.0
    for start in range(0, count, size):
        batch = train.take(order[start : start + size])
        total += learner.step(*batch) * len(batch.labels)
    return total / count
