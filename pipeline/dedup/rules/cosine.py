"""Pictures -> short vectors whose inner product bounds the correlation of the pixels from above.

A picture is summed over the cells of a grid, and the sums are written in a two-dimensional cosine basis, low
frequencies first: both steps are orthonormal, so the coordinates are those of the picture's mean-centred unit vector in
an orthonormal family. The last number is the length of what they leave out. By Cauchy-Schwarz the inner product of two
such vectors is at least the correlation of the pictures, up to `slack`.

All sums are of integers below 2^53 in float64, which are exact in any order: the same picture gives the same vector in
any batch, with any BLAS, on any machine. The basis is therefore rounded to integers of `_bits` bits; that, and float16,
is what `slack` accounts for.

cosine:t: the correlation of the pixels is t or more. Mean-centred, so brightness and contrast do not matter.

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
from functools import lru_cache
from math import log2, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.vectors import in_order, near_vectors
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Places
from pipeline.hashing import flat, pixel_sums

# Numbers in a vector: coordinates and the length of the rest.
WIDTH = 64
_GRID = 32
# A colour difference counts as if its frequency were higher: there is less in it.
_COLOUR = 0.05
# The DCT-II of three values in whole numbers: gray, red less blue, both less green; their lengths are divided out.
_MIXES = {1: np.ones((1, 1)), 3: np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])}
_MIX_BITS = 2
_CACHED = 2**20
# float16 has 11 bits; below 2^-14 it has an absolute precision of 2^-25.
_HALF = 2.0**-11 + WIDTH**0.5 * 2.0**-25

Shape = tuple[int, ...]
Doubles = NDArray[np.float64]


def shape_key(shape: Shape) -> int:
    """Pack (height, width, channels) into 63 bits: 28, 28 and 7."""
    height, width, channels = shape
    return (height << 35) | (width << 7) | channels


def describe(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Describe pictures of one shape.

    Args:
        pixels: (n, height, width, channels) uint8.

    Returns:
        (n, WIDTH) float16, no longer than 1 up to `slack`; zero where the picture is constant, and only there.
    """
    shape = pixels.shape[1:]
    out = np.empty((len(pixels), WIDTH), dtype=np.float16)
    step = max(1, _CACHED // max(1, prod(shape)))
    for start in range(0, len(pixels), step):
        out[start : start + step] = _describe(pixels[start : start + step])
    return out


def slack(key: int) -> float:
    """Bound by how much the correlation of two pictures of a shape can exceed their vectors' inner product.

    With coordinates that err by e in length, and a rest that is rounded up accordingly, by 2 e + e^2.
    """
    error = _error((key >> 35, (key >> 7) & (2**28 - 1), key & 0x7F))
    return 2 * error + error * error


def _describe(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    shape = pixels.shape[1:]
    n = prod(shape)
    values = flat(pixels).astype(np.float64)
    varied = values.max(axis=1) != values.min(axis=1)
    # Small whole numbers first, the fraction of the mean after: the sums in between stay exact.
    values -= np.rint(values.sum(axis=1) / n)[:, None]
    sums, squares = values.sum(axis=1), np.einsum("ij,ij->i", values, values)
    length = np.sqrt(np.where(varied, squares - sums * sums / n, 1.0))
    coordinates = _coordinates(values.reshape(pixels.shape)) - (sums / n)[:, None] * _of_ones(shape)
    rounded = (coordinates / length[:, None]).astype(np.float16)
    out = np.zeros((len(pixels), WIDTH), dtype=np.float16)
    out[:, : rounded.shape[1]] = rounded
    out[:, -1] = _rest(rounded, _error(shape))
    out[~varied] = 0
    return out


def _rest(coordinates: NDArray[np.float16], error: float) -> NDArray[np.float16]:
    """Bound the length that coordinates leave out, from above, where they err by at most `error` in length."""
    known = np.maximum(0.0, np.linalg.norm(coordinates.astype(np.float64), axis=1) - error)
    rest = np.sqrt(np.maximum(0.0, 1.0 - known**2))
    rounded = rest.astype(np.float16)
    up: NDArray[np.float16] = np.nextafter(rounded, np.float16(2))
    return np.where(rounded.astype(np.float64) < rest, up, rounded)


def _coordinates(values: Doubles) -> Doubles:
    """Write pictures in the chosen coordinates: exact sums of integers, scaled once."""
    count, height, width, channels = values.shape
    rows, columns, colours, chosen, scale = _basis((height, width, channels))
    across = np.moveaxis(values, 3, 1).reshape(-1, width) @ columns.T
    across = np.swapaxes(across.reshape(count * channels, height, -1), 1, 2).reshape(-1, height) @ rows.T
    mixed = across.reshape(count, channels, -1)
    if channels > 1:
        mixed = np.einsum("kc,ncf->nkf", colours, mixed)
    coordinates: Doubles = mixed.reshape(count, -1)[:, chosen] * scale
    return coordinates


@lru_cache(maxsize=64)
def _of_ones(shape: Shape) -> Doubles:
    return _coordinates(np.ones((1, *shape)))


@lru_cache(maxsize=64)
def _basis(shape: Shape) -> tuple[Doubles, Doubles, Doubles, NDArray[np.int64], Doubles]:
    """Make the integer bases of a shape, which of their products to keep, and the factors that make them unit."""
    height, width, channels = shape
    colours, columns, rows = np.unravel_index(_chosen(shape), (channels, min(width, _GRID), min(height, _GRID)))
    sizes = (channels, int(columns.max(initial=0)) + 1, int(rows.max(initial=0)) + 1)
    bits = 2.0 ** _bits(shape)
    mix = _MIXES[channels]
    scale = bits**-2 / np.linalg.norm(mix, axis=1)[colours]
    exact = [np.rint(_cosines(size, count) * bits) for size, count in ((height, sizes[2]), (width, sizes[1]))]
    return exact[0], exact[1], mix, np.ravel_multi_index((colours, columns, rows), sizes), scale


def _chosen(shape: Shape) -> NDArray[np.int64]:
    """Choose the lowest frequencies, as positions in (colour, column frequency, row frequency)."""
    height, width, channels = shape
    u, v = np.arange(min(height, _GRID)) / height, np.arange(min(width, _GRID)) / width
    cost = u**2 + v[:, None] ** 2 + (_COLOUR * (np.arange(channels) > 0))[:, None, None]
    # The first of all is the mean, which centred pictures have none of.
    return np.sort(np.argsort(cost, axis=None, kind="stable")[1:WIDTH])


def _bits(shape: Shape) -> int:
    """Bits of the row and column bases, so that every sum stays below 2^53.

    By Cauchy-Schwarz a sum of h w values of at most 2^8 with weights of length 1 is at most 2^8 sqrt(h w), and so is
    any part of it; colours take 2 bits, and one is to spare.
    """
    return int(min(20, (53 - 8 - _MIX_BITS - 1 - log2(shape[0] * shape[1]) / 2) // 2))


@lru_cache(maxsize=64)
def _error(shape: Shape) -> float:
    """Bound the length by which coordinates of a unit vector err: by rounded bases and by float16."""
    rows, columns = _basis(shape)[:2]
    bits = 2.0 ** -_bits(shape)
    off = [
        float(np.linalg.norm(exact * bits - _cosines(size, len(exact))))
        for exact, size in ((rows, shape[0]), (columns, shape[1]))
    ]
    # A product of bases that err by a and b in norm errs by at most (1 + a)(1 + b) - 1.
    together = prod(1 + part for part in off) - 1
    return float(together + _HALF * (1 + together) + 1e-9)


@lru_cache(maxsize=64)
def _cosines(size: int, count: int) -> Doubles:
    """Rows: low frequencies of an orthonormal DCT-II over the cells of a grid, as functions of the pixels."""
    cells = min(size, _GRID)
    widths = np.diff(np.arange(cells + 1) * size // cells)
    return np.repeat(_plain_cosines(count, cells) / np.sqrt(widths), widths, axis=1)


def _plain_cosines(count: int, size: int) -> Doubles:
    """The first rows of the orthonormal DCT-II."""
    at, frequency = np.arange(size) + 0.5, np.arange(count)[:, None]
    rows: Doubles = np.cos(np.pi * frequency * at / size) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return rows


_LEAST, _MOST = 0.80, 1.0
# Products of 8-bit values fit 16 bits; so many of them fit 32.
_FITS = (2**32 - 1) // 255**2
_CACHED_ROWS = 2**19
# Of so many values, n^2 times a covariance, n^2 255^2 / 4 at most, fits 63 bits.
_EXACT = 2**24


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
        step = max(1, _CACHED_ROWS // max(1, pixels[:1].nbytes))
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
