"""sign: every pixel lies on the same side of middle gray, 127.5.

In exact arithmetic this is a formula of the notMNIST notebooks. They scale pixels to x = (p - 127.5) / 255 and treat
two images as duplicates if `inner(X, Y) / inner(|X|, |Y|) >= 1`. No x is zero. Numerator and denominator are sums of
the same products except for their signs, so the ratio is 1 if all pixels agree in sign, and below 1 otherwise. x is
positive if p >= 128.

In float32, which the notebooks use, the formula also accepts pairs whose ratio rounds to 1: black and white images of
28 x 28 that differ in one gray pixel, 127 in one and 128 in the other, have a ratio of 1 - 0.00000004. This rule does
not accept them. Pairs of this rule have two equal sums, so no rounding loses them.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import flat, hash_rows, with_shape

_MIDDLE = 128


def rule(_: str | None) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Make the rule; its key is the hash of the shape and of the bits `pixel >= 128`.

    Returns:
        A function from (n, height, width, channels) uint8 to keys, (n, 16) uint8.
    """
    return _keys


def _keys(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    bits = np.packbits(flat(pixels) >= _MIDDLE, axis=1)
    return hash_rows(with_shape(bits, pixels.shape[1:]))
