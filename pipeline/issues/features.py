"""Small features of pictures of any size, by which label suspects and outliers are found: means of areas."""

import numpy as np
from numpy.typing import NDArray

# Areas along each side: of gray pictures, and of pictures in colour, for about as many features.
_GRAY_SIDE, _COLOUR_SIDE = 28, 16
# Pixels that are averaged at a time.
_BATCH = 2**22
# Features are 0 to this. Products of two vectors of features are then below 2**24, so that sums of them are exact in
# float32, in any order and on any number of threads.
LARGEST = 127


def features(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average areas of pictures of one shape. A side with fewer pixels than areas repeats its pixels.

    Args:
        pixels: (n, height, width, channels) uint8.

    Returns:
        (n, m) uint8, 0 to `LARGEST`: m is 784 for gray pictures, 768 for pictures in colour.
    """
    side = _GRAY_SIDE if pixels.shape[3] == 1 else _COLOUR_SIDE
    size = max(1, _BATCH // max(1, pixels[:1].size))
    parts = [_features(pixels[at : at + size], side) for at in range(0, len(pixels), size)]
    return np.concatenate([np.empty((0, side * side * pixels.shape[3]), np.uint8), *parts])


def _features(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    means: NDArray[np.uint8] = pixels
    for axis in (1, 2):
        means = _average(means, axis, side)
    return np.right_shift(means, 1, dtype=np.uint8).reshape(len(pixels), -1)


def _average(values: NDArray[np.uint8], axis: int, side: int) -> NDArray[np.uint8]:
    length = values.shape[axis]
    starts = np.arange(side) * length // side
    if length <= side:
        repeated: NDArray[np.uint8] = values.take(starts, axis=axis)
        return repeated
    counts = np.diff(np.append(starts, length)).astype(np.uint32)
    sums = np.add.reduceat(values, starts, axis=axis, dtype=np.uint32)
    shape = [1] * values.ndim
    shape[axis] = side
    means: NDArray[np.uint8] = (sums // counts.reshape(shape)).astype(np.uint8)
    return means
