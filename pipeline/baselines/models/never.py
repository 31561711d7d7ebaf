"""Predict that no image is of the class: the accuracy that needs no learning, 0.9 if one image in ten is of it."""

import numpy as np

from pipeline.baselines.model import Model, Pixels, Scores, Task
from pipeline.recipe.baselines import NeverPart


def fit(_part: NeverPart, _task: Task) -> Model:
    """Learn nothing: the first of two classes has probability 1."""

    def scores(pixels: Pixels) -> Scores:
        return np.tile(np.array([1, 0], np.float32), (len(pixels), 1))

    return Model(scores, probable=True)
