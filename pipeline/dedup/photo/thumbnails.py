"""Pictures of any size -> 32 x 32 thumbnails in colour, in whole numbers.

Look at thumbnails between their pixels: shifted and stretched along both axes.
"""

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


Floats = NDArray[np.float32]

CENTRE = np.float32((SIDE - 1) / 2)
# Coordinates of pixels from the centre, along one axis.
FROM_CENTRE: Floats = np.arange(SIDE, dtype=np.float32) - CENTRE


def taps(at: Floats, *, slope: bool = False) -> Floats:
    """Make matrices that interpolate along one axis, by Catmull and Rom's cubic; what is outside is as the edge.

    Args:
        at: (p, m) float32, coordinates in pixels, 0 to 31.
        slope: whether to give the derivative by the coordinate instead.

    Returns:
        (p, m, 32) float32: times a row of 32 values, m values.

    References:
        Catmull, Rom, "A class of local interpolating splines", 1974.
    """
    first = np.floor(at).astype(np.int32)
    t = (at - first).astype(np.float32)
    if slope:
        weights = [(-1.5 * t + 2) * t - 0.5, (4.5 * t - 5) * t, (-4.5 * t + 4) * t + 0.5, (1.5 * t - 1) * t]
    else:
        weights = [
            ((-0.5 * t + 1) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((-1.5 * t + 2) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    pictures, count = at.shape
    out = np.zeros(pictures * count * SIDE, dtype=np.float32)
    row = np.arange(pictures * count).reshape(pictures, count) * SIDE
    for tap, weight in enumerate(weights):
        # One tap at a time: no place twice.
        out[row + np.clip(first + tap - 1, 0, SIDE - 1)] += weight
    return out.reshape(pictures, count, SIDE)


def warped(pictures: Floats, shifts: Floats) -> Floats:
    """Look at gray pictures through shifts and stretches.

    Args:
        pictures: (p, 32, 32) float32.
        shifts: (p, 4) float32: across and down in pixels, then the logarithms of the stretch across and down.

    Returns:
        (p, 32, 32) float32: at every pixel the picture's value at centre + stretch * (pixel - centre) + shift.
    """
    across, down = (taps(coordinates(shifts, axis, FROM_CENTRE)) for axis in (0, 1))
    seen: Floats = np.matmul(np.matmul(down, pictures), across.swapaxes(1, 2))
    return seen


def coordinates(shifts: Floats, axis: int, at: Floats) -> Floats:
    """Tell where pixels at some distances from the centre look: (p, m) along axis 0 (across) or 1 (down)."""
    where: Floats = CENTRE + np.exp(shifts[:, 2 + axis, None]) * at + shifts[:, axis, None]
    return where


def opposite(shifts: Floats) -> Floats:
    """Give the shifts that undo shifts."""
    return np.concatenate([-shifts[:, :2] * np.exp(-shifts[:, 2:]), -shifts[:, 2:]], axis=1)


def smoothing(deviation: float) -> Floats:
    """Make the (32, 32) matrix that smooths along one axis by a Gaussian; what is outside is as the edge."""
    margin = SIDE // 2
    places = np.arange(-margin, SIDE + margin)
    weights = np.exp(-0.5 * ((np.arange(SIDE)[:, None] - places) / deviation) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    out = np.zeros((SIDE, SIDE))
    np.add.at(out.T, np.clip(places, 0, SIDE - 1), weights.T)
    return out.astype(np.float32)


def both_ways(matrix: Floats, pictures: Floats) -> Floats:
    """Apply a matrix along rows and columns: (p, 32, 32) to (p, m, m)."""
    out: Floats = np.matmul(np.matmul(matrix, pictures), matrix.T)
    return out
