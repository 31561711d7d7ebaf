"""Find labels that a model contradicts which was not trained on the picture that it judges.

The model is a ridge regression of the classes on random Fourier features, a fast stand-in for a kernel machine. One
pass over the pictures sums the products of their features, fold by fold; a model of all folds but one is then a matter
of subtraction. Pictures that a first round contradicts are left out of the training of a second, so that wrong labels
are not learnt.

All sums are of whole numbers that floats hold exactly, and random numbers come from hashes of their positions. So
scores depend neither on the order of the pictures nor on the number of threads.

References:
    A. Rahimi and B. Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007.
    C. Northcutt, L. Jiang and I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Matrix = NDArray[np.float64]

FOLDS = 5
# How often `find_suspects` reads every picture, apart from a first look at their spread.
PASSES = 4
# Pictures of a label that the other folds must have, for the label to be judged.
MIN_PICTURES = 5
# Random features: at most so many, and not many more than pictures; one more is constant.
_MOST_WIDTH, _WIDTH_STEP = 2048, 128
# Width of the kernel, as a part of the mean squared distance of two pictures.
_KERNEL = 0.25
# Strength of the ridge, as a part of the number of pictures.
_RIDGE = 5e-3
# Pictures of a block. The products of the features of a block sum up to less than 2**24.
_BLOCK = 1024
# Random weights have about this deviation and are at most six times as large: their products with features stay exact.
_DEVIATION = 28
# A turn is cut into this many steps, and its cosines are whole numbers up to `_AMPLITUDE`.
_STEPS, _AMPLITUDE = 1024, 127
_COSINES = np.round(_AMPLITUDE * np.cos(2 * np.pi * np.arange(_STEPS) / _STEPS)).astype(np.int8)
# Coefficients are rounded to multiples of this, so that scores are exact sums.
_UNIT = 2.0**-30


class Suspects(NamedTuple):
    """How suspect the label of each picture is.

    Attributes:
        score: (n,) float64, 0 to 1: above 0.5 the model prefers another label. 0 for labels that cannot be judged.
        suggested: (n,) int64: the other class that the model prefers.
    """

    score: NDArray[np.float64]
    suggested: NDArray[np.int64]


def folds_of(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Draw folds by content hashes, (n, 16) uint8, so that equal pictures are in one fold: (n,) 0 to `FOLDS` - 1."""
    first = np.ascontiguousarray(hashes[:, :8]).view("<u8")[:, 0]
    return (first % np.uint64(FOLDS)).astype(np.int64)


def find_suspects(
    pictures: NDArray[np.uint8],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: int,
    on_block: Callable[[int], None] = lambda _: None,
) -> Suspects:
    """Judge the label of every picture by a model that was not trained on the pictures of its fold.

    Args:
        pictures: (n, m) uint8, made by `features`; may be a memory map. Two rows may be one picture with two labels.
        labels: (n,) class numbers, 0 to classes - 1.
        folds: (n,) made by `folds_of`.
        classes: number of classes.
        on_block: called with the number of pictures of each block that is done; there are `PASSES` passes.

    Returns:
        The scores, in the order of the pictures.
    """
    nothing = Suspects(np.zeros(len(labels)), np.zeros(len(labels), np.int64))
    if classes < 2 or not len(labels):  # noqa: PLR2004 - no other label to suggest
        return nothing
    spread = _mean_squared_distance(pictures)
    if not spread:
        return nothing
    width = min(_MOST_WIDTH, -(-len(labels) // _WIDTH_STEP) * _WIDTH_STEP)
    project = _projection(pictures.shape[1], width, spread)
    trained = np.ones(len(labels), bool)
    found = nothing
    for _ in range(2):
        models = _train(pictures, labels, folds, classes, trained, project, on_block)
        found = _judge(pictures, labels, folds, models, project, on_block)
        del models  # before those of the second round are made
        trained = found.score <= 0.5  # noqa: PLR2004 - the model agrees
    others = np.zeros((FOLDS, classes), np.int64)
    np.add.at(others, (folds, labels), 1)
    judged = (others.sum(axis=0) - others)[folds, labels] >= MIN_PICTURES
    return Suspects(np.where(judged, found.score, 0), found.suggested)


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK))


