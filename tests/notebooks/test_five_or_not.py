"""`mnist_five_or_not.toml` against the notebook's own logic: scikit-learn's classifier, folds, curve and threshold."""

import warnings
from typing import Any

import numpy as np
import pytest
from lake_rows import EXACT, Role, Run, check_misses, check_scores, role_of, run_of
from making import needs_data
from numpy.typing import NDArray
from recipe_files import built, first_digits, load
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score

from pipeline.engines.local import HERE
from pipeline.lake_handle import Lake

pytestmark = needs_data

SIZE = 3_000
CROSSED: dict[str, Any] = {"train_size": SIZE, "role": "train", "eval_on": "cross-validated"}


class Never5(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """The notebook's class, word for word but for its name."""

    def fit(self, _inputs: Any, _labels: Any = None) -> "Never5":
        return self

    def predict(self, inputs: NDArray[Any]) -> NDArray[np.bool_]:
        return np.zeros(len(inputs), dtype=bool)


def sgd() -> Any:
    return SGDClassifier(max_iter=5, random_state=42)


@pytest.fixture(autouse=True)
def few_passes() -> Any:
    """Ignore the warning that five passes do not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    folder = tmp_path_factory.mktemp("five")
    first_digits(folder / "mnist", {"train": SIZE, "t10k": 1_000})
    values = load("mnist_five_or_not")
    values["source"][0] |= {"uri": str(folder / "mnist"), "min_per_class": 85}
    return built(values, folder, HERE)


@pytest.fixture(scope="module")
def train(lake: Lake) -> Role:
    return role_of(lake, "train")


@pytest.fixture(scope="module")
def test_role(lake: Lake) -> Role:
    return role_of(lake, "test")


def inputs_of(role: Role) -> NDArray[np.float64]:
    return role.pictures.reshape(len(role.pictures), -1).astype(np.float64)


@pytest.fixture(scope="module")
def scores(train: Role) -> NDArray[np.float64]:
    """Cross-validated distances from the plane."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: NDArray[np.float64] = cross_val_predict(
            sgd(), inputs_of(train), train.labels == 5, cv=3, method="decision_function"
        )
    return found


def test_no_two_digits_are_equal(train: Role, test_role: Role) -> None:
    both = np.concatenate([train.pictures, test_role.pictures]).reshape(SIZE + 1_000, -1)
    assert len(np.unique(both, axis=0)) == len(both)
    assert train.kept.all()
    assert test_role.kept.all()


def test_the_folds_of_sgd_have_the_same_accuracies(lake: Lake, train: Role) -> None:
    run = run_of(lake, "sgd-binary")
    expected = cross_val_score(sgd(), inputs_of(train), train.labels == 5, cv=3, scoring="accuracy")
    assert run.column("fold_accuracy", **CROSSED) == pytest.approx(expected, abs=EXACT)
    assert run.value("accuracy", **CROSSED) == pytest.approx(expected.mean(), abs=EXACT)


def test_the_folds_of_never_have_the_same_accuracies(lake: Lake, train: Role) -> None:
    """Our folds have equal shares of each class. `cv=3` has not, for a class that is no classifier: same mean."""
    run, fives = run_of(lake, "never"), train.labels == 5
    by_class = cross_val_score(Never5(), train.pictures, fives, cv=StratifiedKFold(3), scoring="accuracy")
    in_order = cross_val_score(Never5(), train.pictures, fives, cv=3, scoring="accuracy")
    assert run.column("fold_accuracy", **CROSSED) == pytest.approx(by_class, abs=EXACT)
    assert run.value("accuracy", **CROSSED) == pytest.approx(in_order.mean(), abs=EXACT)
    assert run.value("accuracy", **CROSSED) == pytest.approx(1 - fives.mean(), abs=EXACT)


