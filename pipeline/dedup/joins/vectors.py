"""Run a join's stripes on every core, few at a time, and hand out what they find in order.

Vectors -> pairs: the complete join by inner product, most of it in a few of the dimensions.

Write two vectors in any orthonormal basis and cut it in two: `<x, y> = <a, b> + <rest of x, rest of y>`, and by
Cauchy-Schwarz the second term is at most `|rest of x| |rest of y|`. So `[a, |rest of x|] . [b, |rest of y|]` bounds the
inner product from above, and is an inner product itself, of few dimensions where the basis puts most of the vectors'
length first. Such products are made by BLAS in blocks that stay in the processor's cache; only pairs whose bound
reaches the threshold are looked at in full. The basis are principal components of a sample: it decides how fast the
join is, never what it finds.

References:
    Teflioudi, Gemulla, "Exact and approximate maximum inner product search with LEMP", TODS 42(1), 2016 (bounds by a
    prefix and the length of the rest). Anastasiu, Karypis, "L2AP: fast cosine similarity search with prefix L-2 norm
    bounds", ICDE 2014.

Descriptors and their views -> pairs: the complete join by the best of several inner products.

Whitened descriptors put no direction before another, so no prefix of them bounds the whole: all products are made, a
block that stays in the cache at a time, and only their maximum is searched.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

# How many threads; None for one on every core.
_THREADS: ContextVar[int | None] = ContextVar("threads", default=None)


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Map in threads: numpy works outside Python's lock. At most two results a core wait to be taken.

    While it runs, BLAS keeps to the thread it is called from: the cores are busy with one stripe each.
    """
    cores = _THREADS.get() or len(os.sched_getaffinity(0))
    waiting: deque[Future[Result]] = deque()
    with one_blas_thread(), ThreadPoolExecutor(cores) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def on_one_core() -> Iterator[None]:
    """Let what runs inside take one thread: the other cores are other workers'."""
    before = _THREADS.set(1)
    try:
        yield
    finally:
        _THREADS.reset(before)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep BLAS to the thread it is called from: small products only lose by waiting for another core."""
    limits: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limits


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    # Looking for the libraries takes longer than a small product.
    return ThreadpoolController()


Vectors = NDArray[np.float32]
Places = NDArray[np.int64]

# A block of products is one megabyte of float32: it is made and searched without leaving the cache.
_ROWS, _COLUMNS = 256, 1024
_STRIPE = 1024
_SAMPLE = 512
_PREFIXES = (4, 8, 12, 16, 24, 32, 48, 64, 96)
# Nanoseconds, in proportion, of a product of one more dimension, of a product at all, and of a pair looked at in full.
_A_DIMENSION, _A_PRODUCT, _A_LOOK = 0.016, 0.12, 250.0
_UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class Side:
    """Vectors of one side of a join.

    Attributes:
        full: (n, d) float32.
        short: (n, k + 1) float32, the first k coordinates in the basis and the length of the rest.
    """

    full: Vectors
    short: Vectors


def near_vectors(left: Vectors, right: Vectors | None, threshold: float) -> Iterator[tuple[Places, Places]]:
    """Find every pair of vectors whose inner product reaches a threshold, and perhaps some just below it.

    Guarantee: a pair whose inner product, in exact arithmetic, is at least `threshold` is found. A pair that is found
    has one of at least `threshold - 2 * rounding(d)`. Whoever needs the exact set looks at what is found again.

    Args:
        left: (n, d) float32, no longer than 1, or by a thousandth at most.
        right: (m, d) float32 likewise; None for the left side itself.
        threshold: above 0.

    Yields:
        Positions i in left and j in right, int64; for the left side itself i < j. Every pair once, ordered by stripes
        of i; memory beside the vectors is that of one stripe a core and of what it finds.
    """
    other = left if right is None else right
    if not len(left) or not len(other):
        return
    cut = threshold - rounding(left.shape[1])
    one, two = _sides(left, right, cut)
    starts = range(0, len(left), _STRIPE)
    for i, j in in_order(lambda start: _stripe(one, two, start, cut, itself=right is None), starts):
        if len(i):
            yield i, j


def rounding(dimensions: int) -> float:
    """Bound what float32 can do to a bound or to an inner product of vectors no longer than 1.

    Coordinates are rounded once from float64 (u = 2^-24 of the vector's length), a product of d of them in any order
    of summation errs by at most d u / (1 - d u), the length of the rest is rounded up. Twice that leaves room for
    vectors that are a little longer.
    """
    return 2.0 * (dimensions + 4) * _UNIT_ROUNDOFF


def _sides(left: Vectors, right: Vectors | None, cut: float) -> tuple[Side, Side]:
    """Write both sides in a basis chosen by a sample."""
    with one_blas_thread():
        basis = _choose(_sample(left), _sample(left if right is None else right), cut)
    one = Side(left, _shorten(left, basis))
    return one, one if right is None else Side(right, _shorten(right, basis))


def _choose(left: Vectors, right: Vectors, cut: float) -> NDArray[np.float64]:
    """Make the basis of two samples, of as many dimensions as promise the least work."""
    samples = [left, right]
    basis = _principal(np.concatenate(samples))
    turned = [rows.astype(np.float64) @ basis for rows in samples]
    width = left.shape[1]
    best, least = width, np.inf
    for k in sorted({k for k in _PREFIXES if k < width} | {width}):
        a, b = (_with_rest(rows[:, :k], np.einsum("ij,ij->i", rows[:, k:], rows[:, k:])) for rows in turned)
        cost = _A_PRODUCT + _A_DIMENSION * k + _A_LOOK * float(np.mean(a @ b.T >= cut))
        if cost < least:
            best, least = k, cost
    return basis[:, :best]


def _sample(rows: Vectors) -> Vectors:
    return rows[:: -(-len(rows) // _SAMPLE)]


def _principal(rows: Vectors) -> NDArray[np.float64]:
    """Columns: an orthonormal basis, the directions of most length first."""
    wide = rows.astype(np.float64)
    basis: NDArray[np.float64] = np.linalg.eigh(wide.T @ wide)[1][:, ::-1]
    return basis


def _shorten(rows: Vectors, basis: NDArray[np.float64]) -> Vectors:
    """Write vectors in the first columns of a basis, with the length of what is left, in float64, rounded once."""

    def part(start: int) -> Vectors:
        wide = rows[start : start + _STRIPE].astype(np.float64)
        first = wide @ basis
        return _with_rest(first, np.einsum("ij,ij->i", wide, wide) - np.einsum("ij,ij->i", first, first))

    return np.concatenate(list(in_order(part, range(0, len(rows), _STRIPE))))


def _with_rest(first: NDArray[np.float64], rest: NDArray[np.float64]) -> Vectors:
    """Add to coordinates the length of what they leave out, given its square, which errs by a few units of float64."""
    out = np.empty((len(first), first.shape[1] + 1), dtype=np.float32)
    out[:, :-1] = first
    # A root of 1e-12 more than the square is at least the true length.
    out[:, -1] = np.sqrt(np.maximum(rest, 0.0) + 1e-12) * (1 + 2 * _UNIT_ROUNDOFF)
    return out


def _stripe(one: Side, two: Side, start: int, cut: float, *, itself: bool) -> tuple[Places, Places]:
    """Find the pairs of a stripe of the left side; of the side itself only with what stands behind."""
    stop = min(start + _STRIPE, len(one.short))
    found: list[tuple[Places, Places]] = []
    products = np.empty(_ROWS * _COLUMNS, dtype=np.float32)
    reached = np.empty(_ROWS * _COLUMNS, dtype=bool)
    for column in range(start if itself else 0, len(two.short), _COLUMNS):
        b = two.short[column : column + _COLUMNS].T
        for row in range(start, stop, _ROWS):
            a = one.short[row : min(row + _ROWS, stop)]
            size, shape = len(a) * b.shape[1], (len(a), b.shape[1])
            block = np.matmul(a, b, out=products[:size].reshape(shape))
            at = np.flatnonzero(np.greater_equal(block, np.float32(cut), out=reached[:size].reshape(shape)))
            if len(at):
                i, j = np.divmod(at, b.shape[1])
                i, j = i + row, j + column
                later = i < j if itself else slice(None)
                found.append(_look(one.full, two.full, i[later], j[later], cut))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def _look(left: Vectors, right: Vectors, i: Places, j: Places, cut: float) -> tuple[Places, Places]:
    """Keep the pairs whose full product reaches the threshold."""
    keep = np.empty(len(i), dtype=bool)
    for start in range(0, len(i), _STRIPE):
        part = slice(start, start + _STRIPE)
        keep[part] = np.einsum("ij,ij->i", left[i[part]], right[j[part]]) >= np.float32(cut)
    return i[keep], j[keep]


Floats = NDArray[np.float32]


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
    yield from in_order(lambda start: _stripe_of_views(left, other, start, cut, itself=right is None), starts)


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


def _stripe_of_views(left: Floats, right: Floats, start: int, cut: float, *, itself: bool) -> tuple[Places, Places]:
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
