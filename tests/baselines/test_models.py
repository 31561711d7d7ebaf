"""What every model promises: it learns, equal seeds give equal models, and classes that it never met are never said."""

import os
import pickle
import random
import sys
from collections.abc import Iterator
from typing import get_type_hints

import numpy as np
import pytest
import toys

from pipeline.baselines.model import Examples, Model, Task
from pipeline.baselines.models import MODELS
from pipeline.baselines.predict import predict
from pipeline.baselines.stored import load_model, model_row
from pipeline.errors import BaselineError, ImagelakeError, MissingExtraError
from pipeline.pixels import normalise
from pipeline.recipe import BaselinePart
from pipeline.recipe.baselines import PARTS

TORCH = ("dense", "lenet")
BINARY = [name for name, part in PARTS.items() if part.binary]
# By chance alone: logistic regression and "never" draw nothing, and SVC draws only the values of c.
DRAWN = ("softmax-sgd", "sgd-binary", *TORCH)
LEARN = sorted(set(MODELS) - {"never"})


def fit(spec: BaselinePart, task: Task) -> Model:
    if spec.model in TORCH:
        pytest.importorskip("torch")
    return MODELS[spec.model](spec, task)


def fitted(name: str, task: Task, seed: int = 0) -> Model:
    return fit(toys.spec(name, seed=seed), task)


def toy(name: str, shape: tuple[int, int, int] = toys.SHAPE) -> Task:
    return toys.task(classes=2 if name in BINARY else 3, shape=shape)


