"""The registry of models: by the name in the recipe, the function that fits it. One module per model.

A fit takes the recipe's part of that model, whose `seed` is that of this fit, and a `Task`; it returns a `Model`. The
same inputs give the same model on one machine.
"""

from collections.abc import Callable
from typing import Any

from pipeline.baselines.model import Model, Task
from pipeline.baselines.models import dense, lenet, logistic, never, sgd_binary, softmax_sgd, svm_linear

# Each model has its own type of part: the one in `pipeline.recipe.baselines.PARTS` under the same name.
Fit = Callable[[Any, Task], Model]

MODELS: dict[str, Fit] = {
    "logistic": logistic.fit,
    "softmax-sgd": softmax_sgd.fit,
    "sgd-binary": sgd_binary.fit,
    "never": never.fit,
    "svm-linear": svm_linear.fit,
    "dense": dense.fit,
    "lenet": lenet.fit,
}
