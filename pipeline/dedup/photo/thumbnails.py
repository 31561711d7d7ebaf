"""Make 32 x 32 colour thumbnails, pack them into 898 bytes, and sample gray ones: shifted, stretched or smoothed.

A packed thumbnail has the gray values in 64 levels between its darkest and its brightest, and the colour of every
4 x 4 pixels. What this loses is less than what JPEG loses.
"""

from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.perceptual_hash import area_weights, gray, two_sided

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Value = TypeVar("Value", bound=np.generic)

SIDE = 32
CHANNELS = 3
CENTRE = np.float32((SIDE - 1) / 2)
# Coordinates of the pixels relative to the centre, along one axis.
FROM_CENTRE: Floats = np.arange(SIDE, dtype=np.float32) - CENTRE

# Parts of an orientation, see `turn`.
MIRRORED, UPSIDE_DOWN, TRANSPOSED = 1, 2, 4
ORIENTATIONS = 8

# The largest level of a gray value, and the side of the colours and of their cells in pixels.
_LEVELS = 63
_COLOUR_SIDE, _CELL = 8, SIDE // 8
_LEVEL_BYTES = SIDE * SIDE * 6 // 8

# Weights of bilinear interpolation are products of two shares in this unit.
_SHARE_UNIT = np.int32(64)
_SAMPLE_UNIT = int(_SHARE_UNIT) ** 2

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


