"""Descriptors and their views -> pairs: the complete join by the best of several inner products.

Whitened descriptors put no direction before another, so no prefix of them bounds the whole: all products are made, a
block that stays in the cache at a time, and only their maximum is searched.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.stripes import in_order
from pipeline.dedup.joins.vectors import rounding

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

_ROWS, _COLUMNS = 256, 1024
_STRIPE = 1024


def near_by_views(left: Floats, right: Floats | None, threshold: float) -> Iterator[tuple[Places, Places]]:
    """Find every pair whose best inner product reaches a threshold, and perhaps some just below it.

    Products are made of the left descriptor with the right one, of each view of the left with the right descriptor, and
    of the left descriptor with each view of the right: the best of them does not depend on which side is which.

    Args:
        left: (1 + views, n, d) float32, no longer than 1: the descriptors, then their views.
        right: (1 + views, m, d) float32 likewise; None for the left side itself.
        threshold: above 0. No pair at it is missed; see `vectors.rounding`.

    Yields:
        Positions i in left and j in right, int64; for the left side itself i < j. Every pair once, ordered by stripes
        of i.
    """
    other = left if right is None else right
    if not left.shape[1] or not other.shape[1]:
        return
    cut = threshold - rounding(left.shape[2])
    starts = range(0, left.shape[1], _STRIPE)
    yield from in_order(lambda start: _stripe(left, other, start, cut, itself=right is None), starts)


def best_products(left: Floats, right: Floats) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make the products of pairs row by row, in float64.

    Args:
        left: (1 + views, p, d) float32.
        right: the same shape.

    Returns:
        (p,) float64 the best product, and (p,) int64 which: 0 for the descriptors, v for view v of the left, views + v
        for view v of the right; the first of equal ones.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    mine, theirs = np.einsum("vpd,pd->pv", a, b[0]), np.einsum("pd,vpd->pv", a[0], b[1:])
    products = np.concatenate([mine, theirs], axis=1)
    which = products.argmax(axis=1)
    return products[np.arange(len(products)), which], which


def _stripe(left: Floats, right: Floats, start: int, cut: float, *, itself: bool) -> tuple[Places, Places]:
    stop = min(start + _STRIPE, left.shape[1])
    found: list[tuple[Places, Places]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    space = np.empty((2, _ROWS * _COLUMNS), dtype=np.float32)
    for column in range(start if itself else 0, right.shape[1], _COLUMNS):
        b = right[:, column : column + _COLUMNS]
        for row in range(start, stop, _ROWS):
            best = _best(left[:, row : min(row + _ROWS, stop)], b, space)
            i, j = np.divmod(np.flatnonzero(best >= np.float32(cut)), b.shape[1])
            i, j = i + row, j + column
            keep = i < j if itself else slice(None)
            found.append((i[keep], j[keep]))
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def _best(a: Floats, b: Floats, space: Floats) -> Floats:
    """Make all products of two blocks and keep the best of each pair, in the space given: (rows, columns)."""
    size, shape = a.shape[1] * b.shape[1], (a.shape[1], b.shape[1])
    best: Floats = space[0, :size].reshape(shape)
    next_ = space[1, :size].reshape(shape)
    np.matmul(a[0], b[0].T, out=best)
    for view in range(1, len(a)):
        np.maximum(best, np.matmul(a[view], b[0].T, out=next_), out=best)
        np.maximum(best, np.matmul(a[0], b[view].T, out=next_), out=best)
    return best
