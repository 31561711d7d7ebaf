"""Linear models of pixels, and the baseline that predicts no image to be of the class.

- `logistic`: multinomial logistic regression on normalised pixels, the first model of the notMNIST assignment.
- `softmax-sgd`: softmax regression by mini-batch stochastic gradient descent on normalised pixels, in plain numpy: the
  one-layer model of the notMNIST notebooks, which is trained for 20 epochs in batches of 128 by Keras' "sgd", whose
  learning rate is 0.01.
- `sgd-binary`: a linear support vector machine for one class against the rest, by stochastic gradient descent on raw
  pixels.
- `svm-linear`: a linear support vector machine for every pair of classes, on normalised pixels, by scikit-learn's SVC
  (libsvm): the SVM of the digit recognizer notebooks. c, the inverse strength of regularisation, is searched unless the
  recipe sets it.
- `never`: predict that no image is of the class: the accuracy that needs no learning, 0.9 if one image in ten is of it.

References:
    A. Géron, Hands-On Machine Learning, chapter 3: `SGDClassifier` on the pixels 0 to 255 of MNIST, "5 or not".
    C.-C. Chang and C.-J. Lin, "LIBSVM: A Library for Support Vector Machines", ACM TIST 2, 2011.
    J. Bergstra and Y. Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012.
"""

import warnings
from collections.abc import Callable
from itertools import combinations
from math import prod
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.epochs import Learner, Step, as_model, fit_by_epochs
from pipeline.baselines.model import Examples, Labels, Model, Pixels, Scores, StoredModel, Task, widen_scores
from pipeline.errors import BaselineError
from pipeline.pixels import normalise
from pipeline.recipe.baselines import LogisticPart, NeverPart, SgdBinaryPart, SoftmaxSgdPart, SvmLinearPart


def fit_logistic(part: LogisticPart, task: Task) -> Model:
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

    weights = {"coefficients": model.coef_, "intercept": model.intercept_, "known": model.classes_}
    return load_logistic(StoredModel(part, weights, task.classes, task.shape))


def load_logistic(stored: StoredModel) -> Model:
    """Make a fitted model again.

    References:
        scikit-learn's LogisticRegression.predict_proba.
    """
    coefficients, intercept, known = (stored.weights[name] for name in ("coefficients", "intercept", "known"))

    def scores(pixels: Pixels) -> Scores:
        logits = normalise(pixels) @ coefficients.T + intercept
        if logits.shape[1] == 1:  # two classes
            logits = np.hstack([np.zeros_like(logits), logits])
        return widen_scores(np.exp(log_softmax(logits)), known, stored.classes)

    return Model(stored.weights, scores, probable=True)


Float = TypeVar("Float", np.float32, np.float64)


class Gradient(NamedTuple):
    """The mean cross-entropy of a batch in nats, correct predictions, and the gradient.

    The gradient of the weights is (features, classes), that of the bias (classes,).
    """

    loss: float
    correct: int
    weights: NDArray[np.floating]
    bias: NDArray[np.floating]


def fit_softmax_sgd(part: SoftmaxSgdPart, task: Task) -> Model:
    """Fit, starting from weights of zero.

    Args:
        part: `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: the training data.

    Raises:
        BaselineError: there is `patience`, but no valid example; or training diverged.
    """
    features = prod(task.shape)
    return fit_by_epochs(
        part,
        task,
        lambda outputs: _make_learner(
            part.learning_rate, np.zeros((features, outputs), np.float32), np.zeros(outputs, np.float32)
        ),
    )


def load_softmax_sgd(stored: StoredModel) -> Model:
    """Make a fitted model again."""
    weights = stored.weights
    return as_model(_make_learner(0.0, weights["weights"], weights["bias"]), weights["known"], stored.classes)


