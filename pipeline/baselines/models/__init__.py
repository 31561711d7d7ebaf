"""The registry: by the name in the recipe, how a model is fitted. One file a model.

A fit takes the recipe's `[[baseline]]`, whose `seed` is that of this fit, and a `Task`; it gives a `Model`. Equal
inputs give equal models on one machine.
"""

from collections.abc import Callable

from pipeline.baselines.model import Model, Task
from pipeline.baselines.models import dense, lenet, logistic, never, sgd_binary, softmax_sgd, svm_linear
from pipeline.recipe import BaselinePart

Fit = Callable[[BaselinePart, Task], Model]

MODELS: dict[str, Fit] = {
    "logistic": logistic.fit,
    "softmax-sgd": softmax_sgd.fit,
    "sgd-binary": sgd_binary.fit,
    "never": never.fit,
    "svm-linear": svm_linear.fit,
    "dense": dense.fit,
    "lenet": lenet.fit,
}
