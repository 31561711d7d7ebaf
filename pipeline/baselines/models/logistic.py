"""Multinomial logistic regression on normalised pixels, the first model of the notMNIST assignment."""

import warnings

from pipeline.baselines.model import Model, Pixels, Scores, Task, spread
from pipeline.pixels import normalise
from pipeline.recipe import BaselinePart


def fit(spec: BaselinePart, task: Task) -> Model:
    """Fit by L-BFGS.

    Args:
        spec: `c`, `max_iter` and `seed` are used.
        task: at least two classes must occur.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - two seconds of import, only for builds that fit
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    model = LogisticRegression(solver="lbfgs", C=spec.c, max_iter=spec.max_iter, random_state=spec.seed)
    with warnings.catch_warnings():
        # The notebooks stop at 100 iterations too; max_iter is the user's to raise.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(normalise(task.train.pixels), task.train.labels)

    def scores(pixels: Pixels) -> Scores:
        return spread(model.predict_proba(normalise(pixels)), model.classes_, task.classes)

    return Model(scores, probable=True)
