"""Train a model by epochs, with early stopping. Each epoch has its own random order of the images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline.baselines.model import Epoch, Examples, Labels, Model, Pixels, Scores, Task, Weights, widen_scores
from pipeline.baselines.predict import predict
from pipeline.errors import BaselineError
from pipeline.recipe.baselines import EpochsPart


class Step(NamedTuple):
    """The result on a batch, measured before the model learned from it.

    Attributes:
        loss: mean cross-entropy in nats.
        correct: number of images whose class is predicted right.
    """

    loss: float
    correct: int


class Learner(NamedTuple):
    """A model that learns from batches.

    Attributes:
        step: learns from (batch, features) uint8 and (batch,) int64.
        scores: (m, features) uint8 to (m, outputs) probabilities.
        checkpoint: saves the current weights; returns a function that restores them.
        weights: returns the current weights.
    """

    step: Callable[[Pixels, Labels], Step]
    scores: Callable[[Pixels], Scores]
    checkpoint: Callable[[], Callable[[], None]]
    weights: Callable[[], Weights]


def fit_by_epochs(part: EpochsPart, task: Task, make_learner: Callable[[int], Learner]) -> Model:
    """Train for `epochs` epochs, or until `patience` epochs gave no better accuracy on the valid examples.

    With `patience` the result is the model of the best epoch, of equal epochs the first; without it, that of the last
    epoch. Batches are uint8 pixels, so that the learner scales only one batch at a time. The last batch of an epoch may
    be smaller.

    Args:
        part: `epochs`, `batch_size`, `patience` and `seed` are used.
        task: the training data. Classes that do not occur in `train` have no output, and probability 0.
        make_learner: makes a learner with the given number of outputs.

    Raises:
        BaselineError: there is `patience`, but no valid example; or training diverged.
    """
    if part.patience is not None and task.valid is None:
        raise BaselineError(
            f"baseline '{part.model}' on split '{part.split}' has patience, but there is no valid image for early "
            "stopping. Give the split a valid role, or take patience out."
        )
    known, labels = np.unique(task.train.labels, return_inverse=True)
    learner = make_learner(len(known))
    model = as_model(learner, known, task.classes)
    epochs = _train(part, task._replace(train=Examples(task.train.pixels, labels)), learner, model)
    return model._replace(weights={**learner.weights(), "known": known}, epochs=epochs)


def as_model(learner: Learner, known: Labels, classes: int) -> Model:
    """Make a model that predicts with the learner's present weights.

    Args:
        learner: with one output for each class of `known`.
        known: classes that occurred in training.
        classes: number of all classes.
    """
    weights = {**learner.weights(), "known": known}
    return Model(weights, lambda pixels: widen_scores(learner.scores(pixels), known, classes), probable=True)


def _train(part: EpochsPart, task: Task, learner: Learner, model: Model) -> tuple[Epoch, ...]:
    """Train the learner; in the end it has the weights to keep."""
    epochs: list[Epoch] = []
    best, best_at, restore_best = -1.0, 0, None
    for number in range(part.epochs):
        with np.errstate(over="ignore", invalid="ignore"):  # the error below reports it
            trained = _train_epoch(part, task.train, learner, number)
            loss, accuracy = (None, None) if task.valid is None else _measure(model, task.valid)
        if not np.isfinite(trained.loss):
            raise BaselineError(
                f"baseline '{part.model}' on split '{part.split}': training diverged in epoch {number + 1} (the loss "
                f"is {trained.loss}). Lower learning_rate, which is {part.learning_rate:g}."
            )
        epochs.append(Epoch(trained.loss, trained.correct / len(task.train.labels), loss, accuracy))
        if part.patience is None or accuracy is None:
            continue
        if accuracy > best:
            best, best_at, restore_best = accuracy, number, learner.checkpoint()
        elif number - best_at >= part.patience:
            break
    if restore_best is not None:
        restore_best()
    return tuple(epochs)


def _measure(model: Model, examples: Examples) -> tuple[float | None, float]:
    predictions = predict(model, examples)
    loss = None if predictions.loss is None else float(predictions.loss.mean())
    return loss, float(predictions.correct.mean())


def _train_epoch(part: EpochsPart, train: Examples, learner: Learner, number: int) -> Step:
    """Learn from every image once; return the result on all of them, each image measured just before its batch."""
    size, count = part.batch_size, len(train.labels)
    order = np.random.default_rng([part.seed, number]).permutation(count)
    total, correct = 0.0, 0
    for start in range(0, count, size):
        batch = train.take(order[start : start + size])
        step = learner.step(*batch)
        total += step.loss * len(batch.labels)
        correct += step.correct
    return Step(total / count, correct)
