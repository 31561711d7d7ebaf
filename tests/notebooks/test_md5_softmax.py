"""`notmnist_md5_softmax.toml` against the notebook's own logic: MD5 with sets, then softmax regression by Keras' rule.

The order of the images in every epoch is imagelake's, because Keras draws its own. The rest is plain numpy.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest
from lake_rows import Role, Run, check_misses, check_parts, check_scores, dropped_of, roles_of, run_of
from making import needs_data
from notebook import seen_by_md5
from numpy.typing import NDArray
from plain import Labels, Scaled, scaled
from recipe_files import built, load_for_letters

from pipeline.engines.local import HERE
from pipeline.lake_handle import Lake

pytestmark = [needs_data, pytest.mark.slow]

EPOCHS, BATCH, RATE = 4, 128, 0.01
# Both sides sum float32 products, in another order: they agree to six or seven digits.
ROUNDED = 1e-5


class Trained(NamedTuple):
    weights: NDArray[np.floating]
    bias: NDArray[np.floating]
    # (epochs, 4): loss and accuracy of train, loss and accuracy of valid.
    history: NDArray[np.float64]

    def probabilities(self, inputs: Scaled) -> NDArray[np.floating]:
        powers: NDArray[np.floating] = np.exp(inputs @ self.weights + self.bias)
        powers /= powers.sum(axis=1, keepdims=True)
        return powers


def fit(inputs: Scaled, labels: Labels, valid: Scaled, valid_labels: Labels) -> Trained:
    """Train as Keras' Dense(10, softmax) with categorical cross-entropy and "sgd", from weights of zero."""
    one_hot, history = np.eye(10, dtype=np.float32)[labels], []
    model = Trained(np.zeros((784, 10), np.float32), np.zeros(10, np.float32), np.empty((0, 4)))
    for epoch in range(EPOCHS):
        order, losses, correct = np.random.default_rng([0, epoch]).permutation(len(labels)), 0.0, 0
        for start in range(0, len(labels), BATCH):
            rows = order[start : start + BATCH]
            found = model.probabilities(inputs[rows])
            losses -= np.log((found * one_hot[rows]).sum(axis=1)).sum()
            correct += (found.argmax(axis=1) == labels[rows]).sum()
            error = (found - one_hot[rows]) / np.float32(len(rows))
            weights = model.weights - np.float32(RATE) * (inputs[rows].T @ error)
            model = model._replace(weights=weights, bias=model.bias - np.float32(RATE) * error.sum(axis=0))
        found = model.probabilities(valid)
        valid_loss = -np.log(found[np.arange(len(valid)), valid_labels]).mean()
        valid_accuracy = (found.argmax(axis=1) == valid_labels).mean()
        history.append([losses / len(labels), correct / len(labels), valid_loss, valid_accuracy])
    return model._replace(history=np.array(history))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    values = load_for_letters("notmnist_md5_softmax", train=3_000, valid=300, test=10_000)
    assert (values["baseline"][0]["batch_size"], values["baseline"][0]["learning_rate"]) == (BATCH, RATE)
    values["baseline"][0]["epochs"] = EPOCHS
    return built(values, tmp_path_factory.mktemp("md5"), HERE)


@pytest.fixture(scope="module")
def roles(lake: Lake) -> dict[str, Role]:
    return roles_of(lake)


@pytest.fixture(scope="module")
def run(lake: Lake) -> Run:
    return run_of(lake, "softmax-sgd")


@pytest.fixture(scope="module")
def trained(roles: dict[str, Role]) -> Trained:
    train, valid = roles["train"], roles["valid"]
    return fit(
        scaled(train.pictures[train.kept]),
        train.labels[train.kept],
        scaled(valid.pictures[valid.kept]),
        valid.labels[valid.kept],
    )


def test_train_loses_what_is_in_valid_or_test(lake: Lake, roles: dict[str, Role]) -> None:
    train, valid, test = (roles[name].pictures for name in ("train", "valid", "test"))
    lost = {
        "train": seen_by_md5(train, valid, test),
        "valid": np.zeros(len(valid), np.bool_),
        "test": seen_by_md5(test, valid),
    }
    for name, role in roles.items():
        np.testing.assert_array_equal(role.kept, ~lost[name])
    counts = {(name, "exact", "overlap"): mask.sum() for name, mask in lost.items() if mask.any()}
    assert dropped_of(lake) == counts
    assert counts["train", "exact", "overlap"] > 10


def test_every_epoch_has_the_same_loss_and_accuracy(run: Run, trained: Trained) -> None:
    found = [
        run.column(metric, role=role, eval_on=eval_on)
        for role, eval_on in (("train", "original"), ("valid", "sanitized"))
        for metric in ("epoch_loss", "epoch_accuracy")
    ]
    # Accuracies are whole numbers of images, and so equal unless an image lies within 1e-6 of a border.
    np.testing.assert_allclose(np.transpose(found), trained.history, rtol=ROUNDED)
    assert trained.history[-1, 0] < trained.history[0, 0] - 0.2


def test_the_weights_are_the_same(run: Run, trained: Trained, roles: dict[str, Role]) -> None:
    weights = run.weights(int(roles["train"].kept.sum()))
    np.testing.assert_allclose(weights["weights"], trained.weights, atol=1e-6)
    np.testing.assert_allclose(weights["bias"], trained.bias, atol=1e-6)


def test_the_scores_are_the_same(run: Run, trained: Trained, roles: dict[str, Role]) -> None:
    size = int(roles["train"].kept.sum())
    for name, role in roles.items():
        found = trained.probabilities(scaled(role.pictures))
        if name == "train":
            rows = role.kept
            where: dict[str, Any] = {"role": name, "train_size": size, "eval_on": "original"}
            check_scores(run, role.labels[rows], found[rows].argmax(axis=1), found[rows], **where)
        else:
            check_parts(run, role, found.argmax(axis=1), found, role=name, train_size=size)
    check_misses(run, roles["test"], trained.probabilities(scaled(roles["test"].pictures)).argmax(axis=1))