def _mean_squared_distance(pictures: NDArray[np.uint8]) -> float:
    """Return the mean squared distance of two pictures: twice the sum of the variances of all features."""
    total, squares = np.zeros(pictures.shape[1], np.int64), 0
    for rows in _blocks(np.arange(len(pictures))):
        block = pictures[rows].astype(np.int64)
        total += block.sum(axis=0)
        squares += int((block * block).sum())
    count = len(pictures)
    return 2 * (squares * count - sum(value * value for value in total.tolist())) / count**2


Projection = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def _projection(length: int, width: int, spread: float) -> Projection:
    """Draw random Fourier features: a function from (k, length) features to (k, width + 1) whole numbers."""
    source = np.random.Philox(key=20)
    # The sum of twelve bytes is nearly normal. Raw bits are the same in every version of numpy.
    raw = source.random_raw(length * width * 12 // 8).view(np.uint8)
    sums = raw.reshape(length, width, 12).sum(axis=2, dtype=np.int64) - 12 * 255 // 2
    weights = np.round(sums * (_DEVIATION / 256)).astype(np.float32)
    shifts = (source.random_raw(width) % np.uint64(_STEPS)).astype(np.float64)
    scale = _STEPS / (2 * np.pi * _DEVIATION * (_KERNEL * spread) ** 0.5)

    def project(block: NDArray[np.uint8]) -> NDArray[np.float32]:
        sums = (block.astype(np.float32) @ weights).astype(np.float64)
        steps = np.floor(sums * scale + shifts).astype(np.int64) & (_STEPS - 1)
        constant = np.full((len(block), 1), _AMPLITUDE, np.int8)
        return np.hstack([_COSINES[steps], constant]).astype(np.float32)

    return project


def _train(  # noqa: PLR0913, PLR0917 - what models are made of
    pictures: NDArray[np.uint8],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: int,
    trained: NDArray[np.bool_],
    project: Projection,
    on_block: Callable[[int], None],
) -> Matrix:
    """Fit a model for each fold, of the trained pictures of all others: (FOLDS, features, classes)."""
    width = project(pictures[:1]).shape[1]
    products, targets = np.zeros((FOLDS, width, width)), np.zeros((FOLDS, width, classes))
    for fold in range(FOLDS):
        for rows in _blocks(np.flatnonzero((folds == fold) & trained)):
            block = project(pictures[rows])
            one_hot = np.zeros((len(rows), classes), np.float32)
            one_hot[np.arange(len(rows)), labels[rows]] = 1
            products[fold] += block.T @ block
            targets[fold] += block.T @ one_hot
            on_block(len(rows))
    all_products, all_targets = products.sum(axis=0), targets.sum(axis=0)
    ridge = np.eye(width) * (_RIDGE * _AMPLITUDE**2 * max(1, int(trained.sum())))
    models = np.empty((FOLDS, width, classes))
    # The rounding errors of a solution would depend on the number of threads.
    with threadpool_limits(1, "blas"):
        for fold in range(FOLDS):
            models[fold] = np.linalg.solve(all_products - products[fold] + ridge, all_targets - targets[fold])
    # In place: there are 8 bytes for each fold, feature and class.
    models /= _UNIT
    np.round(models, out=models)
    models *= _UNIT
    return models


def _judge(  # noqa: PLR0913, PLR0917 - what is judged
    pictures: NDArray[np.uint8],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    models: Matrix,
    project: Projection,
    on_block: Callable[[int], None],
) -> Suspects:
    margin, suggested = np.empty(len(labels)), np.empty(len(labels), np.int64)
    for fold in range(FOLDS):
        for rows in _blocks(np.flatnonzero(folds == fold)):
            scores = project(pictures[rows]).astype(np.float64) @ models[fold]
            at = np.arange(len(rows))
            own = scores[at, labels[rows]]
            scores[at, labels[rows]] = -np.inf
            suggested[rows] = scores.argmax(axis=1)
            margin[rows] = scores[at, suggested[rows]] - own
            on_block(len(rows))
    # A model that was trained on few pictures of a class prefers others: then its usual margin is above 0.
    usual = np.bincount(labels, margin) / np.maximum(np.bincount(labels), 1)
    return Suspects(np.clip((1 + margin - np.maximum(usual, 0)[labels]) / 2, 0, 1), suggested)
