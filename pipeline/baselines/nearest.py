"""Find the nearest training image of each image: exact, in blocks of limited memory."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
_BLOCK_BYTES = 2**25


class Nearest(NamedTuple):
    """The nearest training image of each query image.

    Attributes:
        place: (m,) int64, position of the nearest; of equal distances the first.
        distance: (m,) float64, root of the mean squared difference of the pixels, 0 to 255.
    """

    place: NDArray[np.int64]
    distance: NDArray[np.float64]


def find_nearest(queries: Pixels, training: Pixels) -> Nearest:
    """Find nearest images by Euclidean distance of their pixels.

    Sums of products of whole numbers are exact in float64 up to 2^53, enough for more than 10^11 pixels, so rounding
    never changes the result.

    Args:
        queries: (m, features) uint8.
        training: (n, features) uint8, n at least 1.
    """
    count, features = queries.shape
    wanted = queries.astype(np.float64)
    best, place = np.full(count, np.inf), np.zeros(count, np.int64)
    step = max(1, _BLOCK_BYTES // (8 * max(1, features)))
    rows = max(1, _BLOCK_BYTES // (8 * step))
    for start in range(0, len(training), step):
        block = training[start : start + step].astype(np.float64)
        squares = np.einsum("ij,ij->i", block, block)
        for low in range(0, count, rows):
            part = slice(low, low + rows)
            # The square of the query is left out: it is the same for all training images.
            found = squares - 2 * (wanted[part] @ block.T)
            at = found.argmin(axis=1)
            least = found[np.arange(len(at)), at]
            nearer = least < best[part]
            best[part] = np.where(nearer, least, best[part])
            place[part] = np.where(nearer, start + at, place[part])
    squared = best + np.einsum("ij,ij->i", wanted, wanted)
    return Nearest(place, np.sqrt(squared / max(1, features)))
