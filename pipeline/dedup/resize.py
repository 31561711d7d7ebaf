"""Resize images by area in integer arithmetic: the result is exact, so it is the same in any batch, on any machine."""

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
