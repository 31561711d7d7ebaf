"""cosine:t: the correlation of the pixels is t or more. Mean-centred, so brightness and contrast do not matter.

The score of two pictures x, y of equal shape with n values is, from exact integer sums and in float64,

    (Sxy - Sx Sy / n) / sqrt((Sxx - Sx Sx / n) (Syy - Sy Sy / n))

which is the inner product of their mean-centred unit vectors. A pair is where it is t or more.
Nothing else decides: all that is done in float32 or with bounds only leaves out pairs that cannot reach t, with every
rounding error accounted for in the bound, so no pair at t is lost. A constant picture has no direction: its score
is 1 with constant pictures of its shape and 0 with all others. Pictures of unlike shape are never a pair.

The index holds of every picture the first coordinates in a cosine basis (DCT-II, low frequencies first) and the length
of the rest; their inner product bounds the score from above. They are made of exact integers, see
`lowpass`, so they are the same on any machine and in any batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.vectors import near_vectors
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Places
from pipeline.dedup.rules.lowpass import WIDTH, describe, shape_key, slack
from pipeline.hashing import flat

_LEAST, _MOST = 0.80, 1.0
# Products of 8-bit values fit 16 bits; so many of them fit 32.
_FITS = (2**32 - 1) // 255**2
_CACHED = 2**19


def rule(parameter: str | None) -> "Cosine":
    """Make the rule.

    Raises:
        ValueError: the parameter is no number from 0.80 to 1.
    """
    try:
        threshold = float(parameter or "")
    except ValueError:
        threshold = 0.0
    if not _LEAST <= threshold <= _MOST:
        raise ValueError("it takes the least cosine, 0.80 to 1; write cosine:0.95")
    return Cosine(threshold)


@dataclass(frozen=True)
class Cosine:
    """The rule, ready to run; see `Comparison`.

    Attributes:
        least: the least score of a pair.
    """

    least: float

    def index(self, pixels: Pixels) -> Entries:
        """Describe pictures of one shape: the key is the shape, the vector `WIDTH` float16."""
        key = np.full(len(pixels), shape_key(pixels.shape[1:]), dtype=np.int64)
        vector = describe(pixels)
        # A constant picture is told by this alone: its vector is zero.
        varied: Places = np.asarray(vector.any(axis=1), dtype=np.int64)
        return Entries(key, varied, vector.view(np.uint8))

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair whose bound reaches the least score, shape by shape."""
        other = left if right is None else right
        for key in np.intersect1d(left.key, other.key).tolist():
            for varied in (0, 1):
                one = _where(left, key, varied)
                two = None if right is None else _where(right, key, varied)
                found = self._near(left, one, right, two, key) if varied else _all_of(one, two)
                across = one if two is None else two
                for i, j in found:
                    yield Candidates(one[i], across[j], None)

    def verify(self, left: Pixels, right: Pixels) -> NDArray[np.float32]:
        """Score pairs of pictures, row by row.

        Returns:
            (p,) float32, -1 to 1; below `least` for every pair that is none, whatever float32 makes of it.
        """
        scores = correlations(left, right)
        out = scores.astype(np.float32)
        out[scores < self.least] = -1.0
        return out

    def _near(
        self, left: Entries, one: Places, right: Entries | None, two: Places | None, key: int
    ) -> Iterator[tuple[Places, Places]]:
        a = _vectors(left.vector[one])
        b = None if right is None or two is None else _vectors(right.vector[two])
        yield from near_vectors(a, b, self.least - slack(key))


def correlations(left: Pixels, right: Pixels) -> NDArray[np.float64]:
    """Score pairs of pictures by the rule's formula.

    Args:
        left: (p, height, width, channels) uint8.
        right: the same shape; row i is compared with row i of `left`.

    Returns:
        (p,) float64, -1 to 1 up to rounding.
    """
    a, b = flat(left), flat(right)
    out = np.empty(len(a), dtype=np.float64)
    step = max(1, _CACHED // max(1, a.shape[1]))
    for start in range(0, len(a), step):
        part = slice(start, start + step)
        out[part] = _correlations(a[part], b[part])
    return out


def _correlations(a: Pixels, b: Pixels) -> NDArray[np.float64]:
    n = np.float64(a.shape[1])
    sx, sy = (rows.sum(axis=1, dtype=np.int64).astype(np.float64) for rows in (a, b))
    across = _inner(a, b) - sx * sy / n
    x, y = _inner(a, a) - sx * sx / n, _inner(b, b) - sy * sy / n
    flat_x, flat_y = (rows.max(axis=1) == rows.min(axis=1) for rows in (a, b))
    either = flat_x | flat_y
    length = np.sqrt(np.where(either, 1.0, x) * np.where(either, 1.0, y))
    scores: NDArray[np.float64] = np.where(either, (flat_x & flat_y).astype(np.float64), across / length)
    return scores


def _inner(a: Pixels, b: Pixels) -> NDArray[np.float64]:
    """Sum the products of two rows, exactly."""
    total = np.zeros(len(a), dtype=np.float64)
    for start in range(0, a.shape[1], _FITS):
        part = slice(start, start + _FITS)
        total += np.multiply(a[:, part], b[:, part], dtype=np.uint16).sum(axis=1, dtype=np.uint32)
    return total


def _where(entries: Entries, key: int, varied: int) -> Places:
    return np.flatnonzero((entries.key == key) & (entries.signature == varied))


def _vectors(rows: Pixels) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows).view(np.float16).reshape(len(rows), WIDTH).astype(np.float32)


def _all_of(one: Places, two: Places | None) -> Iterator[tuple[Places, Places]]:
    """Pair all with all, a block of the left at a time."""
    count = len(one) if two is None else len(two)
    step = max(1, 2**20 // max(1, count))
    for start in range(0, len(one), step):
        rows = np.arange(start, min(start + step, len(one)))
        i, j = np.repeat(rows, count), np.tile(np.arange(count), len(rows))
        later = i < j if two is None else np.ones(len(i), dtype=bool)
        yield i[later], j[later]
