"""The linear support vector machine: votes as scikit-learn counts them, and how c is searched."""

import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold
from sklearn.svm import SVC

from pipeline.baselines.model import Examples, Task
from pipeline.baselines.models.linear import fit_svm_linear, planes_of, votes
from pipeline.baselines.stored import load_model, model_row
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


@settings(max_examples=60)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.sampled_from([2**-3, 1.0]), st.booleans())
def test_ties_are_broken_as_scikit_learn_does(classes: int, seed: int, c: float, break_ties: bool) -> None:  # noqa: FBT001
    """Few planes in two dimensions: images between all of them have a vote for each of three classes or more."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 20)])
    model = SVC(kernel="linear", C=c, break_ties=break_ties).fit(rng.integers(-2, 3, size=(len(labels), 2)), labels)
    asked = rng.normal(size=(300, 2)).astype(np.float32)
    found = votes(planes_of(model), asked, break_ties=break_ties)
    np.testing.assert_array_equal(model.classes_[found.argmax(axis=1)], model.predict(asked))


def test_the_first_of_three_classes_with_a_vote_each_wins_only_without_breaking_ties() -> None:
    """A point between three planes that go around in a circle."""
    found = dict.fromkeys((True, False), 0)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        inputs, labels = rng.normal(size=(30, 2)), rng.permutation(np.arange(30) % 3)
        asked = rng.normal(scale=0.3, size=(200, 2)).astype(np.float32)
        planes = planes_of(SVC(kernel="linear", C=0.1).fit(inputs, labels))
        plain = votes(planes, asked, break_ties=False)
        tied = (plain == 1).all(axis=1)
        for ties in found:
            found[ties] += int((votes(planes, asked[tied], break_ties=ties).argmax(axis=1) != 0).sum())
    assert found[False] == 0
    assert found[True] > 0


@pytest.mark.parametrize("break_ties", [True, False])
def test_a_margin_of_zero_is_a_vote_as_in_libsvm(break_ties: bool) -> None:  # noqa: FBT001
    """Halfway between the images of two classes the margin is exactly zero."""
    for labels in ([0, 1], [0, 1, 2]):
        inputs = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 4.0]])[: len(labels)]
        model = SVC(kernel="linear", C=1.0, break_ties=break_ties).fit(inputs, labels)
        asked = np.array([[0, 0], [0, -1], [0.25, 0]], np.float32)
        planes = planes_of(model)
        assert ((asked @ planes.weights + planes.bias)[:2, 0] == 0).all()
        found = votes(planes, asked, break_ties=break_ties)
        np.testing.assert_array_equal(found.argmax(axis=1), model.predict(asked))


@pytest.mark.parametrize("break_ties", [True, False])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_fit_says_what_scikit_learn_says(classes: int, break_ties: bool) -> None:  # noqa: FBT001
    rng = np.random.default_rng(3)
    train = Examples(rng.integers(0, 256, (120, 25), dtype=np.uint8), rng.integers(0, classes, 120))
    asked = rng.integers(0, 256, (500, 25), dtype=np.uint8)
    part = toys.spec("svm-linear", c=0.1, break_ties=break_ties)
    model = fit_svm_linear(part, Task(train, None, classes, (5, 5, 1)))
    theirs = SVC(kernel="linear", C=0.1, break_ties=break_ties).fit(normalise(train.pixels), train.labels)
    np.testing.assert_array_equal(model.scores(asked).argmax(axis=1), theirs.predict(normalise(asked)))
    assert model.chosen == {}
    loaded = load_model(
        {
            **model_row(part, model, [str(number) for number in range(classes)], (5, 5, 1)),
            "model": "svm-linear",
            "split_name": "main",
        }
    )
    np.testing.assert_array_equal(loaded.model.scores(asked), model.scores(asked))


def test_c_is_searched_where_it_is_not_given() -> None:
    task = toys.task()
    model = fit_svm_linear(toys.spec("svm-linear", candidates=4, search_size=40), task)
    assert 2**-7 <= model.chosen["c"] <= 2**6
    assert model.chosen["c_accuracy"] == 1
    other = fit_svm_linear(toys.spec("svm-linear", candidates=4, search_size=40, seed=1), task)
    assert other.chosen["c"] != model.chosen["c"]
    again = fit_svm_linear(toys.spec("svm-linear", c=model.chosen["c"]), task)
    np.testing.assert_array_equal(again.scores(task.train.pixels), model.scores(task.train.pixels))


def test_the_search_draws_listed_values_as_scikit_learn_does() -> None:
    """The values of the notebooks: powers of two from 2^-7 to 2^6, of which ten are drawn, none twice."""
    task = toys.task()
    noisy = task._replace(train=task.train._replace(labels=np.random.default_rng(1).integers(0, 3, 90)))
    powers = [2.0**power for power in range(-7, 7)]
    part = toys.spec("svm-linear", candidates=10, c_values=powers, search_size="all", break_ties=False, seed=3)
    theirs = RandomizedSearchCV(
        SVC(kernel="linear"), {"C": powers}, n_iter=10, cv=StratifiedKFold(5), random_state=3, refit=False
    ).fit(normalise(noisy.train.pixels), noisy.train.labels)
    found = fit_svm_linear(part, noisy).chosen
    assert found["c_accuracy"] == pytest.approx(theirs.best_score_)
    best = [
        c
        for c, score in zip(theirs.cv_results_["param_C"], theirs.cv_results_["mean_test_score"], strict=True)
        if score == theirs.best_score_
    ]
    assert found["c"] == min(best)


def test_more_candidates_than_values_try_each_value_once() -> None:
    chosen = fit_svm_linear(toys.spec("svm-linear", c_values=[8, 0.5, 2, 2], search_size=60), toys.task()).chosen
    assert chosen == {"c": 0.5, "c_accuracy": 1}


def test_the_search_stays_in_its_range() -> None:
    for seed in range(3):
        part = toys.spec("svm-linear", c_range=[3, 4], candidates=3, search_size=60, seed=seed)
        assert 3 <= fit_svm_linear(part, toys.task()).chosen["c"] <= 4


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
