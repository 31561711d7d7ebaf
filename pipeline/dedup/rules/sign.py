"""sign: every pixel lies on the same side of middle gray.

This is what the dense formula of the notMNIST notebooks tests. They scale pixels to x = (p - 127.5) / 255 and call
two pictures the same where `inner(X, Y) / inner(|X|, |Y|) >= 1`. No x is zero, and the ratio's numerator and
denominator are sums of the same products but for their signs: the ratio is 1 where every product is positive, that is
where every pixel pair agrees in sign, and below 1 elsewhere. x is positive where p >= 128.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import flat, hash_rows, with_shape

_MIDDLE = 128


def rule(parameter: str | None) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Make the rule; its key is the hash of the shape and of `pixel >= 128`, packed to bits.

    Raises:
        ValueError: a parameter is given; it takes none.
    """
    if parameter is not None:
        raise ValueError("it takes no parameter; write sign")
    return _keys


def _keys(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    bits = np.packbits(flat(pixels) >= _MIDDLE, axis=1)
    return hash_rows(with_shape(bits, pixels.shape[1:]))
