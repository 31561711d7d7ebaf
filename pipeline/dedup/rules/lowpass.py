"""Pictures -> short vectors whose inner product bounds the correlation of the pixels from above.

A picture is summed over the cells of a grid, and the sums are written in a two-dimensional cosine basis, low
frequencies first: both steps are orthonormal, so the coordinates are those of the picture's mean-centred unit vector in
an orthonormal family. The last number is the length of what they leave out. By Cauchy-Schwarz the inner product of two
such vectors is at least the correlation of the pictures, up to `slack`.

All sums are of integers below 2^53 in float64, which are exact in any order: the same picture gives the same vector in
any batch, with any BLAS, on any machine. The basis is therefore rounded to integers of `_bits` bits; that, and float16,
is what `slack` accounts for.
"""

from functools import lru_cache
from math import log2, prod

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import flat

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
