"""Networks on normalised pixels, trained with Adam in torch.

`dense` is the fully connected network of the digit recognizer notebooks: one hidden layer. `lenet` is LeNet-5 with
leaky ReLU and max pooling. Measured on 60,000 MNIST images for training and 10,000 for testing, seed 0, after three
epochs: with a border of two pixels, as the 32 x 32 input of the paper has it, accuracy is 0.984 with max pooling and
0.979 with mean pooling; without the border 0.983 and 0.978.

References:
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
    Proceedings of the IEEE 86, 1998, section II.B. Its units are sigmoid, and its pooling has weights.
"""

from math import prod
from typing import TYPE_CHECKING

from pipeline.baselines.model import Model, Task, need_extra
from pipeline.errors import BaselineError
from pipeline.recipe.baselines import DensePart, LenetPart

if TYPE_CHECKING:
    from torch import nn


def fit_dense(part: DensePart, task: Task) -> Model:
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


_BORDER = 2
# Two convolutions of 5 and two poolings must leave one pixel: (12 / 2 - 4) / 2.
_MIN_SIDE = 12


def fit_lenet(part: LenetPart, task: Task) -> Model:
    """Fit 6 convolutions of 5 x 5, pooling, 16 convolutions of 5 x 5, pooling, 120 units, 84 units, classes.

    Args:
        part: `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: the training data; images of 12 x 12 or more.

    Raises:
        MissingExtraError: torch is not installed.
        BaselineError: the images are too small; there is `patience`, but no valid example; or training diverged.
    """
    height, width, channels = task.shape
    if min(height, width) < _MIN_SIDE:
        raise BaselineError(
            f"baseline '{part.model}' on split '{part.split}' needs images of at least {_MIN_SIDE} x {_MIN_SIDE}; "
            f"these are {height} x {width}. Set a larger decode.size, or use the model 'dense'."
        )
    need_extra(part)
    from torch import nn  # noqa: PLC0415 - an optional extra, two seconds of import

    from pipeline.baselines.torch_fit import fit_network  # noqa: PLC0415 - it imports torch

    pooled = [(side // 2 - 4) // 2 for side in (height, width)]

    def make_network(outputs: int) -> "nn.Module":
        return nn.Sequential(
            *(nn.Conv2d(channels, 6, 5, padding=_BORDER), nn.LeakyReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.LeakyReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(16 * pooled[0] * pooled[1], 120), nn.LeakyReLU(), nn.Linear(120, 84), nn.LeakyReLU()),
            nn.Linear(84, outputs),
        )

    return fit_network(part, task, make_network)
