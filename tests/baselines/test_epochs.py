"""Training by epochs: the gradient of softmax regression, what an epoch sees, and when training stops."""

import numpy as np
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from pipeline.baselines.epochs import Learner, Step, fit_by_epochs
from pipeline.baselines.model import Examples, Labels, Pixels, Scores, Task
from pipeline.baselines.models.linear import find_gradient, fit_softmax_sgd, log_softmax
from pipeline.baselines.predict import predict
from pipeline.errors import BaselineError

VALID = Examples(np.arange(10, dtype=np.uint8).reshape(10, 1), np.zeros(10, np.int64))
TRAIN = Examples(np.arange(23, dtype=np.uint8).reshape(23, 1), np.arange(23) % 2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(2, 5))
def test_the_gradient_is_that_of_numerical_differences(seed: int, batch: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(size=(4, classes)), rng.normal(size=classes)
    inputs, labels = rng.normal(size=(batch, 4)), rng.integers(0, classes, batch)
    slope = find_gradient(weights, bias, inputs, labels)

    def loss_at(place: NDArray[np.float64], at: tuple[int, ...], by: float) -> float:
        held, place[at] = place[at], place[at] + by
        loss = find_gradient(weights, bias, inputs, labels).loss
        place[at] = held
        return loss

    for place, found in ((weights, slope.weights), (bias, slope.bias)):
        for at in np.ndindex(place.shape):
            rise = (loss_at(place, at, 1e-6) - loss_at(place, at, -1e-6)) / 2e-6
            assert found[at] == pytest.approx(rise, abs=1e-7)


def test_large_scores_do_not_overflow() -> None:
    found = log_softmax(np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4]], np.float32))
    np.testing.assert_allclose(found, [[0, -1e4, -2e4], [-np.log(3)] * 3], rtol=1e-6)


