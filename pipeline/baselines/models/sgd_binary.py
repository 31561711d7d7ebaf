"""A linear support vector machine by stochastic gradient descent on raw pixels: is it the class or not.

References:
    A. Géron, Hands-On Machine Learning, chapter 3: `SGDClassifier` on the pixels 0 to 255 of MNIST, "5 or not".
"""

import warnings

import numpy as np

from pipeline.baselines.model import Model, Pixels, Scores, Task
from pipeline.recipe import BaselinePart


def fit(spec: BaselinePart, task: Task) -> Model:
    """Fit scikit-learn's SGDClassifier with its hinge loss.

    Args:
        spec: `alpha`, `max_iter` and `seed` are used.
        task: of two classes, 1 being the class that is looked for.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - two seconds of import, only for builds that fit
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

    model = SGDClassifier(alpha=spec.alpha, max_iter=spec.max_iter, random_state=spec.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is the user's to raise
        model.fit(task.train.pixels.astype(np.float64), task.train.labels)

    def scores(pixels: Pixels) -> Scores:
        distance = model.decision_function(pixels.astype(np.float64))
        return np.stack([-distance, distance], axis=1)

    return Model(scores, probable=False)
