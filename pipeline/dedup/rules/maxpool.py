"""maxpool:k: equal maxima of all k x k blocks.

If a side of the image is not a multiple of k, the blocks at its right and lower edge are smaller, as if the image were
padded with zeros.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import flat, hash_rows, with_shape


def rule(parameter: str | None) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Make the rule; its key is the hash of the shape and of the block maxima.

    Args:
        parameter: side of a block in pixels, such as "4".

    Returns:
        A function from (n, height, width, channels) uint8 to keys, (n, 16) uint8.

    Raises:
        ValueError: the parameter is not an integer of 2 or more.
    """
    if parameter is None or not parameter.isdecimal() or int(parameter) < 2 or parameter != str(int(parameter)):  # noqa: PLR2004
        raise ValueError("it takes the block size, a whole number of 2 or more; write maxpool:4")
    return partial(_keys, int(parameter))


def block_maxima(k: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute the maximum of every k x k block.

    Args:
        k: side of a block in pixels.
        pixels: (n, height, width, channels) uint8.

    Returns:
        (n, ceil(height / k), ceil(width / k), channels) uint8.
    """
    return _run_maxima(k, _run_maxima(k, pixels, axis=1), axis=2)


def _run_maxima(k: int, pixels: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Compute the maxima of runs of k along an axis: k passes over whole arrays, ten times faster than `reduceat`."""
    moved = np.moveaxis(pixels, axis, 0)
    out = np.ascontiguousarray(pixels[(slice(None),) * axis + (slice(None, None, k),)])
    maxima = np.moveaxis(out, axis, 0)
    for step in range(1, k):
        part = moved[step::k]
        np.maximum(maxima[: len(part)], part, out=maxima[: len(part)])
    return out


def _keys(k: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    maxima = block_maxima(k, pixels)
    return hash_rows(with_shape(flat(maxima), pixels.shape[1:]))
