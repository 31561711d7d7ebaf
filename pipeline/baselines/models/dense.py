"""A network of one hidden layer on normalised pixels, trained with Adam in torch.

It is the fully connected network of the digit recognizer notebooks.
"""

from math import prod
from typing import TYPE_CHECKING

from pipeline.baselines.model import Model, Task, need_extra
from pipeline.recipe.baselines import DensePart

if TYPE_CHECKING:
    from torch import nn


def fit(part: DensePart, task: Task) -> Model:
    """Fit a network of the pixels, `hidden` units with leaky ReLU, and the classes.

    Args:
        part: `hidden`, `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: the training data.

    Raises:
        MissingExtraError: torch is not installed.
        BaselineError: there is `patience`, but no valid example; or training diverged.
    """
    need_extra(part)
    from torch import nn  # noqa: PLC0415 - an optional extra, two seconds of import

    from pipeline.baselines.torch_fit import fit_network  # noqa: PLC0415 - it imports torch

    inputs = prod(task.shape)

    def make_network(outputs: int) -> "nn.Module":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, part.hidden), nn.LeakyReLU(), nn.Linear(part.hidden, outputs)
        )

    return fit_network(part, task, make_network)
