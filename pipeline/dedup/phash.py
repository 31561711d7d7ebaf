"""Perceptual hashes: 64 bits a picture, close in Hamming distance where pictures look alike.

Exact by construction. Every sum is a sum of whole numbers whose partial sums all fit the float they are kept in (2^24 in
float32, 2^53 in float64), so it comes out the same in any order: for every BLAS, batch size, number of threads and machine.
The one division is by IEEE 754, which rounds correctly everywhere. A hash is therefore a pure function of height, width
and gray values.

References:
    C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010: the DCT hash.
    N. Krawetz, "Kind of Like That", hackerfactor.com, 2013: the gradient hash.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Words = NDArray[np.uint64]

# The DCT sees 32 x 32 cells, each a mean in 1/256 of a gray level, and keeps its 8 x 8 lowest frequencies.
_SIDE = 32
_KEPT = 8
_LEVELS = 256
# The basis in units of 2^-15: 256 * 255 * (sum of |basis| over a row, below 2^18)^2 is below 2^52.
_BASIS_UNIT = 2**15

# Weights of red, green and blue in 1/65536, and half of that to round: Pillow's own.
_LUMA = (19595, 38470, 7471)
_LUMA_HALF = 2**15
_LUMA_SHIFT = 16

# Sums below these bounds are exact in the float.
_EXACT = ((np.float32, 2**24), (np.float64, 2**53))
# Bytes of work at a time, so that it stays in the processor's cache.
_CACHED = 2**19


def dct_hashes(pixels: Pixels) -> Words:
    """Hash pictures by the signs of their low frequencies (pHash).

    Gray (`gray`); the means of 32 x 32 cells (`_cell_sums`), rounded down to 1/256 of a gray level; the orthonormal
    DCT-II of these, its basis rounded to 2^-15; the 8 x 8 coefficients of the lowest frequencies. A bit is 1 where its
    coefficient is above the median of the 63 that are not the DC term. Bits are in the order of (vertical, horizontal)
    frequency, the most significant first; that one is the DC term's, compared like the others: 1 for nearly all pictures.

    At most 31 of the other bits are 1, and exactly 31 where no coefficient equals the median: distances between pictures
    are nearly always even. A constant picture hashes to 2^63, a black one to 0.

    Args:
        pixels: (n, height, width, channels) uint8, height and width 1 or more; see `gray` for channels.

    Returns:
        (n,) uint64, in the order of the pixels.

    Raises:
        ValueError: a side is 0, or a picture has so many pixels that sums would not be exact (2^37).
    """
    basis = _basis().astype(np.float64)

    def bits(sums: NDArray[Any]) -> NDArray[np.bool_]:
        means = sums.astype(np.float64)
        means *= _LEVELS
        means /= pixels.shape[1] * pixels.shape[2]
        np.floor(means, out=means)
        found = _two_sided(basis, means, basis).reshape(-1, _KEPT * _KEPT)
        median = np.partition(found[:, 1:], _KEPT * _KEPT // 2 - 1, axis=1)[:, _KEPT * _KEPT // 2 - 1]
        return np.asarray(found > median[:, None])

    return _hashes(pixels, (_SIDE, _SIDE), bits)


def gradient_hashes(pixels: Pixels) -> Words:
    """Hash pictures by where they grow lighter from left to right (dHash).

    Gray (`gray`); the sums of 8 x 9 cells (`_cell_sums`), not rounded; a bit is 1 where the cell to the right is
    lighter. Bits are in the order of rows, then columns, the most significant first. A constant picture hashes to 0.

    Args:
        pixels: (n, height, width, channels) uint8, height and width 1 or more; see `gray` for channels.

    Returns:
        (n,) uint64, in the order of the pixels.

    Raises:
        ValueError: a side is 0, or a picture has so many pixels that sums would not be exact (2^37).
    """
    return _hashes(pixels, (_KEPT, _KEPT + 1), lambda sums: sums[:, :, 1:] > sums[:, :, :-1])


def gray(pixels: Pixels) -> Pixels:
    """Turn pictures gray as Pillow's `convert("L")` does, to the bit.

    Three channels or more: (19595 R + 38470 G + 7471 B + 32768) // 65536, the luma of ITU-R BT.601; a fourth is not
    looked at. One or two: the first as it is. Three equal channels give that channel.

    Args:
        pixels: (n, height, width, channels) uint8, one channel or more.

    Returns:
        (n, height, width) uint8.
    """
    if pixels.shape[3] < len(_LUMA):
        return pixels[..., 0]
    total = np.full(pixels.shape[:3], _LUMA_HALF, np.uint32)
    for channel, weight in enumerate(_LUMA):
        total += pixels[..., channel] * np.uint32(weight)
    return (total >> np.uint32(_LUMA_SHIFT)).astype(np.uint8)


def _hashes(pixels: Pixels, cells: tuple[int, int], bits: Callable[[NDArray[Any]], NDArray[np.bool_]]) -> Words:
    """Hash block by block: `bits` turns (n, rows, columns) sums of cells into n * 64 bits."""
    n, height, width = pixels.shape[:3]
    bound = _LEVELS * 255 * height * width
    if not 0 < bound < _EXACT[-1][1]:
        raise ValueError(f"pictures of {height} x {width} pixels have no perceptual hash: 1 to 2^37 pixels do")
    words = np.empty(n, np.uint64)
    step = max(1, _CACHED // (8 * max(height * width, math.prod(cells))))
    for start in range(0, n, step):
        found = bits(_cell_sums(gray(pixels[start : start + step]), cells))
        packed = np.packbits(found.reshape(len(found), -1), axis=1)
        words[start : start + step] = packed.view(">u8")[:, 0]
    return words


def _cell_sums(pictures: Pixels, cells: tuple[int, int]) -> NDArray[Any]:
    """Resize by area: a cell's sum of the pixels it covers, a pixel that it covers in part counting in part.

    In units of one pixel's area / (rows * columns): every weight is a whole number, and a cell's weights add up to
    height * width, so that sum / (height * width) is the cell's mean.

    Args:
        pictures: (n, height, width) uint8.
        cells: (rows, columns).

    Returns:
        (n, rows, columns) float32 or float64, the smaller in which all sums are exact.
    """
    height, width = pictures.shape[1:]
    kind = next(kind for kind, exact in _EXACT if 255 * height * width < exact)
    down, across = _area_weights(cells[0], height), _area_weights(cells[1], width)
    return _two_sided(down.astype(kind), pictures.astype(kind), across.astype(kind))


def _two_sided(left: NDArray[Any], middle: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Compute `left @ middle[i] @ right.T` for every i, by two large products instead of 2 n small ones."""
    n, rows, columns = middle.shape
    half = (middle.reshape(n * rows, columns) @ right.T).reshape(n, rows, len(right))
    turned = np.ascontiguousarray(half.transpose(0, 2, 1)).reshape(n * len(right), rows)
    return (turned @ left.T).reshape(n, len(right), len(left)).transpose(0, 2, 1)


@lru_cache(maxsize=64)
def _area_weights(cells: int, size: int) -> NDArray[np.int64]:
    """Tell how much of each pixel lies in each cell: (cells, size) int64 in 1/cells of a pixel, rows sum to size."""
    cell, pixel = np.arange(cells)[:, None], np.arange(size)[None, :]
    end = np.minimum((cell + 1) * size, (pixel + 1) * cells)
    return np.asarray(np.maximum(end - np.maximum(cell * size, pixel * cells), 0))


@lru_cache(maxsize=1)
def _basis() -> NDArray[np.int64]:
    """Make the first 8 rows of the orthonormal DCT-II of 32 values, in 2^-15: (8, 32) int64.

    Rows but the first sum to 0 exactly: their values come in pairs of opposite sign, and are rounded alike. No value
    lies so near to a half that a library's cosine could round it to another number; a golden test holds them.
    """
    frequency, place = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None, :]
    waves = np.cos(np.pi * ((2 * place + 1) * frequency % (4 * _SIDE)) / (2 * _SIDE))
    scale = np.where(frequency == 0, math.sqrt(1 / _SIDE), math.sqrt(2 / _SIDE))
    return np.rint(waves * scale * _BASIS_UNIT).astype(np.int64)
