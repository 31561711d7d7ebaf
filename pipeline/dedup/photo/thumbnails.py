"""Pictures of any size -> 32 x 32 thumbnails in colour, in whole numbers."""

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.resize import area_weights, two_sided

SIDE = 32
CHANNELS = 3
_CACHED = 2**20

Pixels = NDArray[np.uint8]


def thumbnails(pixels: Pixels) -> Pixels:
    """Resize pictures by area; gray becomes colour with three equal channels.

    Every value is a mean over the area of its cell, rounded half up: exact, so the same in any batch.

    Args:
        pixels: (n, height, width, channels) uint8, 1 or 3 channels.

    Returns:
        (n, 32, 32, 3) uint8.
    """
    height, width, channels = pixels.shape[1:]
    if (height, width, channels) == (SIDE, SIDE, CHANNELS):
        return np.ascontiguousarray(pixels)
    out = np.empty((len(pixels), SIDE, SIDE, CHANNELS), dtype=np.uint8)
    step = max(1, _CACHED // max(1, height * width))
    down, across = area_weights(SIDE, height), area_weights(SIDE, width)
    area = height * width
    for start in range(0, len(pixels), step):
        part = slice(start, start + step)
        for channel in range(CHANNELS):
            sums = two_sided(down, pixels[part, :, :, min(channel, channels - 1)], across)
            out[part, :, :, channel] = (2 * sums + area) // (2 * area)
    return out
