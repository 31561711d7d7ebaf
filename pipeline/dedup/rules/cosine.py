"""cosine:t: the correlation of the pixels is t or more. Mean-centred, so brightness and contrast do not matter.

The score of two pictures x, y of equal shape with n values is

    (n Sxy - Sx Sy) / sqrt((n Sxx - Sx Sx) (n Syy - Sy Sy))

where the three brackets are exact whole numbers (up to 2^24 values a picture; beyond, they are float64), and the rest
is float64: product, root and quotient, rounded once each. It is the inner product of the pictures' mean-centred
unit vectors, and where that is t exactly, as it can be for 0.8, it comes out as t. A pair is where it is t or more.
Nothing else decides: all that is done in float32 or with bounds only leaves out pairs that cannot reach t, with every
rounding error accounted for in the bound, so no pair at t is lost.

A constant picture has no direction: its score is 0 with every picture, and it is in no pair. Equal constant pictures
are in one cluster all the same: a thousand blank ones are that, and not half a million pairs. Pictures of unlike shape
are never a pair.

The index holds of every picture the first coordinates in a cosine basis (DCT-II, low frequencies first) and the length
of the rest; their inner product bounds the score from above. They are made of exact integers, see `lowpass`, so they
are the same on any machine and in any batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.stripes import in_order
from pipeline.dedup.joins.vectors import near_vectors
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Places
from pipeline.dedup.rules.lowpass import WIDTH, describe, shape_key, slack
from pipeline.hashing import flat, pixel_sums

_LEAST, _MOST = 0.80, 1.0
# Products of 8-bit values fit 16 bits; so many of them fit 32.
_FITS = (2**32 - 1) // 255**2
_CACHED = 2**19
# Of so many values, n^2 times a covariance, n^2 255^2 / 4 at most, fits 63 bits.
_EXACT = 2**24

Doubles = NDArray[np.float64]


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
        # The vector of a constant picture is zero; then its first value tells it from others, and 0 that it is none.
        first = flat(pixels)[:, 0].astype(np.int64) + 1
        return Entries(key, np.where(vector.any(axis=1), 0, first), vector.view(np.uint8))

    @property
    def equal_signatures(self) -> bool:
        """Equal constant pictures are the same picture."""
        return True

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair whose bound reaches the least score, shape by shape."""
        other = left if right is None else right
        for key in np.intersect1d(left.key, other.key).tolist():
            one = _where(left, key)
            two = one if right is None else _where(right, key)
            a = _vectors(left.vector[one])
            b = None if right is None else _vectors(right.vector[two])
            for i, j in near_vectors(a, b, self.least - slack(key)):
                yield Candidates(one[i], two[j], None)

    def verify(self, pixels: Pixels, left: Places, right: Places) -> NDArray[np.float32]:
        """Score pairs of pictures; see `correlations`.

        Returns:
            (p,) float32, -1 to 1; -1 for every pair that is none, whatever float32 makes of its score.
        """
        known = _moments(pixels)
        step = max(1, _CACHED // max(1, pixels[:1].nbytes))
        slices = [slice(start, start + step) for start in range(0, len(left), step)]
        parts = in_order(lambda part: _correlations(pixels, known, left[part], right[part]), slices)
        scores = np.concatenate([np.empty(0), *parts])
        return np.where(scores < self.least, np.float32(-1), scores.astype(np.float32))


class _Moments(NamedTuple):
    """Of n pictures of m values: their sums, m^2 times their variances, and whether they are constant; (n,) each."""

    sums: Places
    spread: Doubles
    constant: NDArray[np.bool_]


def correlations(left: Pixels, right: Pixels) -> Doubles:
    """Score pairs of pictures by the rule's formula.

    Args:
        left: (p, height, width, channels) uint8.
        right: the same shape; row i is compared with row i of `left`.

    Returns:
        (p,) float64, -1 to 1 up to rounding.
    """
    both = np.concatenate([left, right])
    rows = np.arange(len(left))
    return _correlations(both, _moments(both), rows, rows + len(left))


def _moments(pixels: Pixels) -> _Moments:
    rows = flat(pixels)
    sums, squares = pixel_sums(pixels)
    spread = _less(rows.shape[1], squares, sums, sums)
    return _Moments(sums, spread, rows.max(axis=1) == rows.min(axis=1))


def _correlations(pixels: Pixels, known: _Moments, i: Places, j: Places) -> Doubles:
    rows = flat(pixels)
    across = _less(rows.shape[1], _inner(rows[i], rows[j]), known.sums[i], known.sums[j])
    constant = known.constant[i] | known.constant[j]
    length = np.sqrt(np.where(constant, 1.0, known.spread[i]) * np.where(constant, 1.0, known.spread[j]))
    scores: Doubles = np.where(constant, 0.0, across / length)
    return scores


def _less(count: int, products: Places, left: Places, right: Places) -> Doubles:
    """Compute count * products - left * right: exactly, and then rounded once, where the result fits 63 bits."""
    if count <= _EXACT:
        # Whatever wraps around on the way has wrapped back.
        return (count * products - left * right).astype(np.float64)
    return count * products.astype(np.float64) - left.astype(np.float64) * right.astype(np.float64)


def _inner(a: Pixels, b: Pixels) -> Places:
    """Sum the products of two rows, exactly."""
    total = np.zeros(len(a), dtype=np.int64)
    for start in range(0, a.shape[1], _FITS):
        part = slice(start, start + _FITS)
        total += np.multiply(a[:, part], b[:, part], dtype=np.uint16).sum(axis=1, dtype=np.uint32)
    return total


def _where(entries: Entries, key: int) -> Places:
    """Find the pictures of a shape that are not constant."""
    return np.flatnonzero((entries.key == key) & (entries.signature == 0))


def _vectors(rows: Pixels) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows).view(np.float16).reshape(len(rows), WIDTH).astype(np.float32)
