"""Describe thumbnails by their low frequencies, in whole numbers: a first comparison that is cheap and exact.

An outline is made of the lowest coefficients of a cosine transform of the gray values, and fewer of the colours. They
are weighted by frequency, because natural images have most of their energy in the lowest. Shifts of a pixel change an
outline little; crops and small turns are compared as views. To turn an image by 90 degrees or to mirror it only
permutes and negates its coefficients, so the eight orientations of an image cost next to nothing to make.

Outlines have length 1 in units of 2^-11. Any sum of products of two is below 2^24, so float32 computes it exactly, in
any order and on any machine.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import (
    CENTRE,
    FROM_CENTRE,
    MIRRORED,
    SIDE,
    TRANSPOSED,
    UPSIDE_DOWN,
    Floats,
    Planes,
    interpolation,
)

UNIT = 2.0**11
# The coefficients: gray values up to this sum of squared frequencies, and colours likewise.
_GRAY_RADIUS, _COLOUR_RADIUS = 30, 8
_FREQUENCIES = 6
# Weights of pixels are rounded to integers in this unit: sums of 1152 products with 9-bit values stay below 2^53.
_WEIGHT_UNIT = 2.0**20
_BLOCK_IMAGES = 512

Numbers = NDArray[np.int64]


# Views of an image: the middle of it, by its share of the sides; and the whole, turned by some degrees. A turn of one
# image is the opposite turn of the other.
_SHARES = (0.75, 0.88)
_TILT = 5.0


def outlines(images: Planes) -> Floats:
    """Compute the outlines of thumbnails.

    Args:
        images: n thumbnails.

    Returns:
        (1 + views, n, 45) float32 of whole numbers, of length about 2048, or 0 if an image is constant: first the whole
        images, then the middle of each at two sizes, then tilted images.
    """
    whole = _weights(1.0)
    out = np.empty((2 + len(_SHARES), len(images.gray), whole.shape[1]), np.float32)
    for start in range(0, len(images.gray), _BLOCK_IMAGES):
        part = slice(start, start + _BLOCK_IMAGES)
        block = images.take(part)
        constant, values = block.constant(), _values(block)
        # Sums of integers are exact in any order.
        views = [values @ whole, *(values @ _weights(share) for share in _SHARES), _values(block.tilt(_TILT)) @ whole]
        for number, rows in enumerate(views):
            length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            length[constant | (length == 0)] = np.inf
            out[number, part] = np.rint(rows * (UNIT / length)[:, None])
    return out


def _values(images: Planes) -> NDArray[np.float64]:
    """List all values of thumbnails: (n, 1024 + 128)."""
    return np.concatenate([plane.reshape(len(plane), -1).astype(np.float64) for plane in images], axis=1)


def orient(outline: Floats, orientation: int) -> Floats:
    """Compute the outlines of whole images in another orientation, see `thumbnails.turn`: (n, 45) to (n, 45)."""
    down, across, plane = _coefficients()
    signs = np.ones(len(down), np.float32)
    if orientation & MIRRORED:
        signs *= 1 - 2 * (across % 2)
    if orientation & UPSIDE_DOWN:
        signs *= 1 - 2 * (down % 2)
    source = np.arange(len(down))
    if orientation & TRANSPOSED:
        place = {key: number for number, key in enumerate(zip(plane, down, across, strict=True))}
        source = np.array([place[key] for key in zip(plane, across, down, strict=True)])
    turned: Floats = outline[:, source] * signs
    return turned


@lru_cache
def _weights(share: float) -> NDArray[np.float64]:
    """Make the (1024 + 128, 45) matrix from the gray values and colours of thumbnails to coefficients, as integers."""
    down, across, plane = _coefficients()
    position = np.arange(SIDE)[None, :]
    waves = np.cos(np.pi * (2 * position + 1) * np.arange(_FREQUENCIES)[:, None] / (2 * SIDE))
    frequency = np.sqrt(down * down + across * across)[:, None, None]
    matrix = interpolation((CENTRE + np.float32(share) * FROM_CENTRE)[None])[0].astype(np.float64)
    waves = waves @ matrix
    patterns = frequency * waves[down][:, :, None] * waves[across][:, None, :]
    cells = patterns.reshape(len(down), SIDE // 4, 4, SIDE // 4, 4).sum(axis=(2, 4)).reshape(len(down), -1)
    parts = [np.where(plane[:, None] == 0, patterns.reshape(len(down), -1), 0)]
    parts += [np.where(plane[:, None] == number, cells, 0) for number in (1, 2)]
    weights = np.concatenate(parts, axis=1).T
    return np.ascontiguousarray(np.rint(weights * (_WEIGHT_UNIT / np.abs(weights).max())))


@lru_cache
def _coefficients() -> tuple[Numbers, Numbers, Numbers]:
    """List the coefficients of an outline: the frequency down, the frequency across, and the plane (0 is gray)."""
    down, across = np.mgrid[:_FREQUENCIES, :_FREQUENCIES].reshape(2, -1)
    square = down * down + across * across
    gray, colour = ((square > 0) & (square <= radius) for radius in (_GRAY_RADIUS, _COLOUR_RADIUS))
    chosen = [np.flatnonzero(gray), *[np.flatnonzero(colour)] * 2]
    plane = np.repeat(np.arange(3), [len(part) for part in chosen])
    where = np.concatenate(chosen)
    return down[where], across[where], plane
