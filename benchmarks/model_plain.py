"""The models as a notebook writes them: arrays out of a pickle, scaled, and the library called directly.

Run by `models.py` in its own process: `model_plain.py MODEL FOLDER` prints seconds and accuracy as JSON. The
imports of the model are not timed.
"""

import json
import pickle
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from model_choice import IMPORTS, POSITIVE, STRENGTH
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]
# From pixels, labels and other pixels to the predicted labels of the others.
Answers = Callable[[Pixels, Labels, Pixels], Labels]


def logistic(pixels: Pixels, labels: Labels, asked: Pixels) -> Labels:
    """Fit at C = 1 and 100 iterations."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - only the model that is asked for

    said: Labels = LogisticRegression(C=1.0, max_iter=100, random_state=0).fit(pixels, labels).predict(asked)
    return said


def softmax_sgd(pixels: Pixels, labels: Labels, asked: Pixels) -> Labels:
    """Fit 20 epochs of batches of 128 at a rate of 0.1."""
    chance, weights, bias = np.random.default_rng(0), np.zeros((pixels.shape[1], 10), np.float32), np.zeros(10)
    one_hot = np.eye(10, dtype=np.float32)[labels]
    for _ in range(20):
        order = chance.permutation(len(labels))
        for start in range(0, len(labels), 128):
            batch = order[start : start + 128]
            scores = pixels[batch] @ weights + bias
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            error = (shares / shares.sum(axis=1, keepdims=True) - one_hot[batch]) / len(batch)
            weights -= (0.1 * pixels[batch].T @ error).astype(np.float32)
            bias -= 0.1 * error.sum(axis=0)
    said: Labels = (asked @ weights + bias).argmax(axis=1)
    return said


def sgd_binary(pixels: Pixels, labels: Labels, asked: Pixels) -> Labels:
    """Fit one class against the rest on raw pixels."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - only the model that is asked for

    said: Labels = SGDClassifier(random_state=0).fit(pixels, labels == POSITIVE).predict(asked)
    return said


def never(_pixels: Pixels, _labels: Labels, asked: Pixels) -> Labels:
    """Predict that no image is of the class."""
    return np.zeros(len(asked), np.int64)


def svm_linear(pixels: Pixels, labels: Labels, asked: Pixels) -> Labels:
    """Fit at a given C, and predict with libsvm."""
    from sklearn.svm import SVC  # noqa: PLC0415 - only the model that is asked for

    said: Labels = SVC(kernel="linear", C=STRENGTH).fit(pixels, labels).predict(asked)
    return said


def dense(pixels: Pixels, labels: Labels, asked: Pixels) -> Labels:
    """Train 400 hidden units."""
    from torch import nn  # noqa: PLC0415 - optional

    layers = nn.Linear(784, 400), nn.LeakyReLU(), nn.Linear(400, 10)
    return _trained(nn.Sequential(*layers), pixels, labels, asked, "dense")


def lenet(pixels: Pixels, labels: Labels, asked: Pixels) -> Labels:
    """Train LeNet-5."""
    from torch import nn  # noqa: PLC0415 - optional

    first = nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 6, 5, padding=2), nn.LeakyReLU(), nn.MaxPool2d(2)
    second = nn.Conv2d(6, 16, 5), nn.LeakyReLU(), nn.MaxPool2d(2), nn.Flatten()
    last = nn.Linear(400, 120), nn.LeakyReLU(), nn.Linear(120, 84), nn.LeakyReLU(), nn.Linear(84, 10)
    return _trained(nn.Sequential(*first, *second, *last), pixels, labels, asked, "lenet")


def _trained(network: Any, pixels: Pixels, labels: Labels, asked: Pixels, name: str) -> Labels:
    """Train by Adam at a rate of 0.001, with imagelake's epochs and batch size."""
    import torch  # noqa: PLC0415 - optional

    from pipeline.recipe.baselines import PARTS  # noqa: PLC0415 - only what networks need

    epochs, size = (PARTS[name].model_fields[setting].default for setting in ("epochs", "batch_size"))
    adam = torch.optim.Adam(network.parameters(), lr=0.001)
    inputs, answers = torch.from_numpy(pixels), torch.from_numpy(labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(answers)).split(size):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[batch]), answers[batch]).backward()
            adam.step()
    with torch.no_grad():
        parts = [network(part).argmax(dim=1) for part in torch.from_numpy(asked).split(1024)]
        said: Labels = torch.cat(parts).numpy()
    return said


MODELS: dict[str, Answers] = {
    "logistic": logistic,
    "softmax-sgd": softmax_sgd,
    "sgd-binary": sgd_binary,
    "never": never,
    "svm-linear": svm_linear,
    "dense": dense,
    "lenet": lenet,
}


def run(model: str, folder: Path) -> dict[str, float]:
    """Load, scale, fit, score."""
    started = time.perf_counter()
    with (folder / "arrays.pickle").open("rb") as stream:
        (pixels, labels), (asked, answers) = pickle.load(stream)  # noqa: S301 - written a moment ago by the bench
    loaded = time.perf_counter() - started
    if model == "sgd-binary":
        given = [part.reshape(len(part), -1).astype(np.float64) for part in (pixels, asked)]
    else:
        given = [(part.reshape(len(part), -1).astype(np.float32) - 127.5) / 255 for part in (pixels, asked)]
    said = MODELS[model](given[0], labels, given[1])
    right = answers == POSITIVE if model in {"sgd-binary", "never"} else answers
    return {
        "load": loaded,
        "seconds": time.perf_counter() - started,
        "accuracy": float(np.mean(said.astype(np.int64) == right)),
    }


if __name__ == "__main__":
    import_module(IMPORTS[sys.argv[1]])
    warnings.simplefilter("ignore")  # logistic regression stops at its maximum of iterations, as in the notebook
    json.dump(run(sys.argv[1], Path(sys.argv[2])), sys.stdout)
