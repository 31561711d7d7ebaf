"""A linear support vector machine for every pair of classes, on normalised pixels, by scikit-learn's SVC (libsvm).

The strength of its regularisation is searched unless the recipe gives it: the SVM of the digit recognizer notebooks.

References:
    C.-C. Chang and C.-J. Lin, "LIBSVM: A Library for Support Vector Machines", ACM TIST 2, 2011.
    J. Bergstra and Y. Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012.
"""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.model import Examples, Labels, Model, Pixels, Scores, Task, spread
from pipeline.errors import BaselineError
from pipeline.pixels import normalise
from pipeline.recipe import BaselinePart

# Where c is looked for: 2^-7 to 2^6, evenly in its logarithm.
_LOWEST, _HIGHEST = 2**-7, 2**6
_FOLDS = 5


class Planes(NamedTuple):
    """What is left of the machines for all pairs of k classes, in the order of `itertools.combinations`.

    Attributes:
        weights: (features, pairs) float64.
        bias: (pairs,) float64; above zero speaks for the first class of the pair.
        classes: k.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    classes: int


def fit(spec: BaselinePart, task: Task) -> Model:
    """Search c where it is not given, then fit all training images with it.

    All training images are held as float64 by libsvm, which wants them so.

    Args:
        spec: `c`, or `candidates`, `search_size` and `seed`, are used. The fit itself takes no seed.
        task: at least two classes must occur.

    Raises:
        BaselineError: c is to be searched on images of which no two classes have two.
    """
    chosen = {} if spec.c is not None else _search(spec, task.train)
    model = _machine(chosen.get("c", spec.c)).fit(normalise(task.train.pixels), task.train.labels)
    planes, known = planes_of(model), model.classes_

    def scores(pixels: Pixels) -> Scores:
        return spread(votes(planes, normalise(pixels)), known, task.classes, blank=-np.inf)

    return Model(scores, probable=False, chosen=chosen)


def _machine(c: float | None) -> Any:  # noqa: ANN401 - scikit-learn has no types
    from sklearn.svm import SVC  # noqa: PLC0415 - two seconds of import, only for builds that fit

    # cache_size, 200 MB: 1,000 and 2,000 were no faster on 20,000 images of MNIST.
    # random_state: libsvm draws nothing here, but without one scikit-learn takes from numpy's global generator.
    return SVC(kernel="linear", C=1.0 if c is None else c, break_ties=True, random_state=0)


def _search(spec: BaselinePart, train: Examples) -> dict[str, float]:
    """Try values of c by cross-validation on the first images; give the best, of equals the least, and its accuracy."""
    from scipy.stats import loguniform  # noqa: PLC0415 - slow to import, only for builds that fit
    from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold  # noqa: PLC0415

    size = len(train.labels) if spec.search_size in {None, "all"} else spec.search_size
    first = train.take(np.arange(len(train.labels))[:size])
    counts = np.bincount(first.labels)
    # A class of one image cannot be both learned and asked about. It speaks again in the fit.
    searched = first.take(np.flatnonzero(counts[first.labels] > 1))
    if len(np.unique(searched.labels)) < 2:  # noqa: PLR2004 - there is nothing to tell apart
        raise BaselineError(
            f"baseline '{spec.model}' on split '{spec.split}': c is to be searched on the first {len(first.labels)} "
            "training images, but fewer than two classes have two of them. Give c, or a larger search_size or train "
            "size."
        )
    folds = min(_FOLDS, int(counts[counts > 1].min()))
    search = RandomizedSearchCV(
        _machine(None),
        {"C": loguniform(_LOWEST, _HIGHEST)},
        n_iter=spec.candidates,
        cv=StratifiedKFold(folds),
        scoring=_accuracy,
        refit=False,
        random_state=spec.seed,
    ).fit(normalise(searched.pixels), searched.labels)
    tried = zip(search.cv_results_["mean_test_score"], search.cv_results_["param_C"], strict=True)
    # Where classes can be told apart without fault, all large c are equally good: the least has the widest margin.
    accuracy, c = max(tried, key=lambda one: (one[0], -one[1]))
    return {"c": float(c), "c_accuracy": float(accuracy)}


def _accuracy(model: Any, inputs: NDArray[np.float32], labels: Labels) -> float:  # noqa: ANN401 - scikit-learn has no types
    said = model.classes_[votes(planes_of(model), inputs).argmax(axis=1)]
    return float(np.mean(said == labels))


def planes_of(model: Any) -> Planes:  # noqa: ANN401 - scikit-learn has no types
    """Collapse the support vectors of a fitted linear SVC into one plane a pair.

    libsvm itself asks every support vector about every image, which takes longer than the fit of many models.
    """
    classes = len(model.classes_)
    # Of two classes scikit-learn turns the signs: there, above zero speaks for the second.
    sign = -1 if classes == 2 else 1  # noqa: PLR2004 - one pair
    return Planes(sign * model.coef_.T, sign * model.intercept_, classes)


def votes(planes: Planes, inputs: NDArray[np.float32]) -> Scores:
    """Count what the pairs say; of equal counts the larger margin wins, of equal margins the first class.

    Args:
        planes: made by `planes_of`.
        inputs: (m, features).

    Returns:
        (m, classes) float64. With three classes or more: votes, and a third at most, either way, for the sum of the
        margins. With two: the margin.

    References:
        scikit-learn's SVC.decision_function with decision_function_shape="ovr".
    """
    margins: NDArray[np.float64] = inputs.astype(np.float64) @ planes.weights + planes.bias
    pairs = list(combinations(range(planes.classes), 2))
    if len(pairs) == 1:
        return np.hstack([margins, -margins])
    first, second = np.eye(planes.classes)[np.transpose(pairs)]
    sums: NDArray[np.float64] = margins @ (first - second)
    counts: NDArray[np.float64] = np.heaviside(margins, 1) @ first + np.heaviside(-margins, 0) @ second
    out: Scores = counts + sums / (3 * (np.abs(sums) + 1))
    return out
