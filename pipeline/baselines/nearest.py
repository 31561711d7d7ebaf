"""The training image that is nearest to each of some images: exact, in blocks of bounded memory."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
_BLOCK_BYTES = 2**25


class Nearest(NamedTuple):
    """For each image asked about.

    Attributes:
        place: (m,) int64, position of the nearest; of equally near ones the first.
        distance: (m,) float64, root of the mean squared difference of the pixels, 0 to 255.
    """

    place: NDArray[np.int64]
    distance: NDArray[np.float64]


def find_nearest(asked: Pixels, among: Pixels) -> Nearest:
    """Find nearest images by Euclidean distance of their pixels.

    Products of whole numbers are exact in float64 up to 2^53, which is more than 10^11 pixels: no rounding decides.

    Args:
        asked: (m, features) uint8.
        among: (n, features) uint8, n at least 1.
    """
    count, features = asked.shape
    wanted = asked.astype(np.float64)
    best, place = np.full(count, np.inf), np.zeros(count, np.int64)
    step = max(1, _BLOCK_BYTES // (8 * max(1, features)))
    rows = max(1, _BLOCK_BYTES // (8 * step))
    for start in range(0, len(among), step):
        block = among[start : start + step].astype(np.float64)
        own = np.einsum("ij,ij->i", block, block)
        for low in range(0, count, rows):
            part = slice(low, low + rows)
            # Without the square of the image asked about, which is the same for all of them.
            found = own - 2 * (wanted[part] @ block.T)
            at = found.argmin(axis=1)
            least = found[np.arange(len(at)), at]
            nearer = least < best[part]
            best[part] = np.where(nearer, least, best[part])
            place[part] = np.where(nearer, start + at, place[part])
    squares = best + np.einsum("ij,ij->i", wanted, wanted)
    return Nearest(place, np.sqrt(squares / max(1, features)))
