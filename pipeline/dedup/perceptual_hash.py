"""Perceptual hashes: 64 bits per image; images that look alike have hashes with a small Hamming distance.

All arithmetic is in integers, without division and without BLAS. A hash is therefore a pure function of an image's
height, width and gray values: it is the same in every batch, on every machine and with any number of threads. (BLAS
would be exact too, but its threads wait for one another: it takes 20 times as long if workers keep all cores busy.)

The hashes follow the methods below but are not bit-compatible with any library, because libraries round differently
when they resize.

References:
    C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010: the DCT hash.
    N. Krawetz, "Kind of Like That", hackerfactor.com, 2013: the gradient hash.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Matrix = NDArray[np.int64]

_WHITE = 255


def two_sided(left: Matrix, images: Pixels, right: Matrix) -> Matrix:
    """Compute `left @ image @ right.T` for every image, exactly.

    Images become the innermost axis, so that the loops of `einsum` run along it. For integers it does not call BLAS.

    Args:
        left: (rows, height) int64.
        images: (n, height, width) uint8.
        right: (columns, width) int64.

    Returns:
        (n, rows, columns) int64.

    Raises:
        ValueError: the images have so many pixels that sums could overflow 63 bits.
    """
    n, height, width = images.shape
    row_bound = _WHITE * int(np.abs(left).sum(axis=1).max())
    first, second = _integer_type(row_bound), _integer_type(row_bound * int(np.abs(right).sum(axis=1).max()))
    turned = np.ascontiguousarray(images.reshape(n, height * width).T).reshape(height, width, n)
    half = np.einsum("rh,hwn->rwn", left.astype(first), turned.astype(first))
    whole = np.einsum("cw,rwn->rcn", right.astype(second), half.astype(second))
    values = whole.astype(np.int64).reshape(-1, n)
    return np.ascontiguousarray(values.T).reshape(n, len(left), len(right))


def _integer_type(bound: int) -> type[np.int32] | type[np.int64]:
    """Choose the smaller type that holds sums up to a bound: int32 is about four times as fast."""
    if bound > np.iinfo(np.int64).max:
        raise ValueError("an image has too many pixels for an exact perceptual hash; scale it down to 2^28 pixels")
    return np.int32 if bound <= np.iinfo(np.int32).max else np.int64


@lru_cache(maxsize=64)
def area_weights(cells: int, size: int) -> Matrix:
    """Compute how much of each pixel lies in each cell, for resizing along one axis.

    Weights are in units of 1/cells of a pixel, so that all are integers. Cell c covers pixels c * size / cells to
    (c + 1) * size / cells, with a part of the pixels at its borders. There may be more pixels than cells or fewer.

    Args:
        cells: number of cells that the axis is cut into.
        size: number of pixels along the axis.

    Returns:
        (cells, size) int64; rows sum to size, columns to cells.

    Raises:
        ValueError: size is 0.
    """
    if size < 1:
        raise ValueError("an image without pixels has no perceptual hash")
    cell, pixel = np.arange(cells)[:, None], np.arange(size)[None, :]
    start, end = np.maximum(cell * size, pixel * cells), np.minimum((cell + 1) * size, (pixel + 1) * cells)
    return np.asarray(np.maximum(end - start, 0), np.int64)


Words = NDArray[np.uint64]

# The DCT is computed of 32 x 32 cells; the hash uses its 8 x 8 lowest frequencies.
_SIDE = 32
_HASH_SIDE = 8
# The basis is in units of 2^-11, so that images of up to 2^28 pixels have sums below 2^63.
_BASIS_UNIT = 2**11

# Weights of red, green and blue in 1/65536, and the half that rounds: the same as Pillow's.
_LUMA = (19595, 38470, 7471)
_LUMA_HALF = 2**15
_LUMA_SHIFT = 16

# Bytes of gray pixels in one block. Temporary arrays of this size stay in the processor's cache.
_BLOCK_BYTES = 2**17


def dct_hashes(pixels: Pixels) -> Words:
    """Hash images by which of their low frequencies are strong (pHash).

    The image is converted to gray (`gray`) and resized to 32 x 32 by area (`area_weights`). The 8 x 8 lowest
    frequencies of its orthonormal DCT-II (basis rounded to 2^-11) are compared with the median of the 63 that are not
    the DC term; a bit is 1 if the coefficient is above it. Bits are ordered by vertical, then horizontal frequency,
    most significant first. The first bit is the DC term's; it is 1 for nearly all images that are not black.

    At most 31 of the other bits are 1, and exactly 31 if no two coefficients are equal, so most distances are even. A
    constant image hashes to 2^63, a black image to 0.

    Args:
        pixels: (n, height, width, channels) uint8, height and width 1 or more; see `gray` for channels.

    Returns:
        (n,) uint64, in the order of the pixels.

    Raises:
        ValueError: a side is 0, or an image has more than about 2^28 pixels, so that sums would not be exact.
    """
    height, width = pixels.shape[1:3]
    down, across = _dct_basis() @ area_weights(_SIDE, height), _dct_basis() @ area_weights(_SIDE, width)
    middle = (_HASH_SIDE * _HASH_SIDE - 1) // 2
    words = np.empty(len(pixels), np.uint64)
    for part in _blocks(pixels):
        coefficients = two_sided(down, gray(pixels[part]), across).reshape(-1, _HASH_SIDE * _HASH_SIDE)
        median = np.partition(coefficients[:, 1:], middle, axis=1)[:, middle]
        words[part] = _pack(coefficients > median[:, None])
    return words


def gradient_hashes(pixels: Pixels) -> Words:
    """Hash images by where they become lighter from left to right (dHash).

    The image is converted to gray (`gray`) and resized to 8 rows of 9 by area (`area_weights`); a bit is 1 if the right
    one of two neighbours is lighter. Bits are ordered by rows, then columns, most significant first. A constant image
    hashes to 0.

    Args:
        pixels: (n, height, width, channels) uint8, height and width 1 or more; see `gray` for channels.

    Returns:
        (n,) uint64, in the order of the pixels.

    Raises:
        ValueError: a side is 0, or an image has so many pixels that sums would not be exact (over 2^54).
    """
    height, width = pixels.shape[1:3]
    down, across = area_weights(_HASH_SIDE, height), area_weights(_HASH_SIDE + 1, width)
    words = np.empty(len(pixels), np.uint64)
    for part in _blocks(pixels):
        means = two_sided(down, gray(pixels[part]), across)
        words[part] = _pack(means[:, :, 1:] > means[:, :, :-1])
    return words


def gray(pixels: Pixels) -> Pixels:
    """Convert images to gray exactly as Pillow's `convert("L")` does.

    Three channels or more: (19595 R + 38470 G + 7471 B + 32768) // 65536, the luma of ITU-R BT.601; a fourth channel is
    ignored. One or two channels: the first one, unchanged. Three equal channels give that channel.

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
    """Cut a batch so that a block of gray images fits the cache."""
    step = max(1, _BLOCK_BYTES // math.prod(pixels.shape[1:3]))
    return [slice(start, start + step) for start in range(0, len(pixels), step)]


def _pack(bits: NDArray[np.bool_]) -> Words:
    """Pack (n, ...) bits, 64 per image, the first one to the most significant bit: (n,) uint64."""
    return np.packbits(bits.reshape(len(bits), -1), axis=1).view(">u8")[:, 0].astype(np.uint64)


@lru_cache(maxsize=1)
def _dct_basis() -> Matrix:
    """Compute the first 8 rows of the orthonormal DCT-II of 32 values, in units of 2^-11: (8, 32) int64.

    Every row except the first sums to exactly 0: its values come in pairs of opposite sign. No value is within 0.01 of
    a half, so the rounding does not depend on the cosine of the platform. A golden test fixes the values.
    """
    frequency, position = np.arange(_HASH_SIDE)[:, None], np.arange(_SIDE)[None, :]
    waves = np.cos(np.pi * ((2 * position + 1) * frequency % (4 * _SIDE)) / (2 * _SIDE))
    scale = np.where(frequency == 0, math.sqrt(1 / _SIDE), math.sqrt(2 / _SIDE))
    return np.asarray(np.rint(waves * scale * _BASIS_UNIT), np.int64)
