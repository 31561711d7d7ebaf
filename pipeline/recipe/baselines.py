"""The models there are, and what the recipe may set of each. `pipeline.baselines.models` says what they do."""

from typing import Any, Literal

ModelName = Literal["logistic", "softmax-sgd", "sgd-binary", "never", "svm-linear", "dense", "lenet"]

# By model, its settings and what they are unless the recipe says otherwise; None: decided by the model.
SETTINGS: dict[str, dict[str, Any]] = {
    "logistic": {"c": 1.0, "max_iter": 100},
    "softmax-sgd": {"epochs": 20, "batch_size": 128, "learning_rate": 0.1, "patience": None},
    "sgd-binary": {"alpha": 0.0001, "max_iter": 1000},
    "never": {},
    "svm-linear": {"c": None, "candidates": 20, "search_size": 2_000},
    "dense": {"epochs": 30, "batch_size": 512, "learning_rate": 0.001, "patience": None, "hidden": 400},
    "lenet": {"epochs": 8, "batch_size": 128, "learning_rate": 0.001, "patience": None},
}

# These tell one class from the rest, and so need to be told which.
BINARY = ("sgd-binary", "never")

_SEARCH = ("candidates", "search_size")

_ALL = sorted({name for settings in SETTINGS.values() for name in settings})


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in what the recipe leaves to the model.

    Args:
        values: a `[[baseline]]` as it was written.

    Raises:
        ValueError: it sets what the model does not have, or what another setting leaves without use.
    """
    model = values.get("model")
    if not isinstance(model, str) or model not in SETTINGS:
        return values  # a fault that is said elsewhere
    taken = SETTINGS[model]
    foreign = [name for name in _ALL if name not in taken and values.get(name) is not None]
    if foreign:
        listed = ", ".join(taken) or "none"
        raise ValueError(f"'{model}' has no setting {', '.join(map(repr, foreign))}; its settings: {listed}")
    searched = [name for name in _SEARCH if values.get(name) is not None]
    if searched and values.get("c") is not None:
        raise ValueError(f"c is given, so it is not searched: take {' and '.join(searched)} out, or c")
    if model == "svm-linear" and values.get("c") is not None:
        taken = {**taken, **dict.fromkeys(_SEARCH)}
    given = {name: value for name, value in values.items() if name not in taken or value is not None}
    return {**taken, **given}
