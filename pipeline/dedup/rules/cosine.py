"""cosine:t: the correlation of the pixels is t or more, so brightness and contrast do not matter.

The score of two images x, y of equal shape with n values is

    (n Sxy - Sx Sy) / sqrt((n Sxx - Sx Sx) (n Syy - Sy Sy))

where the three differences are exact integers (up to 2^24 values per image; beyond, they are float64). Product, root
and quotient are float64, rounded once each. The score is the inner product of the images' mean-centred unit vectors. If
the exact value is t, as it can be for 0.8, the score is t. Images are a pair if the score is t or more. Float32 and
bounds are only used to discard pairs that cannot reach t, and the bounds include every rounding error, so no pair that
reaches t is lost.

A constant image has no direction: its score with every image is 0 and it is in no pair. Equal constant images are in
one cluster nevertheless: a thousand blank images are one cluster, not half a million pairs. Images of different shapes
are never a pair.

The index holds a short vector for each image. An image is summed over the cells of a grid, and the sums are written in
a two-dimensional cosine basis (DCT-II), low frequencies first. Both steps are orthonormal, so these are coordinates of
the mean-centred unit vector. The last number is the length of the coordinates that are left out. By Cauchy-Schwarz, the
inner product of two short vectors is at least the correlation of the images, up to `slack`.

All sums are of integers below 2^53 in float64, which are exact in any order: an image has the same vector in any batch,
with any BLAS, on any machine. The basis is therefore rounded to integers of `_basis_bits` bits. `slack` accounts for
that and for the rounding to float16.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import log2, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.inner_product import inner_product_join
from pipeline.dedup.joins.streaming import map_in_order
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Positions, number_or_nan
from pipeline.hashing import flat, pixel_sums

Shape = tuple[int, ...]
Doubles = NDArray[np.float64]
Halves = NDArray[np.float16]

# Numbers in a short vector: coordinates and the length of the rest.
WIDTH = 128

_MIN_THRESHOLD, _MAX_THRESHOLD = 0.80, 1.0

_GRID = 32
# A colour difference is treated as if its frequency were higher, because it has less energy.
_COLOUR_COST = 0.05
# The DCT-II of three values in integers: gray, red minus blue, both minus green. Their lengths are divided out later.
_COLOUR_BASES = {1: np.ones((1, 1)), 3: np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])}
_COLOUR_BITS = 2
# float16 has 11 bits; below 2^-14 it has an absolute precision of 2^-25.
_FLOAT16_ERROR = 2.0**-11 + WIDTH**0.5 * 2.0**-25

# Pixel values in one block of images to describe, and bytes of images in one block of pairs to score.
_DESCRIBED_VALUES = 2**20
_SCORED_BYTES = 2**19
# Number of products of 8-bit values (16 bits each) whose sum fits in 32 bits.
_PRODUCTS_IN_32_BITS = (2**32 - 1) // 255**2
# Up to this many values, n^2 times a covariance, at most n^2 255^2 / 4, fits in 63 bits.
_MAX_EXACT_VALUES = 2**24


def rule(parameter: str | None) -> "Cosine":
    """Make the rule.

    Args:
        parameter: the minimum score, such as "0.95".

    Returns:
        The rule.

    Raises:
        ValueError: the parameter is not a number from 0.80 to 1.
    """
    threshold = number_or_nan(parameter or "")
    if not _MIN_THRESHOLD <= threshold <= _MAX_THRESHOLD:
        raise ValueError("it takes the minimum cosine, 0.80 to 1; write cosine:0.95")
    return Cosine(threshold)


@dataclass(frozen=True)
class Cosine:
    """The rule, ready to run; see `Comparison`.

    Attributes:
        least: minimum score of a pair.
    """

    least: float

    @property
    def equal_signatures(self) -> bool:
        """True: equal constant images are duplicates without being paired."""
        return True

    def index(self, pixels: Pixels) -> Entries:
        """Make the entries of images of one shape: the key is the shape, the vector `WIDTH` float16."""
        key = np.full(len(pixels), shape_key(pixels.shape[1:]), dtype=np.int64)
        vector = describe(pixels)
        # The signature of a constant image is its value plus 1; that of any other image is 0.
        first = flat(pixels)[:, 0].astype(np.int64) + 1
        return Entries(key, np.where(vector.any(axis=1), 0, first), vector.view(np.uint8))

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair whose bound reaches the minimum score, shape by shape."""
        other = left if right is None else right
        for key in np.intersect1d(left.key, other.key).tolist():
            one = _positions(left, key)
            two = one if right is None else _positions(right, key)
            a = _vectors(left.vector[one])
            b = None if right is None else _vectors(right.vector[two])
            for i, j in inner_product_join(a, b, self.least - slack(key)):
                yield Candidates(one[i], two[j], None)

    def verify(self, pixels: Pixels, left: Positions, right: Positions) -> NDArray[np.float32]:
        """Score pairs of images; see `correlations`.

        Returns:
            (p,) float32, -1 to 1; exactly -1 for a pair below the minimum score, because rounding its score to float32
            could raise it to the minimum.
        """
        moments = _moments(pixels)
        step = max(1, _SCORED_BYTES // max(1, pixels[:1].nbytes))
        slices = [slice(start, start + step) for start in range(0, len(left), step)]
        parts = map_in_order(lambda part: _correlations(pixels, moments, left[part], right[part]), slices)
        scores = np.concatenate([np.empty(0), *parts])
        return np.where(scores < self.least, np.float32(-1), scores.astype(np.float32))


def correlations(left: Pixels, right: Pixels) -> Doubles:
    """Score pairs of images by the rule's formula.

    Args:
        left: (p, height, width, channels) uint8.
        right: the same shape; row i is compared with row i of `left`.

    Returns:
        (p,) float64, -1 to 1 up to rounding.
    """
    both = np.concatenate([left, right])
    rows = np.arange(len(left))
    return _correlations(both, _moments(both), rows, rows + len(left))


def describe(pixels: Pixels) -> Halves:
    """Compute the short vectors of images of one shape.

    Args:
        pixels: (n, height, width, channels) uint8.

    Returns:
        (n, WIDTH) float16, of length 1 or less up to `slack`; zero if and only if the image is constant.
    """
    shape = pixels.shape[1:]
    out = np.empty((len(pixels), WIDTH), dtype=np.float16)
    step = max(1, _DESCRIBED_VALUES // max(1, prod(shape)))
    for start in range(0, len(pixels), step):
        out[start : start + step] = _describe_block(pixels[start : start + step])
    return out


def slack(key: int) -> float:
    """Bound how far the correlation of two images of a shape can exceed the inner product of their short vectors.

    If coordinates err by e in length, and the rest is rounded up accordingly, the bound is 2 e + e^2.

    Args:
        key: the shape, see `shape_key`.
    """
    error = _coordinate_error((key >> 35, (key >> 7) & (2**28 - 1), key & 0x7F))
    return 2 * error + error * error


def shape_key(shape: Shape) -> int:
    """Pack (height, width, channels) into 63 bits: 28, 28 and 7."""
    height, width, channels = shape
    return (height << 35) | (width << 7) | channels


class _Moments(NamedTuple):
    """Moments of n images of m values: sums, m^2 times the variances, and whether an image is constant; (n,) each."""

    sums: Positions
    variances: Doubles
    constant: NDArray[np.bool_]


def _moments(pixels: Pixels) -> _Moments:
    rows = flat(pixels)
    sums, squares = pixel_sums(pixels)
    variances = _covariance(rows.shape[1], squares, sums, sums)
    return _Moments(sums, variances, rows.max(axis=1) == rows.min(axis=1))


def _correlations(pixels: Pixels, moments: _Moments, i: Positions, j: Positions) -> Doubles:
    rows = flat(pixels)
    covariance = _covariance(
        rows.shape[1], _inner_products(rows.take(i, axis=0), rows.take(j, axis=0)), moments.sums[i], moments.sums[j]
    )
    constant = moments.constant[i] | moments.constant[j]
    length = np.sqrt(np.where(constant, 1.0, moments.variances[i]) * np.where(constant, 1.0, moments.variances[j]))
    scores: Doubles = np.where(constant, 0.0, covariance / length)
    return scores


def _covariance(count: int, products: Positions, left: Positions, right: Positions) -> Doubles:
    """Compute count * products - left * right: exactly, then rounded once, if the result fits in 63 bits."""
    if count <= _MAX_EXACT_VALUES:
        # Intermediate values may overflow, but the difference is correct modulo 2^64.
        return (count * products - left * right).astype(np.float64)
    return count * products.astype(np.float64) - left.astype(np.float64) * right.astype(np.float64)


def _inner_products(a: Pixels, b: Pixels) -> Positions:
    """Compute the inner products of rows, exactly."""
    total = np.zeros(len(a), dtype=np.int64)
    for start in range(0, a.shape[1], _PRODUCTS_IN_32_BITS):
        part = slice(start, start + _PRODUCTS_IN_32_BITS)
        total += np.multiply(a[:, part], b[:, part], dtype=np.uint16).sum(axis=1, dtype=np.uint32)
    return total


def _positions(entries: Entries, key: int) -> Positions:
    """Find the images of a shape that are not constant."""
    return np.flatnonzero((entries.key == key) & (entries.signature == 0))


def _vectors(rows: Pixels) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows).view(np.float16).reshape(len(rows), WIDTH).astype(np.float32)


def _describe_block(pixels: Pixels) -> Halves:
    shape = pixels.shape[1:]
    n = prod(shape)
    rows = flat(pixels)
    varied = rows.max(axis=1) != rows.min(axis=1)
    totals = rows.sum(axis=1, dtype=np.uint32 if n <= _MAX_EXACT_VALUES else np.uint64).astype(np.float64)
    # Subtract the rounded mean first and its fraction later, so that the sums in between are exact.
    means = np.rint(totals / n)
    values = rows.astype(np.float64)
    values -= means[:, None]
    sums, squares = totals - n * means, np.vecdot(values, values)
    length = np.sqrt(np.where(varied, squares - sums * sums / n, 1.0))
    coordinates = _coordinates(values.reshape(pixels.shape)) - (sums / n)[:, None] * _coordinates_of_ones(shape)
    rounded = (coordinates / length[:, None]).astype(np.float16)
    out = np.zeros((len(pixels), WIDTH), dtype=np.float16)
    out[:, : rounded.shape[1]] = rounded
    out[:, -1] = _rest_length(rounded, _coordinate_error(shape))
    out[~varied] = 0
    return out


def _rest_length(coordinates: Halves, error: float) -> Halves:
    """Bound from above the length that coordinates leave out, if they err by at most `error` in length."""
    known = np.maximum(0.0, np.linalg.norm(coordinates.astype(np.float64), axis=1) - error)
    rest = np.sqrt(np.maximum(0.0, 1.0 - known**2))
    rounded = rest.astype(np.float16)
    up: Halves = np.nextafter(rounded, np.float16(2))
    return np.where(rounded.astype(np.float64) < rest, up, rounded)


def _coordinates(values: Doubles) -> Doubles:
    """Write images in the chosen coordinates: exact sums of integers, scaled once."""
    count, height, width, channels = values.shape
    rows, columns, colours, chosen, scale = _basis((height, width, channels))
    projected = np.moveaxis(values, 3, 1).reshape(-1, width) @ columns.T
    projected = np.swapaxes(projected.reshape(count * channels, height, -1), 1, 2).reshape(-1, height) @ rows.T
    mixed = projected.reshape(count, channels, -1)
    if channels > 1:
        mixed = np.einsum("kc,ncf->nkf", colours, mixed)
    coordinates: Doubles = mixed.reshape(count, -1)[:, chosen] * scale
    return coordinates


@lru_cache(maxsize=64)
def _coordinates_of_ones(shape: Shape) -> Doubles:
    return _coordinates(np.ones((1, *shape)))


@lru_cache(maxsize=64)
def _basis(shape: Shape) -> tuple[Doubles, Doubles, Doubles, Positions, Doubles]:
    """Make the integer bases of rows, columns and colours, the products to keep, and their factors to length 1."""
    height, width, channels = shape
    frequencies = _lowest_frequencies(shape)
    colours, columns, rows = np.unravel_index(frequencies, (channels, min(width, _GRID), min(height, _GRID)))
    sizes = (channels, int(columns.max(initial=0)) + 1, int(rows.max(initial=0)) + 1)
    unit = 2.0 ** _basis_bits(shape)
    colour_basis = _COLOUR_BASES[channels]
    scale = unit**-2 / np.linalg.norm(colour_basis, axis=1)[colours]
    row_basis, column_basis = (
        np.rint(_grid_cosines(size, count) * unit) for size, count in ((height, sizes[2]), (width, sizes[1]))
    )
    return row_basis, column_basis, colour_basis, np.ravel_multi_index((colours, columns, rows), sizes), scale


def _lowest_frequencies(shape: Shape) -> Positions:
    """Choose the lowest frequencies, as flat positions in (colour, column frequency, row frequency)."""
    height, width, channels = shape
    u, v = np.arange(min(height, _GRID)) / height, np.arange(min(width, _GRID)) / width
    cost = u**2 + v[:, None] ** 2 + (_COLOUR_COST * (np.arange(channels) > 0))[:, None, None]
    # The first one is the mean, which is 0 for centred images.
    return np.sort(np.argsort(cost, axis=None, kind="stable")[1:WIDTH])


def _basis_bits(shape: Shape) -> int:
    """Choose the bits of the row and column bases, so that every sum stays below 2^53.

    By Cauchy-Schwarz a sum of h w values of at most 2^8 with weights of length 1 is at most 2^8 sqrt(h w), and so is
    every partial sum. Colours take 2 bits, and one bit is spare.
    """
    return int(min(20, (53 - 8 - _COLOUR_BITS - 1 - log2(shape[0] * shape[1]) / 2) // 2))


@lru_cache(maxsize=64)
def _coordinate_error(shape: Shape) -> float:
    """Bound the error, in length, of the coordinates of a unit vector: from the rounded bases and from float16."""
    rows, columns = _basis(shape)[:2]
    unit = 2.0 ** -_basis_bits(shape)
    errors = [
        float(np.linalg.norm(basis * unit - _grid_cosines(size, len(basis))))
        for basis, size in ((rows, shape[0]), (columns, shape[1]))
    ]
    # A product of bases that err by a and b in norm errs by at most (1 + a)(1 + b) - 1.
    combined = prod(1 + error for error in errors) - 1
    return float(combined + _FLOAT16_ERROR * (1 + combined) + 1e-9)


@lru_cache(maxsize=64)
def _grid_cosines(size: int, count: int) -> Doubles:
    """Compute low frequencies of an orthonormal DCT-II over the cells of a grid, as functions of the pixels: rows."""
    cells = min(size, _GRID)
    widths = np.diff(np.arange(cells + 1) * size // cells)
    return np.repeat(_cosines(count, cells) / np.sqrt(widths), widths, axis=1)


def _cosines(count: int, size: int) -> Doubles:
    """Compute the first rows of the orthonormal DCT-II."""
    x, frequency = np.arange(size) + 0.5, np.arange(count)[:, None]
    rows: Doubles = np.cos(np.pi * frequency * x / size) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return rows
