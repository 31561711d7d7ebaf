"""A linear support vector machine for one class against the rest, by stochastic gradient descent on raw pixels.

References:
    A. Géron, Hands-On Machine Learning, chapter 3: `SGDClassifier` on the pixels 0 to 255 of MNIST, "5 or not".
"""

import warnings

import numpy as np

from pipeline.baselines.model import Model, Pixels, Scores, Task
from pipeline.recipe.baselines import SgdBinaryPart


def fit(part: SgdBinaryPart, task: Task) -> Model:
    """Fit scikit-learn's SGDClassifier with its hinge loss.

    Args:
        part: `alpha`, `max_iter` and `seed` are used.
        task: the training data, of two classes; class 1 is the positive one.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - two seconds of import, only for builds that fit
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

    model = SGDClassifier(alpha=part.alpha, max_iter=part.max_iter, random_state=part.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the user can raise max_iter
        model.fit(task.train.pixels.astype(np.float64), task.train.labels)

    def scores(pixels: Pixels) -> Scores:
        distance = model.decision_function(pixels.astype(np.float64))
        return np.stack([-distance, distance], axis=1)

    return Model(scores, probable=False)
