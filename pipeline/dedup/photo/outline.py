"""Describe thumbnails by their low frequencies, in whole numbers: a first comparison that is cheap and exact.

An outline is made of the lowest coefficients of a cosine transform of the gray values, and fewer of the colours. They
are weighted by frequency, because natural images have most of their energy in the lowest. Shifts of a pixel change an
outline little. Short outlines have fewer coefficients: views are compared by them. To turn an image by 90 degrees or to
mirror it only permutes and negates its coefficients, so the eight orientations of an image cost next to nothing.

Outlines have length 1 in units of 2^-11. Any sum of products of two is below 2^24, so float32 computes it exactly, in
any order and on any machine.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import MIRRORED, TRANSPOSED, UPSIDE_DOWN, Floats
from pipeline.dedup.photo.views import HALF_SIDE, PLAIN, View, enlarge_colours, view_matrix, whole_weights

UNIT = 2.0**11
_FREQUENCIES = 6

Numbers = NDArray[np.int64]


class Length(NamedTuple):
    """Which coefficients an outline has: up to these sums of squared frequencies."""

    gray: int
    colour: int


LONG, SHORT = Length(30, 8), Length(18, 2)


def outline_weights(views: Sequence[View]) -> tuple[Floats, Floats]:
    """Make the weights of the long outlines of images as they are, and of short ones in views; see `whole_weights`."""
    return whole_weights(np.concatenate([_weights(PLAIN, LONG), *(_weights(view, SHORT) for view in views)], axis=1))


def outlines(rows: Floats, constant: NDArray[np.bool_], weights: tuple[Floats, Floats]) -> list[Floats]:
    """Compute the outlines of thumbnails.

    Args:
        rows: (n, 384), see `views.values`.
        constant: (n,) which images are constant.
        weights: see `outline_weights`.

    Returns:
        float32 of whole numbers, of length about 2048, or 0 if an image is constant: (n, 45) the long outlines of the
        images as they are, then (n, 25) the short ones of each view.
    """
    sums = (rows @ weights[0]) * weights[1]
    long, short = (len(_coefficients(length)[0]) for length in (LONG, SHORT))
    made = []
    for part in np.split(sums, range(long, sums.shape[1], short), axis=1):
        length = np.sqrt(np.einsum("ij,ij->i", part, part))
        length[constant | (length == 0)] = np.inf
        made.append(np.rint(part * (np.float32(UNIT) / length)[:, None]))
    return made


def orient(outline: Floats, orientation: int) -> Floats:
    """Compute the short outlines of images in another orientation, see `thumbnails.turn`: (n, 25) to (n, 25)."""
    down, across, plane = _coefficients(SHORT)
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


def _weights(view: View, length: Length) -> NDArray[np.float64]:
    """Make the (384, m) matrix from the values of thumbnails to coefficients of a view."""
    down, across, plane = _coefficients(length)
    waves = np.cos(np.pi * (2 * np.arange(HALF_SIDE) + 1) * np.arange(_FREQUENCIES)[:, None] / (2 * HALF_SIDE))
    frequency = np.sqrt(down * down + across * across)[:, None, None]
    patterns = (frequency * waves[down][:, :, None] * waves[across][:, None, :]).reshape(len(down), -1)
    patterns = patterns @ view_matrix(view)
    cells = patterns @ enlarge_colours()
    parts = [np.where(plane[:, None] == 0, patterns / 4, 0)]
    parts += [np.where(plane[:, None] == number, cells, 0) for number in (1, 2)]
    return np.concatenate(parts, axis=1).T


@lru_cache
def _coefficients(length: Length) -> tuple[Numbers, Numbers, Numbers]:
    """List the coefficients of an outline: the frequency down, the frequency across, and the plane (0 is gray)."""
    down, across = np.mgrid[:_FREQUENCIES, :_FREQUENCIES].reshape(2, -1)
    square = down * down + across * across
    gray, colour = (np.flatnonzero((square > 0) & (square <= radius)) for radius in length)
    where = np.concatenate([gray, colour, colour])
    plane = np.repeat(np.arange(3), [len(gray), len(colour), len(colour)])
    return down[where], across[where], plane
