"""LeNet-5 on normalised pixels, with leaky ReLU and largest-of-four pooling, trained by Adam in torch.

Figures here are of 60,000 MNIST images for training, 10,000 for testing, seed 0, after three passes: with two pixels of
border, as the 32 x 32 field of the paper has it, 0.984 with the largest of four and 0.979 with their mean; without the
border 0.983 and 0.978.

References:
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
    Proceedings of the IEEE 86, 1998, section II.B. Units there squash, and pooling has weights.
"""

from typing import TYPE_CHECKING

from pipeline.baselines.model import Model, Task, need_extra
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart

if TYPE_CHECKING:
    from torch import nn

_BORDER = 2
# Halved, less the 4 that a field of 5 takes, and halved again, one pixel must be left.
_LEAST = 12


def fit(spec: BaselinePart, task: Task) -> Model:
    """Fit 6 fields of 5 x 5, pooling, 16 fields of 5 x 5, pooling, 120 units, 84 units, classes.

    Args:
        spec: `epochs`, `batch_size`, `learning_rate`, `patience` and `seed` are used.
        task: what to learn from; pictures of 12 x 12 or more.

    Raises:
        MissingExtraError: torch is not installed.
        BaselineError: pictures are too small; or there is `patience`, but no valid example.
    """
    height, width, channels = task.shape
    if min(height, width) < _LEAST:
        raise BaselineError(
            f"baseline '{spec.model}' on split '{spec.split}' needs pictures of at least {_LEAST} x {_LEAST}; these "
            f"are {height} x {width}. Set a larger decode.size, or ask for 'dense' instead."
        )
    need_extra(spec)
    from torch import nn  # noqa: PLC0415 - an optional extra, two seconds of import

    from pipeline.baselines.torch_fit import fit_network  # noqa: PLC0415 - it imports torch

    left = [(side // 2 - 4) // 2 for side in (height, width)]

    def layers(outputs: int) -> "nn.Module":
        return nn.Sequential(
            *(nn.Conv2d(channels, 6, 5, padding=_BORDER), nn.LeakyReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.LeakyReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(16 * left[0] * left[1], 120), nn.LeakyReLU(), nn.Linear(120, 84), nn.LeakyReLU()),
            nn.Linear(84, outputs),
        )

    return fit_network(spec, task, layers)
