"""Resize by area in whole numbers: exact, so the same in any batch and on any machine."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Matrix = NDArray[np.int64]

_WHITE = 255


def two_sided(left: Matrix, pictures: Pixels, right: Matrix) -> Matrix:
    """Compute `left @ picture @ right.T` of every picture, exactly.

    Pictures become the innermost axis, so that the loops of `einsum` run along it; for whole numbers it calls no BLAS.

    Args:
        left: (rows, height) int64.
        pictures: (n, height, width) uint8.
        right: (columns, width) int64.

    Returns:
        (n, rows, columns) int64.
    """
    n, height, width = pictures.shape
    most = _WHITE * int(np.abs(left).sum(axis=1).max())
    first, second = _holding(most), _holding(most * int(np.abs(right).sum(axis=1).max()))
    turned = np.ascontiguousarray(pictures.reshape(n, height * width).T).reshape(height, width, n)
    half = np.einsum("rh,hwn->rwn", left.astype(first), turned.astype(first))
    whole = np.einsum("cw,rwn->rcn", right.astype(second), half.astype(second))
    values = whole.astype(np.int64).reshape(-1, n)
    return np.ascontiguousarray(values.T).reshape(n, len(left), len(right))


def _holding(bound: int) -> type[np.int32] | type[np.int64]:
    """Choose the smaller type that holds sums of at most this size: int32 is about four times as fast."""
    if bound > np.iinfo(np.int64).max:
        raise ValueError("a picture has too many pixels for an exact perceptual hash; make it smaller, to 2^28 pixels")
    return np.int32 if bound <= np.iinfo(np.int32).max else np.int64


@lru_cache(maxsize=64)
def area_weights(cells: int, size: int) -> Matrix:
    """Resize by area, along one axis: tell how much of each pixel lies in each cell.

    In 1/cells of a pixel, so that every weight is a whole number: cell c covers pixels c * size / cells to
    (c + 1) * size / cells, one at its border in part. It works for any size, more pixels than cells or fewer.

    Args:
        cells: how many cells the axis is cut into.
        size: how many pixels it has.

    Returns:
        (cells, size) int64; rows sum to size, columns to cells.
    """
    if size < 1:
        raise ValueError("a picture of no pixels has no perceptual hash")
    cell, pixel = np.arange(cells)[:, None], np.arange(size)[None, :]
    start, end = np.maximum(cell * size, pixel * cells), np.minimum((cell + 1) * size, (pixel + 1) * cells)
    return np.asarray(np.maximum(end - start, 0), np.int64)
