"""Networks on normalised pixels, trained with Adam in torch.

`dense` is the fully connected network of the digit recognizer notebooks: one hidden layer. `lenet` is LeNet-5 with
leaky ReLU and max pooling. Measured on 60,000 MNIST images for training and 10,000 for testing, seed 0, after three
epochs: with a padding of two pixels, as the 32 x 32 input of the paper has it, accuracy is 0.984 with max pooling and
0.979 with mean pooling; without padding 0.983 and 0.978.

References:
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
    Proceedings of the IEEE 86, 1998, section II.B. Its units are sigmoid, and its pooling has weights.
"""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

from pipeline.baselines.model import Model, StoredModel, Task, need_extra
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
    from pipeline.baselines.torch_fit import fit_network  # noqa: PLC0415 - it imports torch

    return fit_network(part, task, _dense_network(part, task.shape))


def load_dense(stored: StoredModel) -> Model:
    """Make a fitted network again.

    Raises:
        MissingExtraError: torch is not installed.
    """
    return _load(stored, _dense_network)


def _dense_network(part: DensePart, shape: tuple[int, int, int]) -> Callable[[int], "nn.Module"]:
    from torch import nn  # noqa: PLC0415 - an optional extra, two seconds of import

    inputs = prod(shape)

    def make_network(outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, part.hidden), nn.LeakyReLU(), nn.Linear(part.hidden, outputs)
        )

    return make_network


def _load(
    stored: StoredModel, network_for: Callable[[Any, tuple[int, int, int]], Callable[[int], "nn.Module"]]
) -> Model:
    need_extra(stored.part)
    from pipeline.baselines.torch_fit import load_network  # noqa: PLC0415 - it imports torch

    return load_network(stored, network_for(stored.part, stored.shape))


# Two convolutions of 5 and two poolings must leave one pixel: ((16 - 4) / 2 - 4) / 2. Padding counts twice.
_MIN_SIDE = 16


def fit_lenet(part: LenetPart, task: Task) -> Model:
    """Fit 6 convolutions of 5 x 5, pooling, 16 convolutions of 5 x 5, pooling, 120 units, 84 units, classes.

    Args:
        part: `padding`, `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: the training data; images of 12 x 12 or more with the default padding of 2.

    Raises:
        MissingExtraError: torch is not installed.
        BaselineError: the images are too small; there is `patience`, but no valid example; or training diverged.
    """
    height, width, _ = task.shape
    least = _MIN_SIDE - 2 * part.padding
    if min(height, width) < least:
        raise BaselineError(
            f"baseline '{part.model}' on split '{part.split}' with padding = {part.padding} needs images of at least "
            f"{least} x {least}; these are {height} x {width}. Set a larger decode.size or padding, or use the model "
            "'dense'."
        )
    need_extra(part)
    from pipeline.baselines.torch_fit import fit_network  # noqa: PLC0415 - it imports torch

    return fit_network(part, task, _lenet_network(part, task.shape))


def load_lenet(stored: StoredModel) -> Model:
    """Make a fitted network again.

    Raises:
        MissingExtraError: torch is not installed.
    """
    return _load(stored, _lenet_network)


def _lenet_network(part: LenetPart, shape: tuple[int, int, int]) -> Callable[[int], "nn.Module"]:
    from torch import nn  # noqa: PLC0415 - an optional extra, two seconds of import

    height, width, channels = shape
    pooled = [((side + 2 * part.padding - 4) // 2 - 4) // 2 for side in (height, width)]

    def make_network(outputs: int) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(channels, 6, 5, padding=part.padding), nn.LeakyReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.LeakyReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(16 * pooled[0] * pooled[1], 120), nn.LeakyReLU(), nn.Linear(120, 84), nn.LeakyReLU()),
            nn.Linear(84, outputs),
        )

    return make_network
