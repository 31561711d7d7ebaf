"""maxpool:k: equal maxima of all k x k blocks.

A picture whose sides are no multiple of k has smaller blocks at its right and lower edge, as if padded with zeros.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import flat, hash_rows, with_shape


def rule(parameter: str | None) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Make the rule; its key is the hash of the shape and of the block maxima.

    Raises:
        ValueError: the parameter is no whole number of 2 or more.
    """
    if parameter is None or not parameter.isdecimal() or int(parameter) < 2 or parameter != str(int(parameter)):  # noqa: PLR2004
        raise ValueError("it takes the block size, a whole number of 2 or more; write maxpool:4")
    return partial(_keys, int(parameter))


def block_maxima(k: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce every k x k block to its maximum.

    Args:
        k: block side, in pixels.
        pixels: (n, height, width, channels) uint8.

    Returns:
        (n, ceil(height / k), ceil(width / k), channels) uint8.
    """
    return _run_maxima(k, _run_maxima(k, pixels, axis=1), axis=2)


def _run_maxima(k: int, pixels: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Reduce runs of k along an axis: k passes over whole arrays, ten times faster than `reduceat`."""
    moved = np.moveaxis(pixels, axis, 0)
    out = np.ascontiguousarray(pixels[(slice(None),) * axis + (slice(None, None, k),)])
    along = np.moveaxis(out, axis, 0)
    for step in range(1, k):
        part = moved[step::k]
        np.maximum(along[: len(part)], part, out=along[: len(part)])
    return out


def _keys(k: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    maxima = block_maxima(k, pixels)
    return hash_rows(with_shape(flat(maxima), pixels.shape[1:]))