def test_the_registry_and_the_recipe_have_the_same_models() -> None:
    assert list(MODELS) == list(PARTS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_takes_its_own_part_of_the_recipe(name: str) -> None:
    first = next(iter(get_type_hints(MODELS[name]).values()))
    assert first is PARTS[name]


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize("shape", [toys.SHAPE, (12, 15, 3)], ids=["gray", "RGB"])
@pytest.mark.parametrize("name", LEARN)
def test_every_model_learns_what_can_be_told_apart(name: str, shape: tuple[int, int, int]) -> None:
    task = toy(name, shape)
    model = fitted(name, task)
    unseen = toys.examples(60, task.classes, seed=9, shape=shape)
    for role in (task.train, unseen):
        assert predict(model, role).correct.all()


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_what_the_model_says_they_are(name: str) -> None:
    task = toy(name)
    model = fitted(name, task)
    scores = model.scores(task.train.pixels)
    assert scores.shape == (90, task.classes)
    if model.probable:
        assert scores.min() >= 0
        assert scores.sum(axis=1) == pytest.approx(np.ones(90), abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_equal_seeds_give_equal_models(name: str) -> None:
    task = toy(name)
    first, second = (fitted(name, task, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.scores(task.train.pixels), second.scores(task.train.pixels))
    assert (first.epochs, first.chosen) == (second.epochs, second.chosen)


@pytest.mark.parametrize("name", DRAWN)
def test_other_seeds_give_other_models(name: str) -> None:
    task = toy(name)
    first, second = (fitted(name, task, seed=seed).scores(task.train.pixels) for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(BINARY)))
def test_a_class_that_was_not_met_is_never_said(name: str) -> None:
    """Of five classes, 1 and 3 have no training image; nor has 4, the last."""
    known = toys.examples(60, 2)
    task = Task(Examples(known.pixels, known.labels * 2), None, 5, toys.SHAPE)
    model = fitted(name, task)
    scores = model.scores(task.train.pixels)
    assert scores.shape == (60, 5)
    assert predict(model, task.train).correct.all()
    noise = np.random.default_rng(0).integers(0, 256, (200, 144), dtype=np.uint8)
    assert set(model.scores(noise).argmax(axis=1)) <= {0, 2}
    if model.probable:
        assert (scores[:, [1, 3, 4]] == 0).all()


@pytest.mark.parametrize("name", LEARN)
def test_one_image_of_a_class_will_do(name: str) -> None:
    task = toy(name)
    rows = np.flatnonzero(task.train.labels != 1)
    small = task._replace(train=task.train.take(np.append(rows[:8], np.argmax(task.train.labels == 1))))
    asked = (
        toys.spec(name, c=1.0) if name == "svm-linear" else toys.spec(name)
    )  # two classes of two images: a test of its own
    assert fit(asked, small).scores(task.train.pixels).shape == (90, task.classes)


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_a_stored_model_predicts_what_the_fitted_one_predicts(name: str, classes: int) -> None:
    task = toy(name) if name in BINARY else toys.task(classes=classes)
    part = toys.spec(name)
    model = fit(part, task._replace(classes=task.classes))
    row = model_row(part, model, [f"class {number}" for number in range(task.classes)], task.shape)
    assert row == model_row(part, fit(part, task), row["classes"], task.shape)
    loaded = load_model({**row, "model": name, "split_name": "toy"})
    noise = np.random.default_rng(0).integers(0, 256, (200, 144), dtype=np.uint8)
    for pixels in (task.train.pixels, noise):
        np.testing.assert_array_equal(loaded.model.scores(pixels), model.scores(pixels))
    assert (loaded.shape, loaded.model.probable) == (task.shape, model.probable)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_predicts_as_scikit_learn(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import

    task = toys.task(classes=classes)
    known = LogisticRegression(C=1.0, max_iter=100, random_state=0).fit(normalise(task.train.pixels), task.train.labels)
    noise = np.random.default_rng(0).integers(0, 256, (200, 144), dtype=np.uint8)
    found = fitted("logistic", task).scores(noise)
    np.testing.assert_allclose(found, known.predict_proba(normalise(noise)), rtol=1e-5, atol=1e-7)


def states() -> Iterator[object]:
    """Global random states, of the standard library, numpy and, where it is there, torch."""
    yield random.getstate()
    yield pickle.dumps(np.random.get_state())  # noqa: NPY002 - the global state is what is asked about
    if "torch" in sys.modules:
        import torch  # noqa: PLC0415 - optional

        yield torch.get_rng_state().tolist()
        yield torch.get_num_threads()
        yield torch.are_deterministic_algorithms_enabled()
        yield torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize("name", MODELS)
def test_no_global_state_is_touched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    task = toy(name)
    fitted(name, task)  # importing scikit-learn draws from `random`
    before = list(states())
    fitted(name, task).scores(task.train.pixels)
    assert list(states()) == before
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.parametrize("name", TORCH)
def test_without_torch_the_error_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="pip install torch") as caught:
        MODELS[name](toys.spec(name), toy(name))
    assert isinstance(caught.value, ImagelakeError)
    assert isinstance(caught.value, ImportError)
    assert f"baseline '{name}' on split 'toy'" in str(caught.value)


@pytest.mark.parametrize(("padding", "least"), [(0, 16), (2, 12), (4, 8)])
def test_lenet_tells_how_large_pictures_must_be(padding: int, least: int) -> None:
    for height, width in ((least - 1, 28), (28, least - 1)):
        task = blank(height, width)
        with pytest.raises(BaselineError, match=f"at least {least} x {least}; these are {height} x {width}"):
            MODELS["lenet"](toys.spec("lenet", padding=padding), task)


@pytest.mark.parametrize(("padding", "least"), [(0, 16), (1, 14), (2, 12), (3, 10), (4, 8)])
def test_lenet_takes_the_least_size(padding: int, least: int) -> None:
    task, part = blank(least, least + 1), toys.spec("lenet", padding=padding, epochs=1)
    model = fit(part, task)
    scores = model.scores(task.train.pixels)
    assert scores.shape == (4, 2)
    row = model_row(part, model, ["a", "b"], task.shape)
    loaded = load_model({**row, "model": "lenet", "split_name": "toy"})
    np.testing.assert_array_equal(loaded.model.scores(task.train.pixels), scores)


def test_lenet_without_padding_has_the_layers_of_the_notebooks() -> None:
    """Of 28 x 28: 24, 12, 8, 4, so 16 x 4 x 4 inputs of the first dense layer; with padding 16 x 5 x 5."""
    for padding, inputs in ((0, 256), (2, 400)):
        weights = fit(toys.spec("lenet", padding=padding, epochs=1), blank(28, 28)).weights
        assert (120, inputs) in [values.shape for values in weights.values()]


def blank(height: int, width: int) -> Task:
    return Task(Examples(np.zeros((4, height * width), np.uint8), np.array([0, 1, 0, 1])), None, 2, (height, width, 1))


def test_never_is_right_about_all_that_is_not_of_the_class() -> None:
    labels = np.array([0, 0, 1, 0])
    pictures = Examples(np.zeros((4, 144), np.uint8), labels)
    predictions = predict(fitted("never", Task(pictures, None, 2, toys.SHAPE)), pictures)
    assert predictions.correct.tolist() == [True, True, False, True]
