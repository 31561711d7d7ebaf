"""Cross-validation: every training image is judged once, by a model that did not see it."""

import numpy as np
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, cross_val_score

from pipeline.baselines.fit import cross_validate, fit_once
from pipeline.baselines.model import Examples, Model, Pixels, Scores, Task
from pipeline.baselines.models import MODELS
from pipeline.errors import BaselineError
from pipeline.pixels import normalise
from pipeline.recipe import BaselinePart


@given(st.integers(6, 60), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_every_image_is_judged_once_by_a_model_that_did_not_see_it(count: int, folds: int, seed: int) -> None:
    """A picture is its own number, and the model knows which numbers it was shown."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.append(np.repeat([0, 1], folds), rng.integers(0, 2, count)))
    numbers = np.arange(len(labels), dtype=np.uint8)[:, None]
    asked: list[int] = []

    def fit(_spec: BaselinePart, task: Task) -> Model:
        shown = set(task.train.pixels[:, 0].tolist())

        def scores(pixels: Pixels) -> Scores:
            met = pixels[:, 0].tolist()
            asked.extend(met)
            assert not shown & set(met)
            assert shown | set(met) == set(range(len(labels)))
            return np.stack([-pixels[:, 0].astype(np.float64), pixels[:, 0]], axis=1)

        return Model({}, scores, probable=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "logistic", fit)
        spec = toys.spec("logistic", folds=folds)
        found = cross_validate(spec, 0, Task(Examples(numbers, labels), None, 2, (1, 1, 1)))
    assert sorted(asked) == list(range(len(labels)))
    np.testing.assert_array_equal(found.predictions.labels, labels)
    np.testing.assert_array_equal(found.predictions.score, numbers[:, 0])
    assert len(found.accuracies) == folds


def test_folds_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    train = Examples(rng.integers(0, 256, (90, 16), dtype=np.uint8), rng.integers(0, 3, 90))
    found = cross_validate(toys.spec("logistic", folds=3), 0, Task(train, None, 3, (4, 4, 1)))
    model, inputs = LogisticRegression(C=1.0, max_iter=100), normalise(train.pixels)
    np.testing.assert_array_equal(found.predictions.predicted, cross_val_predict(model, inputs, train.labels, cv=3))
    assert found.accuracies == pytest.approx(cross_val_score(model, inputs, train.labels, cv=3))
    assert found.cost.seconds > 0


def test_never_is_right_about_the_rest_in_every_fold() -> None:
    labels = np.array([0] * 27 + [1] * 3)
    train = Examples(np.zeros((30, 4), np.uint8), labels)
    found = cross_validate(toys.spec("never", folds=3), 0, Task(train, None, 2, (2, 2, 1)))
    assert found.accuracies == (0.9, 0.9, 0.9)


def test_a_class_must_be_in_every_fold() -> None:
    train = Examples(np.zeros((12, 4), np.uint8), np.array([0] * 10 + [2] * 2))
    with pytest.raises(BaselineError, match="3 folds of 12 training images need 3 of each class; one has 2"):
        cross_validate(toys.spec("logistic", folds=3), 0, Task(train, None, 3, (2, 2, 1)))


@pytest.mark.parametrize("wrong", [1, 30])
def test_scores_that_are_no_numbers_are_refused(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    task = toys.task(30)
    fitted = MODELS["logistic"](toys.spec("logistic"), task)

    def scores(pixels: Pixels) -> Scores:
        found: Scores = fitted.scores(pixels).copy()
        found[:wrong] = np.nan
        return found

    monkeypatch.setitem(MODELS, "logistic", lambda _spec, _task: fitted._replace(scores=scores))
    with pytest.raises(BaselineError, match="gives scores that are not numbers"):
        fit_once(toys.spec("logistic"), 0, task, {"train": task.train})


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"never"}))
def test_one_class_alone_teaches_nothing(name: str) -> None:
    task = toys.task()._replace(train=Examples(np.zeros((5, 144), np.uint8), np.ones(5, np.int64)))
    with pytest.raises(BaselineError, match="its 5 training images are of one class"):
        fit_once(toys.spec(name), 0, task, {})