def learner(met: list[tuple[Pixels, Labels]], goodness: list[float]) -> Learner:
    """Say class 0 of so many tenths of ten valid images, epoch after epoch as it is told."""
    state = {"epochs": 0, "seen": 0}

    def step(pixels: Pixels, labels: Labels) -> Step:
        met.append((pixels, labels))
        state["seen"] += len(labels)
        state["epochs"] = state["seen"] // len(TRAIN.labels)
        return Step(float(len(labels)), len(labels) // 2)

    def scores(pixels: Pixels) -> Scores:
        right = round(10 * goodness[state["epochs"] - 1])
        return np.stack([pixels[:, 0] < right, pixels[:, 0] >= right], axis=1).astype(np.float32)

    def checkpoint() -> object:
        held = state["epochs"]
        return lambda: state.update(epochs=held)

    return Learner(step, scores, checkpoint, dict)  # type: ignore[arg-type] # a lambda that returns None


def test_early_stopping_keeps_the_best_epoch_and_stops() -> None:
    good = [0.3, 0.7, 0.7, 0.5, 0.9, 0.9]
    spec = toys.spec("softmax-sgd", epochs=6, batch_size=10, patience=2)
    model = fit_by_epochs(spec, Task(TRAIN, VALID, 2, (1, 1, 1)), lambda _: learner([], good))
    assert [epoch.valid_accuracy for epoch in model.epochs] == good[:4]
    assert predict(model, VALID).correct.mean() == 0.7


def test_a_better_epoch_starts_the_count_again() -> None:
    good = [0.3, 0.2, 0.4, 0.3, 0.5, 0.4]
    spec = toys.spec("softmax-sgd", epochs=6, batch_size=10, patience=2)
    model = fit_by_epochs(spec, Task(TRAIN, VALID, 2, (1, 1, 1)), lambda _: learner([], good))
    assert len(model.epochs) == 6
    assert predict(model, VALID).correct.mean() == 0.5


def test_without_patience_the_last_epoch_stays() -> None:
    good = [0.9, 0.8, 0.1]
    spec = toys.spec("softmax-sgd", epochs=3, batch_size=10)
    model = fit_by_epochs(spec, Task(TRAIN, VALID, 2, (1, 1, 1)), lambda _: learner([], good))
    assert [epoch.valid_accuracy for epoch in model.epochs] == good
    assert predict(model, VALID).correct.mean() == 0.1


def test_patience_needs_valid_images() -> None:
    spec = toys.spec("softmax-sgd", patience=2)
    with pytest.raises(BaselineError, match="has patience, but there is no valid image for early stopping"):
        fit_softmax_sgd(spec, toys.task()._replace(valid=None))


def test_an_epoch_sees_every_image_once_in_an_order_of_its_own() -> None:
    met: list[tuple[Pixels, Labels]] = []
    spec = toys.spec("softmax-sgd", epochs=3, batch_size=10)
    model = fit_by_epochs(spec, Task(TRAIN, None, 2, (1, 1, 1)), lambda _: learner(met, [0.5] * 3))
    assert [len(labels) for _, labels in met] == [10, 10, 3] * 3
    orders = [np.concatenate([pixels[:, 0] for pixels, _ in met[at : at + 3]]).tolist() for at in (0, 3, 6)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert all((pixels[:, 0] % 2 == labels).all() for pixels, labels in met)
    # A mean over images: what the small last batch says counts for less.
    assert {epoch.loss for epoch in model.epochs} == {(10 * 10 + 10 * 10 + 3 * 3) / 23}
    assert {epoch.accuracy for epoch in model.epochs} == {(5 + 5 + 1) / 23}
    assert {(epoch.valid_loss, epoch.valid_accuracy) for epoch in model.epochs} == {(None, None)}


@pytest.mark.parametrize("name", ["softmax-sgd", "dense"])
def test_an_epoch_is_measured_on_train_while_it_learns_and_on_valid_after_it(name: str) -> None:
    """One batch an epoch: what is measured before it is what the model of the epoch before says of all images."""
    if name != "softmax-sgd":
        pytest.importorskip("torch")
    from pipeline.baselines.models import MODELS  # noqa: PLC0415 - beside what is skipped

    noisy = toys.examples(90)._replace(labels=np.random.default_rng(2).integers(0, 3, 90))
    task = toys.task()._replace(train=noisy)
    assert task.valid is not None
    last = [MODELS[name](toys.spec(name, epochs=count, batch_size=90), task) for count in (1, 2, 3)]
    epochs = last[-1].epochs
    for model, epoch, following in zip(last, epochs, [*epochs[1:], None], strict=True):
        scores = model.scores(task.valid.pixels)
        assert epoch.valid_loss == pytest.approx(log_loss(task.valid.labels, scores), rel=1e-6)
        assert epoch.valid_accuracy == (scores.argmax(axis=1) == task.valid.labels).mean()
        if following:
            scores = model.scores(noisy.pixels)
            assert following.loss == pytest.approx(log_loss(noisy.labels, scores), rel=1e-5)
            assert following.accuracy == pytest.approx((scores.argmax(axis=1) == noisy.labels).mean())


@pytest.mark.parametrize("name", ["softmax-sgd", "dense", "lenet"])
def test_models_return_to_their_best_epoch(name: str) -> None:
    """Valid labels at random: the accuracy goes up and down, and the model must be that of the first highest."""
    if name != "softmax-sgd":
        pytest.importorskip("torch")
    from pipeline.baselines.models import MODELS  # noqa: PLC0415 - beside what is skipped

    task = toys.task()
    odd = Examples(toys.examples(200, seed=4).pixels[:, ::-1].copy(), np.random.default_rng(0).integers(0, 3, 200))
    spec = toys.spec(name, epochs=6, batch_size=16, patience=6)
    model = MODELS[name](spec, task._replace(valid=odd))
    found = [epoch.valid_accuracy or 0.0 for epoch in model.epochs]
    assert predict(model, odd).correct.mean() == max(found)
    best = int(np.argmax(found)) + 1
    short = MODELS[name](spec.model_copy(update={"epochs": best, "patience": None}), task._replace(valid=None))
    np.testing.assert_array_equal(model.scores(odd.pixels), short.scores(odd.pixels))
    assert model.epochs[-1].loss < model.epochs[0].loss


def test_a_fit_that_diverges_is_an_error_that_says_so() -> None:
    with pytest.raises(BaselineError, match=r"training diverged in epoch 2 .*Lower learning_rate, which is 1e\+308"):
        fit_softmax_sgd(toys.spec("softmax-sgd", learning_rate=1e308), toys.task())
