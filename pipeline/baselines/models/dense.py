"""A network of one hidden layer on normalised pixels, trained by Adam in torch.

It stands for the fully connected network of the digit recognizer notebooks.
"""

from math import prod
from typing import TYPE_CHECKING, cast

from pipeline.baselines.model import Model, Task, need_extra
from pipeline.recipe import BaselinePart

if TYPE_CHECKING:
    from torch import nn


def fit(spec: BaselinePart, task: Task) -> Model:
    """Fit pixels, `hidden` units with leaky ReLU, classes.

    Args:
        spec: `hidden`, `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: what to learn from.

    Raises:
        MissingExtraError: torch is not installed.
        BaselineError: there is `patience`, but no valid example.
    """
    need_extra(spec)
    from torch import nn  # noqa: PLC0415 - an optional extra, two seconds of import

    from pipeline.baselines.torch_fit import fit_network  # noqa: PLC0415 - it imports torch

    inputs, hidden = prod(task.shape), cast("int", spec.hidden)

    def layers(outputs: int) -> "nn.Module":
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.LeakyReLU(), nn.Linear(hidden, outputs))

    return fit_network(spec, task, layers)
