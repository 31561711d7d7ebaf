"""Views of thumbnails, such as a crop or a small turn, as matrices, and exact sums of thumbnails with any weights.

Descriptors and outlines are weighted sums of a thumbnail's values. Those of a view are sums with other weights, so no
view is ever drawn. Values and weights are whole numbers, so short that float32 computes each sum exactly, in any order
and on any machine.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import SIDE, Floats, Planes, interpolation, turn

Doubles = NDArray[np.float64]

# Views are made of thumbnails of half the side.
HALF_SIDE = SIDE // 2
CELLS = HALF_SIDE * HALF_SIDE
_COLOUR_SIDE = 8
# The length of an image's values is at most 8660: 256 gray sums, 510 from their mean, and 128 colours of 256. Weights
# of this length, and at most 10 for rounding them, keep sums below 2^24.
_WEIGHT_LENGTH = 1920.0


class View(NamedTuple):
    """A change of a thumbnail: reoriented or tilted, then enlarged by 1 / size, then shifted by its pixels.

    Attributes:
        across: the shift to the left, in pixels of a thumbnail.
        down: the shift upwards.
        size: the share of the sides that is seen.
        degrees: the angle of a small turn. A turn of one image is the opposite turn of the other.
        orientation: see `thumbnails.turn`.
    """

    across: float = 0.0
    down: float = 0.0
    size: float = 1.0
    degrees: float = 0.0
    orientation: int = 0


PLAIN = View()


def values(images: Planes) -> Floats:
    """List the values of thumbnails from which views are made.

    Args:
        images: n thumbnails.

    Returns:
        (n, 384) float32 of whole numbers, of length at most 8660: the gray sums of 2 x 2 pixels minus their rounded
        mean, then the colours.
    """
    count = len(images.gray)
    pairs = images.gray[:, ::2].astype(np.int16) + images.gray[:, 1::2]
    sums = (pairs[:, :, ::2] + pairs[:, :, 1::2]).reshape(count, CELLS)
    sums -= (sums.sum(axis=1, keepdims=True, dtype=np.int32) // CELLS).astype(np.int16)
    return np.concatenate([sums, images.colour.reshape(count, 2 * _COLOUR_SIDE**2)], axis=1).astype(np.float32)


def whole_weights(weights: Doubles) -> tuple[Floats, Floats]:
    """Round weights, such that their sums with `values` are exact in float32.

    Args:
        weights: (384, m); every column is scaled to the same length.

    Returns:
        (384, m) float32 of whole numbers, and (m,) float32, the factors that scale the sums back.
    """
    length = np.maximum(np.sqrt((weights * weights).sum(axis=0)), 1e-30)
    return np.rint(weights * (_WEIGHT_LENGTH / length)).astype(np.float32), (length / _WEIGHT_LENGTH).astype(np.float32)


@lru_cache
def view_matrix(view: View) -> Doubles:
    """Make the (256, 256) matrix from an image of 16 x 16 pixels to a view of it: Catmull-Rom, edge values repeated."""
    centre, step = (HALF_SIDE - 1) / 2, SIDE / HALF_SIDE
    down, across = (np.mgrid[:HALF_SIDE, :HALF_SIDE] - centre).reshape(2, -1)
    y, x = (view.size * place + shift / step for place, shift in ((down, view.down), (across, view.across)))
    angle = np.radians(view.degrees)
    y, x = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
    rows, columns = (
        interpolation(np.clip(place + centre, 0, HALF_SIDE - 1)[None].astype(np.float32), HALF_SIDE)[0]
        for place in (y, x)
    )
    matrix = rows[:, :, None].astype(np.float64) * columns[:, None, :]
    # The pixel (row, column) of the reoriented image is another one of the image.
    source = turn(np.arange(CELLS).reshape(HALF_SIDE, HALF_SIDE), view.orientation).reshape(-1)
    out = np.empty((CELLS, CELLS))
    out[:, source] = matrix.reshape(CELLS, CELLS)
    return out


def enlarge_colours() -> Doubles:
    """Make the (256, 64) matrix that repeats the colours of 8 x 8 cells for 16 x 16 pixels."""
    axis = np.repeat(np.eye(_COLOUR_SIDE), HALF_SIDE // _COLOUR_SIDE, axis=0)
    return np.asarray(np.kron(axis, axis), np.float64)
