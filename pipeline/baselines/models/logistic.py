"""Multinomial logistic regression on normalised pixels, the first model of the notMNIST assignment."""

import warnings

from pipeline.baselines.model import Model, Pixels, Scores, Task, widen_scores
from pipeline.pixels import normalise
from pipeline.recipe.baselines import LogisticPart


def fit(part: LogisticPart, task: Task) -> Model:
    """Fit by L-BFGS.

    Args:
        part: `c`, `max_iter` and `seed` are used.
        task: the training data; at least two classes must occur.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - two seconds of import, only for builds that fit
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    model = LogisticRegression(solver="lbfgs", C=part.c, max_iter=part.max_iter, random_state=part.seed)
    with warnings.catch_warnings():
        # The notebooks stop at 100 iterations too; the user can raise max_iter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(normalise(task.train.pixels), task.train.labels)

    def scores(pixels: Pixels) -> Scores:
        return widen_scores(model.predict_proba(normalise(pixels)), model.classes_, task.classes)

    return Model(scores, probable=True)