@pytest.mark.parametrize("model", ["sgd-binary", "never"])
def test_the_cross_validated_confusion_and_rates_are_the_same(lake: Lake, train: Role, model: str) -> None:
    fives, run = train.labels == 5, run_of(lake, model)
    if model == "never":
        predicted = np.zeros(SIZE, np.int64)
    else:
        predicted = cross_val_predict(sgd(), inputs_of(train), fives, cv=3).astype(np.int64)
        assert run.value("recall", label="5", **CROSSED) > 0.5
    # The mean of three equal folds is the accuracy of all.
    check_scores(run, fives.astype(np.int64), predicted, **CROSSED)


def test_the_threshold_for_a_precision_is_the_same(lake: Lake, train: Role, scores: NDArray[np.float64]) -> None:
    run, fives = run_of(lake, "sgd-binary"), train.labels == 5
    precision, recall, thresholds = precision_recall_curve(fives, scores)
    at = np.argmax(precision >= 0.9)
    where = {**CROSSED, "label": "5"}
    assert run.value("threshold", **where) == pytest.approx(thresholds[at], rel=EXACT)
    assert run.value("precision_at", **where) == pytest.approx(precision[at], abs=EXACT)
    assert run.value("recall_at", **where) == pytest.approx(recall[at], abs=EXACT)
    assert run.value("average_precision", **where) == pytest.approx(average_precision_score(fives, scores), abs=EXACT)
    check_curve(run, (precision, recall, thresholds), **where)


def test_the_test_role_is_scored_by_the_threshold_of_the_folds(
    lake: Lake, train: Role, test_role: Role, scores: NDArray[np.float64]
) -> None:
    run, fives = run_of(lake, "sgd-binary"), test_role.labels == 5
    model = sgd().fit(inputs_of(train), train.labels == 5)
    found = model.decision_function(inputs_of(test_role))
    precision, _, thresholds = precision_recall_curve(train.labels == 5, scores)
    over = found >= thresholds[np.argmax(precision >= 0.9)]
    where: dict[str, Any] = {"train_size": SIZE, "role": "test", "eval_on": "original", "label": "5"}
    assert run.value("precision_at", **where) == pytest.approx(fives[over].mean(), abs=EXACT)
    assert run.value("recall_at", **where) == pytest.approx(over[fives].mean(), abs=EXACT)
    assert run.value("average_precision", **where) == pytest.approx(average_precision_score(fives, found), abs=EXACT)
    check_curve(run, precision_recall_curve(fives, found), **where)


def check_curve(run: Run, curve: tuple[NDArray[np.float64], ...], **where: Any) -> None:
    """Find every stored point on the plain curve."""
    precision, recall, thresholds = curve
    points = run.column("curve_precision", "point", **where)
    at = np.searchsorted(thresholds, np.array(points) * (1 - np.sign(points) * EXACT))
    assert len(points) > 50
    assert run.column("curve_recall", "point", **where) == points
    assert points == pytest.approx(thresholds[at], rel=EXACT)
    assert run.column("curve_precision", **where) == pytest.approx(precision[at], abs=EXACT)
    assert run.column("curve_recall", **where) == pytest.approx(recall[at], abs=EXACT)


@pytest.mark.parametrize("model", ["sgd-binary", "never"])
def test_both_models_score_the_roles_as_scikit_learn(lake: Lake, train: Role, test_role: Role, model: str) -> None:
    run, plain = run_of(lake, model), sgd() if model == "sgd-binary" else Never5()
    plain.fit(inputs_of(train), train.labels == 5)
    assert run.names == ["not 5", "5"]
    for name, role in (("train", train), ("test", test_role)):
        predicted = plain.predict(inputs_of(role)).astype(np.int64)
        where: dict[str, Any] = {"train_size": SIZE, "role": name, "eval_on": "original"}
        check_scores(run, (role.labels == 5).astype(np.int64), predicted, **where)
    check_misses(run, test_role._replace(labels=(test_role.labels == 5).astype(np.int64)), predicted)