def _make_learner(rate: float, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> Learner:

    def step(pixels: Pixels, labels: Labels) -> Step:
        gradient = find_gradient(weights, bias, normalise(pixels), labels)
        np.subtract(weights, rate * gradient.weights, out=weights, dtype=np.float32)
        np.subtract(bias, rate * gradient.bias, out=bias, dtype=np.float32)
        return Step(gradient.loss, gradient.correct)

    def scores(pixels: Pixels) -> Scores:
        out: Scores = np.exp(log_softmax(normalise(pixels) @ weights + bias))
        return out

    def checkpoint() -> Callable[[], None]:
        saved = weights.copy(), bias.copy()

        def restore() -> None:
            weights[:], bias[:] = saved

        return restore

    return Learner(step, scores, checkpoint, lambda: {"weights": weights, "bias": bias})


def log_softmax(scores: NDArray[Float]) -> NDArray[Float]:
    """Compute log-probabilities of scores, row by row. The largest is subtracted first, so no exponential overflows."""
    lowered: NDArray[Float] = scores - scores.max(axis=1, keepdims=True)
    lowered -= np.log(np.exp(lowered).sum(axis=1, keepdims=True))
    return lowered


def find_gradient(weights: NDArray[Float], bias: NDArray[Float], inputs: NDArray[Float], labels: Labels) -> Gradient:
    """Compute the mean cross-entropy of a batch and its gradient.

    Args:
        weights: (features, classes).
        bias: (classes,).
        inputs: (batch, features).
        labels: (batch,) class numbers.
    """
    logs = log_softmax(inputs @ weights + bias)
    rows = np.arange(len(labels))
    loss, correct = -float(logs[rows, labels].mean()), int((logs.argmax(axis=1) == labels).sum())
    error = np.exp(logs)
    error[rows, labels] -= 1
    error /= len(labels)
    return Gradient(loss, correct, inputs.T @ error, error.sum(axis=0))


def fit_sgd_binary(part: SgdBinaryPart, task: Task) -> Model:
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

    weights = {"coefficients": model.coef_[0], "intercept": model.intercept_}
    return load_sgd_binary(StoredModel(part, weights, task.classes, task.shape))


def load_sgd_binary(stored: StoredModel) -> Model:
    """Make a fitted model again; its classes are 0 and 1."""
    weights = stored.weights

    def scores(pixels: Pixels) -> Scores:
        distance = pixels.astype(np.float64) @ weights["coefficients"] + weights["intercept"]
        return np.stack([-distance, distance], axis=1)

    return Model(weights, scores, probable=False)


# Range of the search for c if the recipe gives none.
_C_RANGE = (2**-7, 2**6)
_FOLDS = 5


class Planes(NamedTuple):
    """The separating planes of all pairs of k classes, in the order of `itertools.combinations`.

    Attributes:
        weights: (features, pairs) float64.
        bias: (pairs,) float64. A margin above zero is a vote for the first class of the pair.
        classes: k.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    classes: int


def fit_svm_linear(part: SvmLinearPart, task: Task) -> Model:
    """Search c if it is not given, then fit all training images with it.

    libsvm keeps all training images in memory as float64.

    Args:
        part: `c`, or `candidates`, `search_size`, `c_values`, `c_range` and `seed`, are used, and `break_ties`. The fit
            itself uses no seed.
        task: the training data; at least two classes must occur.

    Raises:
        BaselineError: c must be searched, but fewer than two classes have two images.
    """
    chosen = {} if part.c is not None else _search_c(part, task.train)
    model = _make_svc(chosen.get("c", part.c), part.break_ties).fit(normalise(task.train.pixels), task.train.labels)
    planes = planes_of(model)
    weights = {"planes": planes.weights, "bias": planes.bias, "known": model.classes_}
    return load_svm_linear(StoredModel(part, weights, task.classes, task.shape))._replace(chosen=chosen)


def load_svm_linear(stored: StoredModel) -> Model:
    """Make a fitted model again."""
    part, weights, known = cast("SvmLinearPart", stored.part), stored.weights, stored.weights["known"]
    planes = Planes(weights["planes"], weights["bias"], len(known))

    def scores(pixels: Pixels) -> Scores:
        counted = votes(planes, normalise(pixels), break_ties=part.break_ties)
        return widen_scores(counted, known, stored.classes, missing=-np.inf)

    return Model(weights, scores, probable=False)


def _make_svc(c: float | None, break_ties: bool) -> Any:  # noqa: ANN401, FBT001 - scikit-learn has no types
    from sklearn.svm import SVC  # noqa: PLC0415 - two seconds of import, only for builds that fit

    # The default cache_size of 200 MB: 1,000 and 2,000 were no faster on 20,000 images of MNIST.
    # random_state: libsvm draws nothing here, but without it scikit-learn draws from numpy's global generator.
    return SVC(kernel="linear", C=1.0 if c is None else c, break_ties=break_ties, random_state=0)


def _search_c(part: SvmLinearPart, train: Examples) -> dict[str, float]:
    """Cross-validate values of c on the first images; return the best, of equals the smallest, and its accuracy.

    RandomizedSearchCV draws from a list of values without replacement.
    """
    from scipy.stats import loguniform  # noqa: PLC0415 - slow to import, only for builds that fit
    from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold  # noqa: PLC0415

    size = len(train.labels) if part.search_size in {None, "all"} else part.search_size
    first = train.take(np.arange(len(train.labels))[:size])
    counts = np.bincount(first.labels)
    # A class of one image cannot be split into folds. The fit after the search uses it.
    searched = first.take(np.flatnonzero(counts[first.labels] > 1))
    if len(np.unique(searched.labels)) < 2:  # noqa: PLR2004 - two classes to separate
        raise BaselineError(
            f"baseline '{part.model}' on split '{part.split}': c must be searched on the first {len(first.labels)} "
            "training images, but fewer than two classes have two of them. Give c, or a larger search_size or train "
            "size."
        )
    folds = min(_FOLDS, int(counts[counts > 1].min()))
    listed = None if part.c_values is None else list(dict.fromkeys(part.c_values))
    search = RandomizedSearchCV(
        _make_svc(None, part.break_ties),
        {"C": listed or loguniform(*(part.c_range or _C_RANGE))},
        n_iter=min(part.candidates or 1, len(listed)) if listed else part.candidates,
        cv=StratifiedKFold(folds),
        scoring=_accuracy,
        refit=False,
        random_state=part.seed,
    ).fit(normalise(searched.pixels), searched.labels)
    tried = zip(search.cv_results_["mean_test_score"], search.cv_results_["param_C"], strict=True)
    # If the classes can be separated without errors, all large c are equally good: the smallest has the widest margin.
    accuracy, c = max(tried, key=lambda one: (one[0], -one[1]))
    return {"c": float(c), "c_accuracy": float(accuracy)}


def _accuracy(model: Any, inputs: NDArray[np.float32], labels: Labels) -> float:  # noqa: ANN401 - scikit-learn has no types
    found = votes(planes_of(model), inputs, break_ties=model.break_ties)
    predicted = model.classes_[found.argmax(axis=1)]
    return float(np.mean(predicted == labels))


def planes_of(model: Any) -> Planes:  # noqa: ANN401 - scikit-learn has no types
    """Combine the support vectors of a fitted linear SVC into one plane per pair.

    libsvm itself compares every image with every support vector, which can take longer than the fit.
    """
    classes = len(model.classes_)
    # For two classes scikit-learn reverses the signs: above zero is then a vote for the second.
    sign = -1 if classes == 2 else 1  # noqa: PLR2004 - one pair
    return Planes(sign * model.coef_.T, sign * model.intercept_, classes)


def votes(planes: Planes, inputs: NDArray[np.float32], *, break_ties: bool = True) -> Scores:
    """Count the votes of the pairs.

    Args:
        planes: made by `planes_of`.
        inputs: (m, features).
        break_ties: of equal counts the larger margins win, of equal margins the first class. If false, of equal counts
            the first class wins, and a margin of exactly zero is a vote for the second class of the pair.

    Returns:
        (m, classes) float64; the largest score is that of the class that SVC predicts. With three classes or more: the
        votes, with `break_ties` plus or minus at most a third by the sum of the margins. With two: the margin.

    References:
        scikit-learn's SVC.decision_function with decision_function_shape="ovr"; svm_predict_values of libsvm, which
        SVC.predict uses for two classes, and without break_ties.
    """
    margins: NDArray[np.float64] = inputs.astype(np.float64) @ planes.weights + planes.bias
    pairs = list(combinations(range(planes.classes), 2))
    if len(pairs) == 1:
        # Of equal scores the first would be the prediction, but libsvm gives a margin of zero to the second class.
        return np.hstack([margins, np.where(margins == 0, np.finfo(np.float64).tiny, -margins)])
    first, second = np.eye(planes.classes)[np.transpose(pairs)]
    if not break_ties:
        for_first = (margins > 0).astype(np.float64)
        counted: Scores = for_first @ first + (1 - for_first) @ second
        return counted
    sums: NDArray[np.float64] = margins @ (first - second)
    counts: NDArray[np.float64] = np.heaviside(margins, 1) @ first + np.heaviside(-margins, 0) @ second
    out: Scores = counts + sums / (3 * (np.abs(sums) + 1))
    return out


def fit_never(part: NeverPart, task: Task) -> Model:
    """Learn nothing: the first of two classes has probability 1."""
    return load_never(StoredModel(part, {}, task.classes, task.shape))


def load_never(stored: StoredModel) -> Model:
    """Make the model again; it has no weights."""

    def scores(pixels: Pixels) -> Scores:
        return np.tile(np.array([1, 0], np.float32), (len(pixels), 1))

    return Model(stored.weights, scores, probable=True)
