"""The registry of models: by the name in the recipe, the function that fits it.

A fit takes the recipe's part of that model, whose `seed` is that of this fit, and a `Task`; it returns a `Model`. The
same inputs give the same model on one machine. A loader makes a `Model` of its weights again: it predicts the same.
"""

from collections.abc import Callable
from typing import Any

from pipeline.baselines.model import Model, StoredModel, Task
from pipeline.baselines.models.linear import (
    fit_logistic,
    fit_never,
    fit_sgd_binary,
    fit_softmax_sgd,
    fit_svm_linear,
    load_logistic,
    load_never,
    load_sgd_binary,
    load_softmax_sgd,
    load_svm_linear,
)
from pipeline.baselines.models.networks import fit_dense, fit_lenet, load_dense, load_lenet

# Each model has its own type of part: the one in `pipeline.recipe.baselines.PARTS` under the same name.
Fit = Callable[[Any, Task], Model]

MODELS: dict[str, Fit] = {
    "logistic": fit_logistic,
    "softmax-sgd": fit_softmax_sgd,
    "sgd-binary": fit_sgd_binary,
    "never": fit_never,
    "svm-linear": fit_svm_linear,
    "dense": fit_dense,
    "lenet": fit_lenet,
}

LOADERS: dict[str, Callable[[StoredModel], Model]] = {
    "logistic": load_logistic,
    "softmax-sgd": load_softmax_sgd,
    "sgd-binary": load_sgd_binary,
    "never": load_never,
    "svm-linear": load_svm_linear,
    "dense": load_dense,
    "lenet": load_lenet,
}
