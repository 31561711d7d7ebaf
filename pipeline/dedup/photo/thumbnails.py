"""Make 32 x 32 colour thumbnails, and sample gray thumbnails between their pixels: shifted, stretched or smoothed."""

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.perceptual_hash import area_weights, two_sided

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIDE = 32
CHANNELS = 3
CENTRE = np.float32((SIDE - 1) / 2)
# Coordinates of the pixels relative to the centre, along one axis.
FROM_CENTRE: Floats = np.arange(SIDE, dtype=np.float32) - CENTRE

# Pixels of one channel in one block of images, for the cache.
_BLOCK_PIXELS = 2**20


def thumbnails(pixels: Pixels) -> Pixels:
    """Resize images by area. Gray images get three equal channels.

    Every value is the mean over the area of its cell, rounded half up. It is exact, so it is the same in any batch.

    Args:
        pixels: (n, height, width, channels) uint8, 1 or 3 channels.

    Returns:
        (n, 32, 32, 3) uint8.
    """
    height, width, channels = pixels.shape[1:]
    if (height, width, channels) == (SIDE, SIDE, CHANNELS):
        return np.ascontiguousarray(pixels)
    out = np.empty((len(pixels), SIDE, SIDE, CHANNELS), dtype=np.uint8)
    step = max(1, _BLOCK_PIXELS // max(1, height * width))
    down, across = area_weights(SIDE, height), area_weights(SIDE, width)
    area = height * width
    for start in range(0, len(pixels), step):
        part = slice(start, start + step)
        for channel in range(CHANNELS):
            sums = two_sided(down, pixels[part, :, :, min(channel, channels - 1)], across)
            out[part, :, :, channel] = (2 * sums + area) // (2 * area)
    return out


def warp(images: Floats, shifts: Floats) -> Floats:
    """Shift and stretch gray images.

    Args:
        images: (p, 32, 32) float32.
        shifts: (p, 4) float32: the shift across and down in pixels, then the logarithm of the stretch across and down.

    Returns:
        (p, 32, 32) float32: for every pixel the image's value at centre + stretch * (pixel - centre) + shift.
    """
    across, down = (interpolation(source_coordinates(shifts, axis, FROM_CENTRE)) for axis in (0, 1))
    warped: Floats = np.matmul(np.matmul(down, images), across.swapaxes(1, 2))
    return warped


def source_coordinates(shifts: Floats, axis: int, from_centre: Floats) -> Floats:
    """Compute which coordinates of the original a warped image shows, along axis 0 (across) or 1 (down).

    Args:
        shifts: (p, 4) float32, see `warp`.
        axis: 0 or 1.
        from_centre: (m,) float32, coordinates of the warped image relative to the centre.

    Returns:
        (p, m) float32, in pixels.
    """
    coordinates: Floats = CENTRE + np.exp(shifts[:, 2 + axis, None]) * from_centre + shifts[:, axis, None]
    return coordinates


def inverse(shifts: Floats) -> Floats:
    """Compute the shifts that undo shifts: (p, 4) to (p, 4)."""
    return np.concatenate([-shifts[:, :2] * np.exp(-shifts[:, 2:]), -shifts[:, 2:]], axis=1)


def interpolation(coordinates: Floats, *, derivative: bool = False) -> Floats:
    """Make matrices that interpolate along one axis with Catmull-Rom cubics. Outside, the edge value is repeated.

    Args:
        coordinates: (p, m) float32, in pixels, 0 to 31.
        derivative: whether to compute the derivative by the coordinate instead of the value.

    Returns:
        (p, m, 32) float32: multiplied with a row of 32 values, it gives m values.

    References:
        Catmull, Rom, "A class of local interpolating splines", 1974.
    """
    first = np.floor(coordinates).astype(np.int32)
    t = (coordinates - first).astype(np.float32)
    if derivative:
        weights = [(-1.5 * t + 2) * t - 0.5, (4.5 * t - 5) * t, (-4.5 * t + 4) * t + 0.5, (1.5 * t - 1) * t]
    else:
        weights = [
            ((-0.5 * t + 1) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((-1.5 * t + 2) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    images, count = coordinates.shape
    out = np.zeros(images * count * SIDE, dtype=np.float32)
    row = np.arange(images * count).reshape(images, count) * SIDE
    for tap, weight in enumerate(weights):
        # One tap at a time, because `+=` adds once for a position that occurs twice.
        out[row + np.clip(first + tap - 1, 0, SIDE - 1)] += weight
    return out.reshape(images, count, SIDE)


def smoothing(deviation: float) -> Floats:
    """Make the (32, 32) matrix of a Gaussian filter along one axis. Outside, the edge value is repeated."""
    margin = SIDE // 2
    sources = np.arange(-margin, SIDE + margin)
    weights = np.exp(-0.5 * ((np.arange(SIDE)[:, None] - sources) / deviation) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    out = np.zeros((SIDE, SIDE))
    np.add.at(out.T, np.clip(sources, 0, SIDE - 1), weights.T)
    return out.astype(np.float32)


def filter_both_axes(matrix: Floats, images: Floats) -> Floats:
    """Apply a filter matrix along rows and columns: (p, 32, 32) to (p, m, m)."""
    out: Floats = np.matmul(np.matmul(matrix, images), matrix.T)
    return out
