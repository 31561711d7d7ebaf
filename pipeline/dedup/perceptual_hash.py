"""Perceptual hashes: 64 bits a picture, close in Hamming distance where pictures look alike.

Exact: from the pixels to the bits all is whole numbers, without a division and without BLAS. A hash is a pure function
of a picture's height, width and gray values: the same in every batch, on every machine and with any number of threads.
(BLAS would be exact too, but its threads wait for one another: 20 times as long where workers keep all cores busy.)

The hashes follow the ideas named below, not the bits of any library: those depend on how it rounds when it resizes.

References:
    C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010: the DCT hash.
    N. Krawetz, "Kind of Like That", hackerfactor.com, 2013: the gradient hash.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.resize import area_weights, two_sided

Pixels = NDArray[np.uint8]
Words = NDArray[np.uint64]
Matrix = NDArray[np.int64]

# The DCT is of 32 x 32 cells; a hash is of its 8 x 8 lowest frequencies.
_SIDE = 32
_KEPT = 8
# The basis is in units of 2^-11, so that pictures of up to 2^28 pixels have sums below 2^63.
_BASIS_UNIT = 2**11

# Weights of red, green and blue in 1/65536, and half of that to round: Pillow's own.
_LUMA = (19595, 38470, 7471)
_LUMA_HALF = 2**15
_LUMA_SHIFT = 16

# Bytes of gray pixels worked on at a time, so that what is made of them stays in the processor's cache.
_CACHED = 2**17


def dct_hashes(pixels: Pixels) -> Words:
    """Hash pictures by which of their low frequencies are strong (pHash).

    The picture is made gray (`gray`) and resized to 32 x 32 by area (`area_weights`). Of the orthonormal DCT-II of
    that, its basis rounded to 2^-11, the 8 x 8 lowest frequencies are kept. A bit is 1 where the coefficient is above
    the median of the 63 that are not the DC term. Bits are in the order of vertical, then horizontal frequency, the
    most significant first. That one is the DC term's, compared like the others: 1 but for black and few other pictures.

    Of the other bits at most 31 are 1, and exactly 31 where no two coefficients are equal: distances are mostly even.
    A constant picture hashes to 2^63, a black one to 0.

    Args:
        pixels: (n, height, width, channels) uint8, height and width 1 or more; see `gray` for channels.

    Returns:
        (n,) uint64, in the order of the pixels.

    Raises:
        ValueError: a side is 0, or a picture has more than about 2^28 pixels, so that sums would not be exact.
    """
    height, width = pixels.shape[1:3]
    down, across = _basis() @ area_weights(_SIDE, height), _basis() @ area_weights(_SIDE, width)
    middle = (_KEPT * _KEPT - 1) // 2
    words = np.empty(len(pixels), np.uint64)
    for part in _blocks(pixels):
        found = two_sided(down, gray(pixels[part]), across).reshape(-1, _KEPT * _KEPT)
        median = np.partition(found[:, 1:], middle, axis=1)[:, middle]
        words[part] = _packed(found > median[:, None])
    return words


def gradient_hashes(pixels: Pixels) -> Words:
    """Hash pictures by where they grow lighter from left to right (dHash).

    The picture is made gray (`gray`) and resized to 8 rows of 9 by area (`area_weights`); a bit is 1 where the right
    of two neighbours is lighter. Bits are in the order of rows, then columns, the most significant first. A constant
    picture hashes to 0.

    Args:
        pixels: (n, height, width, channels) uint8, height and width 1 or more; see `gray` for channels.

    Returns:
        (n,) uint64, in the order of the pixels.

    Raises:
        ValueError: a side is 0, or a picture has so many pixels that sums would not be exact (over 2^54).
    """
    height, width = pixels.shape[1:3]
    down, across = area_weights(_KEPT, height), area_weights(_KEPT + 1, width)
    words = np.empty(len(pixels), np.uint64)
    for part in _blocks(pixels):
        means = two_sided(down, gray(pixels[part]), across)
        words[part] = _packed(means[:, :, 1:] > means[:, :, :-1])
    return words


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


def _blocks(pixels: Pixels) -> list[slice]:
    """Cut a batch so that a block of gray pictures fits the cache."""
    step = max(1, _CACHED // math.prod(pixels.shape[1:3]))
    return [slice(start, start + step) for start in range(0, len(pixels), step)]


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (n, ...) bits, 64 a picture, the first to the most significant: (n,) uint64."""
    return np.packbits(bits.reshape(len(bits), -1), axis=1).view(">u8")[:, 0].astype(np.uint64)


@lru_cache(maxsize=1)
def _basis() -> Matrix:
    """Make the first 8 rows of the orthonormal DCT-II of 32 values, in units of 2^-11: (8, 32) int64.

    Every row but the first sums to 0 exactly: its values are in pairs of opposite sign, and rounded alike. None is
    within 0.01 of a half, so that no library's cosine can round it to another number; a golden test holds them.
    """
    frequency, place = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None, :]
    waves = np.cos(np.pi * ((2 * place + 1) * frequency % (4 * _SIDE)) / (2 * _SIDE))
    scale = np.where(frequency == 0, math.sqrt(1 / _SIDE), math.sqrt(2 / _SIDE))
    return np.asarray(np.rint(waves * scale * _BASIS_UNIT), np.int64)
