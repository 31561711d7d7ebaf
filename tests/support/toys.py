"""Simple tasks that every model can learn: the pictures of a class have the same bright band."""

from typing import Any

import numpy as np

from pipeline.baselines.model import Examples, Task
from pipeline.recipe import parse_baseline

SHAPE = (12, 12, 1)


def examples(count: int, classes: int = 3, *, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Examples:
    """Make separable pictures in shuffled order. Each class has a bright band of rows."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes)
    pixels = rng.integers(0, 60, (count, *shape), dtype=np.uint8)
    height = shape[0] // classes
    for picture, label in zip(pixels, labels, strict=True):
        picture[label * height : (label + 1) * height] += 180
    return Examples(pixels.reshape(count, -1), labels)


def task(count: int = 90, classes: int = 3, *, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Task:
    """Make a task of `count` training pictures and 30 valid ones."""
    valid = examples(30, classes, seed=seed + 1, shape=shape)
    return Task(examples(count, classes, seed=seed, shape=shape), valid, classes, shape)


def spec(model: str, **changes: Any) -> Any:
    """Make the recipe part of a model; networks get a small batch size."""
    asked = {"model": model, "split": "toy", **changes}
    if model in {"dense", "lenet"}:
        asked = {"batch_size": 16, "epochs": 12, **asked}
    if model in {"sgd-binary", "never"}:
        asked = {"positive": "b", **asked}
    return parse_baseline(asked)
