"""Multinomial logistic regression on normalised pixels, the first model of the notMNIST assignment."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart

Predict = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def fit(spec: BaselinePart, pixels: NDArray[np.float32], labels: NDArray[np.int64]) -> Predict:
    """Fit by L-BFGS.

    Args:
        spec: the recipe's `[[baseline]]`: C, max_iter and seed are used.
        pixels: (n, features) float32.
        labels: (n,) int64 class indices.

    Returns:
        A function from (m, features) float32 to (m,) int64 predictions.

    Raises:
        BaselineError: the labels are all of one class.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - two seconds of import, only for builds that fit
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    if len(np.unique(labels)) < 2:  # noqa: PLR2004
        raise BaselineError(
            f"baseline '{spec.model}' on split '{spec.split}': its {len(labels)} training images are of one class. "
            "Ask for more classes or a larger train size."
        )
    model = LogisticRegression(solver="lbfgs", C=spec.c, max_iter=spec.max_iter, random_state=spec.seed)
    with warnings.catch_warnings():
        # The notebooks stop at 100 iterations too; max_iter is the user's to raise.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(pixels, labels)
    return model.predict  # type: ignore[no-any-return] # scikit-learn has no types
