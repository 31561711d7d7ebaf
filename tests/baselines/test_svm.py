"""The linear support vector machine: votes as scikit-learn counts them, and how c is searched."""

import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from pipeline.baselines.model import Examples, Task
from pipeline.baselines.models.linear import fit_svm_linear, planes_of, votes
from pipeline.errors import BaselineError
from pipeline.pixels import normalise


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.sampled_from([2**-7, 1.0, 64.0]))
def test_votes_are_those_of_scikit_learn(classes: int, seed: int, c: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 40)])
    model = SVC(kernel="linear", C=c, break_ties=True).fit(rng.normal(size=(len(labels), 8)), labels)
    asked = rng.normal(size=(300, 8)).astype(np.float32)
    found = votes(planes_of(model), asked)
    np.testing.assert_array_equal(model.classes_[found.argmax(axis=1)], model.predict(asked))
    if classes > 2:
        np.testing.assert_allclose(found, model.decision_function(asked), atol=1e-9)
    else:
        np.testing.assert_allclose(found[:, 1], model.decision_function(asked), atol=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_fit_says_what_scikit_learn_says(classes: int) -> None:
    rng = np.random.default_rng(3)
    train = Examples(rng.integers(0, 256, (120, 25), dtype=np.uint8), rng.integers(0, classes, 120))
    asked = rng.integers(0, 256, (500, 25), dtype=np.uint8)
    model = fit_svm_linear(toys.spec("svm-linear", c=0.1), Task(train, None, classes, (5, 5, 1)))
    theirs = SVC(kernel="linear", C=0.1, break_ties=True).fit(normalise(train.pixels), train.labels)
    np.testing.assert_array_equal(model.scores(asked).argmax(axis=1), theirs.predict(normalise(asked)))
    assert model.chosen == {}


def test_c_is_searched_where_it_is_not_given() -> None:
    task = toys.task()
    model = fit_svm_linear(toys.spec("svm-linear", candidates=4, search_size=40), task)
    assert 2**-7 <= model.chosen["c"] <= 2**6
    assert model.chosen["c_accuracy"] == 1
    other = fit_svm_linear(toys.spec("svm-linear", candidates=4, search_size=40, seed=1), task)
    assert other.chosen["c"] != model.chosen["c"]
    again = fit_svm_linear(toys.spec("svm-linear", c=model.chosen["c"]), task)
    np.testing.assert_array_equal(again.scores(task.train.pixels), model.scores(task.train.pixels))


@pytest.mark.parametrize("size", [40, "all", 10**6])
def test_the_search_may_be_on_all_there_is(size: int | str) -> None:
    model = fit_svm_linear(toys.spec("svm-linear", candidates=2, search_size=size), toys.task())
    assert model.chosen["c_accuracy"] == 1


def test_of_equally_good_c_the_least_is_taken() -> None:
    """A toy that every c learns without fault: 20 candidates are spread, and the least is far below the middle."""
    found = fit_svm_linear(toys.spec("svm-linear", search_size=60), toys.task()).chosen
    assert found["c_accuracy"] == 1
    assert found["c"] < 2**-4


@pytest.mark.parametrize("counts", [(2, 2), (3, 9), (4, 1, 7), (1, 1, 2, 2)])
def test_rare_classes_make_for_fewer_folds(counts: tuple[int, ...]) -> None:
    task = rare(counts)
    model = fit_svm_linear(toys.spec("svm-linear", candidates=2), task)
    assert 0 <= model.chosen["c_accuracy"] <= 1
    assert (model.scores(task.train.pixels) > -np.inf).all()


@pytest.mark.parametrize("counts", [(1, 1), (1, 5), (1, 1, 1)])
def test_c_cannot_be_searched_on_single_images(counts: tuple[int, ...]) -> None:
    with pytest.raises(BaselineError, match="fewer than two classes have two of them. Give c, or"):
        fit_svm_linear(toys.spec("svm-linear"), rare(counts))
    fit_svm_linear(toys.spec("svm-linear", c=1.0), rare(counts))


def rare(counts: tuple[int, ...]) -> Task:
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 16), dtype=np.uint8)
    return Task(Examples(pixels, labels), None, len(counts), (4, 4, 1))
