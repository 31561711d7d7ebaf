"""How pixels become numbers to learn from."""

import numpy as np
from numpy.typing import NDArray

# (p - 127.5) / 255 for every byte value: looking it up is exact and faster than computing it.
_NORMALISED = ((np.arange(256) - 127.5) / 255).astype(np.float32)


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale pixels as the notMNIST notebooks do: (p - 127.5) / 255.

    Args:
        pixels: uint8 of any shape.

    Returns:
        float32 of the same shape, -0.5 to 0.5.
    """
    return _NORMALISED[pixels]
