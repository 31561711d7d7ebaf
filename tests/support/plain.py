"""What plain scripts of the notebooks share: numpy and scikit-learn alone, nothing of imagelake."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

Pictures = NDArray[np.uint8]
Scaled = NDArray[np.float32]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]


def scaled(pictures: Pictures) -> Scaled:
    """Scale to -0.5 to 0.5, as the notMNIST notebooks do when they read a file: (n, pixels) float32."""
    return ((pictures.astype(float) - 255 / 2) / 255).astype(np.float32).reshape(len(pictures), -1)


def doubled(pictures: Pictures) -> NDArray[np.float64]:
    """Scale to the odd numbers from -255 to 255.

    They are 510 times the scaled pixels, and whole: float64 holds all sums of their products exactly.
    """
    return 2 * pictures.astype(np.float64) - 255


def fit_logistic(inputs: Scaled, labels: Labels) -> Any:
    """Fit scikit-learn's defaults, written out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the notebooks stop at 100 iterations too
        return LogisticRegression(solver="lbfgs", C=1.0, max_iter=100, random_state=0).fit(inputs, labels)


def max_pooled(pictures: Pictures) -> Pictures:
    """Take the maximum of every block of 4 x 4: (n, 7, 7)."""
    return np.ascontiguousarray(pictures.reshape(-1, 7, 4, 7, 4).max(axis=(2, 4)))