class Planes(NamedTuple):
    """Thumbnails as gray values and colour.

    Attributes:
        gray: (n, 32, 32) uint8.
        colour: (n, 2, 8, 8) int16, red minus gray and blue minus gray, as the mean of 4 x 4 pixels.
    """

    gray: Pixels
    colour: NDArray[np.int16]

    def take(self, positions: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Planes":
        """Select some of the thumbnails, in the given order."""
        return Planes(self.gray[positions], self.colour[positions])

    def turn(self, orientation: int) -> "Planes":
        """Bring all thumbnails to another orientation; see `turn`."""
        return Planes(turn(self.gray, orientation), turn(self.colour, orientation))

    def tilt(self, degrees: float) -> "Planes":
        """Turn all thumbnails by a few degrees; see `tilt`."""
        return Planes(tilt(self.gray, degrees), tilt(self.colour, degrees))

    def constant(self) -> NDArray[np.bool_]:
        """Return which thumbnails have one gray value and one colour: (n,)."""
        gray, colour = np.ptp(self.gray, axis=(1, 2)), np.ptp(self.colour, axis=(2, 3)).max(axis=1)
        constant: NDArray[np.bool_] = (gray == 0) & (colour == 0)
        return constant


def pack(images: Pixels) -> Pixels:
    """Pack thumbnails.

    Args:
        images: (n, 32, 32, 3) uint8.

    Returns:
        (n, 898) uint8: the least and the largest gray value, 1024 levels of 6 bits, and 2 x 8 x 8 colours in units of
        2 gray values.
    """
    count = len(images)
    light = gray(images)
    flat = light.reshape(count, SIDE * SIDE).astype(np.int32)
    least, largest = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    span = np.maximum(largest - least, 1)
    levels = ((2 * _LEVELS * (flat - least) + span) // (2 * span)).astype(np.uint8).reshape(count, SIDE * SIDE // 4, 4)
    a, b, c, d = (levels[:, :, number] for number in range(4))
    bits = np.stack([a << 2 | b >> 4, (b & 15) << 4 | c >> 2, (c & 3) << 6 | d], axis=2).reshape(count, _LEVEL_BYTES)
    differences = images[..., ::2].astype(np.int32) - light[..., None]
    cells = (
        differences.reshape(count, _COLOUR_SIDE, _CELL, _COLOUR_SIDE, _CELL, 2).sum(axis=(2, 4)).transpose(0, 3, 1, 2)
    )
    colours = (
        ((cells + _CELL * _CELL) // (2 * _CELL * _CELL))
        .astype(np.int8)
        .view(np.uint8)
        .reshape(count, 2 * _COLOUR_SIDE**2)
    )
    return np.concatenate([least.astype(np.uint8), largest.astype(np.uint8), bits, colours], axis=1)


def unpack(packed: Pixels) -> Planes:
    """Undo `pack`: (n, 898) uint8 to thumbnails."""
    count = len(packed)
    least, largest = packed[:, :1].astype(np.int32), packed[:, 1:2].astype(np.int32)
    bits = packed[:, 2 : 2 + _LEVEL_BYTES].reshape(count, _LEVEL_BYTES // 3, 3)
    a, b, c = (bits[:, :, number] for number in range(3))
    levels = np.stack([a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63], axis=2).reshape(
        count, SIDE * SIDE
    )
    light = least + (2 * levels * np.maximum(largest - least, 1) + _LEVELS) // (2 * _LEVELS)
    colours = np.ascontiguousarray(packed[:, 2 + _LEVEL_BYTES :]).view(np.int8).astype(np.int16) * np.int16(2)
    return Planes(
        light.astype(np.uint8).reshape(count, SIDE, SIDE), colours.reshape(count, 2, _COLOUR_SIDE, _COLOUR_SIDE)
    )


def turn(images: NDArray[Value], orientation: int) -> NDArray[Value]:
    """Turn or mirror images by reordering their pixels.

    Args:
        images: (..., side, side).
        orientation: 0 to 7; sum of `TRANSPOSED` (rows and columns are exchanged), then `MIRRORED` (left to right), then
            `UPSIDE_DOWN` (top to bottom). 3 is a turn by 180 degrees, 5 and 6 are turns by 90 degrees.
    """
    turned = images.swapaxes(-1, -2) if orientation & TRANSPOSED else images
    turned = turned[..., ::-1] if orientation & MIRRORED else turned
    return turned[..., ::-1, :] if orientation & UPSIDE_DOWN else turned


def undo(orientation: int) -> int:
    """Return the orientation that undoes another one."""
    if not orientation & TRANSPOSED:
        return orientation
    return TRANSPOSED | (orientation & MIRRORED) << 1 | (orientation & UPSIDE_DOWN) >> 1


def tilt(images: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Turn images by a few degrees around the centre. Outside, the edge value is repeated.

    Args:
        images: (..., side, side) of whole numbers of at most 11 bits.
        degrees: the angle.

    Returns:
        The same shape and type: bilinear interpolation, rounded half up. Each image is turned independently.
    """
    side = images.shape[-1]
    flat = images.reshape(-1, side * side)
    total = np.full(flat.shape, _SAMPLE_UNIT // 2, np.int32)
    for positions, weights in _samples(side, degrees):
        total += flat[:, positions] * weights
    return (total // _SAMPLE_UNIT).astype(images.dtype).reshape(images.shape)


@lru_cache
def _samples(side: int, degrees: float) -> list[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """List the four pixels, and their integer weights, from which each pixel of a tilted image is interpolated."""
    centre, angle = (side - 1) / 2, np.radians(degrees)
    down, across = (np.mgrid[:side, :side] - centre).reshape(2, -1)
    places = np.cos(angle) * down - np.sin(angle) * across, np.sin(angle) * down + np.cos(angle) * across
    y, x = (np.clip(place + centre, 0, side - 1) for place in places)
    top, left = (np.minimum(place.astype(np.int64), side - 2) for place in (y, x))
    # Shares in 1/64 give weights in 1/4096 that add up to 1.
    shares = [(np.rint((place - first) * _SHARE_UNIT).astype(np.int32)) for place, first in ((y, top), (x, left))]
    return [
        (
            (top + down_step) * side + left + across_step,
            _one_of_two(shares[0], down_step) * _one_of_two(shares[1], across_step),
        )
        for down_step in (0, 1)
        for across_step in (0, 1)
    ]


def _one_of_two(share: NDArray[np.int32], step: int) -> NDArray[np.int32]:
    return share if step else _SHARE_UNIT - share


def source_coordinates(shifts: Floats, axis: int, from_centre: Floats) -> Floats:
    """Compute which coordinates of the original a warped image shows, along axis 0 (across) or 1 (down).

    Args:
        shifts: (p, 4) float32: the shift across and down in pixels, then the logarithm of the stretch across and down.
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


def interpolation(coordinates: Floats, side: int = SIDE, *, derivative: bool = False) -> Floats:
    """Make matrices that interpolate along one axis with Catmull-Rom cubics. Outside, the edge value is repeated.

    Args:
        coordinates: (p, m) float32, in pixels, 0 to side - 1.
        side: number of pixels along the axis.
        derivative: whether to compute the derivative by the coordinate instead of the value.

    Returns:
        (p, m, side) float32: multiplied with a row of pixels, it gives m values.

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
    out = np.zeros(images * count * side, dtype=np.float32)
    row = np.arange(images * count).reshape(images, count) * side
    for tap, weight in enumerate(weights):
        # One tap at a time, because `+=` adds once for a position that occurs twice.
        out[row + np.clip(first + tap - 1, 0, side - 1)] += weight
    return out.reshape(images, count, side)


def smoothing(deviation: float, side: int = SIDE) -> Floats:
    """Make the (side, side) matrix of a Gaussian filter along one axis. Outside, the edge value is repeated."""
    margin = side // 2
    sources = np.arange(-margin, side + margin)
    weights = np.exp(-0.5 * ((np.arange(side)[:, None] - sources) / deviation) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    out = np.zeros((side, side))
    np.add.at(out.T, np.clip(sources, 0, side - 1), weights.T)
    return out.astype(np.float32)


def filter_both_axes(matrix: Floats, images: Floats) -> Floats:
    """Apply an (m, side) filter matrix along rows and columns: (p, side, side) to (p, m, m)."""
    out: Floats = np.matmul(np.matmul(matrix, images), matrix.T)
    return out
