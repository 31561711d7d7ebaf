"""Find all pairs of vectors with a large inner product: plain vectors, or vectors with several views each.

Plain vectors are first compared by an upper bound. Write two vectors in an orthonormal basis and cut the coordinates in
two: `<x, y> = <a, b> + <rest of x, rest of y>`. By Cauchy-Schwarz the second term is at most `|rest of x| |rest of y|`.
So `[a, |rest of x|] . [b, |rest of y|]` is an upper bound that is itself an inner product of few dimensions. BLAS
computes the bounds in blocks that stay in the processor's cache, and only pairs whose bound reaches the threshold are
computed in full. The basis is made of principal components of a sample: it affects the speed, never the result.

Vectors with views have whole numbers, so that float32 computes their products exactly. They have no dominant
directions, so no prefix gives a useful bound: all products are computed, block by block.

References:
    Teflioudi, Gemulla, "Exact and approximate maximum inner product search with LEMP", TODS 42(1), 2016 (bounds by a
    prefix and the length of the rest). Anastasiu, Karypis, "L2AP: fast cosine similarity search with prefix L-2 norm
    bounds", ICDE 2014.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.streaming import map_in_order, one_blas_thread

Vectors = NDArray[np.float32]
Doubles = NDArray[np.float64]
Positions = NDArray[np.int64]

# A block of products is one megabyte of float32: it is computed and searched without leaving the cache.
_BLOCK_ROWS, _BLOCK_COLUMNS = 256, 1024
# Marks that are searched together, and its logarithm: shifts are much faster than divisions.
_WORD, _WORD_BITS = 8, 3
# Pairs whose bound reaches the threshold that are computed in full together.
_WAITING = 2**15
# Rows of the left side that one thread processes at a time.
_STRIPE = 1024
_SAMPLE = 512
# Vectors of one side up to which all products are computed in full: projecting the other side would take longer.
_FEW = 64
_PREFIXES = (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96)
# Relative cost in nanoseconds: one dimension of a bound, one bound, one inner product in full.
_DIMENSION_COST, _BOUND_COST, _FULL_COST = 0.020, 0.25, 150.0
_UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class _Side:
    """Vectors of one side of a join.

    Attributes:
        full: (n, d) float32.
        short: (n, k + 1) float32, the first k coordinates in the basis and the length of the rest; or the full vectors.
    """

    full: Vectors
    short: Vectors


def inner_product_join(left: Vectors, right: Vectors | None, threshold: float) -> Iterator[tuple[Positions, Positions]]:
    """Find every pair of vectors whose inner product reaches a threshold, and possibly some just below it.

    Guarantee: every pair whose exact inner product is at least `threshold` is found. Every pair found has an inner
    product of at least `threshold - 2 * rounding_error(d)`. Callers that need the exact set filter the result.

    Args:
        left: (n, d) float32, of length 1 or less (a thousandth more is tolerated).
        right: (m, d) float32 likewise; None to join the left side with itself.
        threshold: above 0.

    Yields:
        Positions i in left and j in right, int64; in a self-join i < j. Every pair once, ordered by stripes of i.
        Besides the vectors, memory holds one stripe per core and its results.
    """
    other = left if right is None else right
    if not len(left) or not len(other):
        return
    cutoff = threshold - rounding_error(left.shape[1])
    one, two = _project(left, right, cutoff)
    starts = range(0, len(left), _STRIPE)
    for i, j in map_in_order(lambda start: _join_stripe(one, two, start, cutoff, self_join=right is None), starts):
        if len(i):
            yield i, j


class Product(NamedTuple):
    """A product that makes a pair: a view of the left side, a view of the right side, and the threshold."""

    left: int
    right: int
    threshold: float


def view_hits(
    left: Sequence[Vectors], right: Sequence[Vectors], products: Sequence[Product], first: int | None = None
) -> tuple[Positions, Positions, Positions]:
    """Find every pair of which one of several products reaches its threshold, on the calling thread.

    No pair is missed if float32 computes the products exactly: if the vectors have whole numbers and are at most 2^12
    long.

    Args:
        left: views of the left side, (n, d) float32 each.
        right: views of the right side, (m, d) float32 each.
        products: which views are compared.
        first: if the left side is a part of the right one, its first position there; then only pairs with later vectors
            are found. The products must be the same with the two sides exchanged.

    Returns:
        (p,) int64 positions i in left and j in right, and the number of the product, in order of these numbers: every
        pair once for each product that it reaches.
    """
    count, others = len(left[0]), len(right[0])
    found = [(np.empty(0, np.int64),) * 3]
    space = np.empty(_BLOCK_ROWS * _BLOCK_COLUMNS, dtype=np.float32)
    reached = np.empty(-(-len(space) // _WORD) * _WORD, dtype=bool)
    for number, (one, other, threshold) in enumerate(products):
        for column in range(first or 0, others, _BLOCK_COLUMNS):
            b = right[other][column : column + _BLOCK_COLUMNS].T
            for row in range(0, count, _BLOCK_ROWS):
                a = left[one][row : row + _BLOCK_ROWS]
                i, j = _hits(a, b, threshold, space, reached)
                i, j = i + row, j + column
                later = slice(None) if first is None else i + first < j
                found.append((i[later], j[later], np.full(len(i[later]), number)))
    i, j, numbers = (np.concatenate([part[place] for part in found]) for place in range(3))
    return i, j, numbers


def _where(marks: NDArray[np.bool_]) -> Positions:
    """List the positions of few marks among many: `np.flatnonzero`, but eight at a time."""
    words = marks.view(np.uint64)
    some = np.flatnonzero(words != 0)
    place = np.flatnonzero(words[some].view(bool))
    found: Positions = (some[place >> _WORD_BITS] << _WORD_BITS) + (place & (_WORD - 1))
    return found


def rounding_error(dimensions: int) -> float:
    """Bound the effect of float32 rounding on a bound or an inner product of vectors no longer than 1.

    Coordinates are rounded once from float64 (u = 2^-24 of the vector's length). A sum of d products, in any order,
    errs by at most d u / (1 - d u). The length of the rest is rounded up. The factor 2 leaves room for vectors that are
    slightly longer than 1.
    """
    return 2.0 * (dimensions + 4) * _UNIT_ROUNDOFF


def _project(left: Vectors, right: Vectors | None, cutoff: float) -> tuple[_Side, _Side]:
    """Write both sides in a basis chosen from a sample; leave them as they are if one has few vectors."""
    if right is not None and min(len(left), len(right)) <= _FEW:
        return _Side(left, left), _Side(right, right)
    with one_blas_thread():
        basis = _choose_basis(_sample(left), _sample(left if right is None else right), cutoff)
    one = _Side(left, _shorten(left, basis))
    return one, one if right is None else _Side(right, _shorten(right, basis))


def _sample(rows: Vectors) -> Vectors:
    return rows[:: -(-len(rows) // _SAMPLE)]


def _choose_basis(left: Vectors, right: Vectors, cutoff: float) -> Doubles:
    """Compute the basis of two samples, with the number of dimensions that is estimated to be cheapest."""
    samples = [left, right]
    basis = _principal_components(np.concatenate(samples))
    turned = [rows.astype(np.float64) @ basis for rows in samples]
    width = left.shape[1]
    best, lowest_cost = width, np.inf
    for k in sorted({k for k in _PREFIXES if k < width} | {width}):
        a, b = (_with_rest(rows[:, :k], np.einsum("ij,ij->i", rows[:, k:], rows[:, k:])) for rows in turned)
        cost = _BOUND_COST + _DIMENSION_COST * k + _FULL_COST * float(np.mean(a @ b.T >= cutoff))
        if cost < lowest_cost:
            best, lowest_cost = k, cost
    return basis[:, :best]


def _principal_components(rows: Vectors) -> Doubles:
    """Compute an orthonormal basis, as columns, the directions of largest energy first."""
    wide = rows.astype(np.float64)
    basis: Doubles = np.linalg.eigh(wide.T @ wide)[1][:, ::-1]
    return basis


def _shorten(rows: Vectors, basis: Doubles) -> Vectors:
    """Write vectors in the first columns of a basis, with the length of the rest: in float64, rounded once."""

    def part(start: int) -> Vectors:
        wide = rows[start : start + _STRIPE].astype(np.float64)
        first = wide @ basis
        return _with_rest(first, np.einsum("ij,ij->i", wide, wide) - np.einsum("ij,ij->i", first, first))

    return np.concatenate(list(map_in_order(part, range(0, len(rows), _STRIPE))))


def _with_rest(first: Doubles, rest: Doubles) -> Vectors:
    """Append the length of the other coordinates, given its square, which errs by a few units of float64."""
    out = np.empty((len(first), first.shape[1] + 1), dtype=np.float32)
    out[:, :-1] = first
    # The root of 1e-12 more than the square is at least the true length.
    out[:, -1] = np.sqrt(np.maximum(rest, 0.0) + 1e-12) * (1 + 2 * _UNIT_ROUNDOFF)
    return out


def _join_stripe(one: _Side, two: _Side, start: int, cutoff: float, *, self_join: bool) -> tuple[Positions, Positions]:
    """Find the pairs of one stripe of the left side; in a self-join only with later vectors."""
    stop = min(start + _STRIPE, len(one.short))
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    waiting: list[tuple[Positions, Positions]] = []
    bounds = np.empty(_BLOCK_ROWS * _BLOCK_COLUMNS, dtype=np.float32)
    reached = np.empty(-(-len(bounds) // _WORD) * _WORD, dtype=bool)
    for column in range(start if self_join else 0, len(two.short), _BLOCK_COLUMNS):
        b = two.short[column : column + _BLOCK_COLUMNS].T
        for row in range(start, stop, _BLOCK_ROWS):
            a = one.short[row : min(row + _BLOCK_ROWS, stop)]
            i, j = _hits(a, b, cutoff, bounds, reached)
            i, j = i + row, j + column
            later = i < j if self_join else slice(None)
            waiting.append((i[later], j[later]))
        if sum(len(i) for i, _ in waiting) >= _WAITING:
            found.append(_verify(one.full, two.full, waiting, cutoff))
            waiting = []
    if waiting:
        found.append(_verify(one.full, two.full, waiting, cutoff))
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def _hits(
    a: Vectors, b: Vectors, cutoff: float, space: Vectors, reached: NDArray[np.bool_]
) -> tuple[Positions, Positions]:
    """Find the products of a (n, d) and b (d, m) that reach a threshold, in a block of memory that is used again."""
    size, shape = len(a) * b.shape[1], (len(a), b.shape[1])
    block = np.matmul(a, b, out=space[:size].reshape(shape))
    np.greater_equal(block, np.float32(cutoff), out=reached[:size].reshape(shape))
    reached[size:] = False
    i, j = np.divmod(_where(reached), b.shape[1])
    return i, j


def _verify(
    left: Vectors, right: Vectors, pairs: Sequence[tuple[Positions, Positions]], cutoff: float
) -> tuple[Positions, Positions]:
    """Keep the pairs whose full inner product reaches the threshold."""
    i, j = (np.concatenate(side) for side in zip(*pairs, strict=True))
    keep = np.empty(len(i), dtype=bool)
    for start in range(0, len(i), _STRIPE):
        part = slice(start, start + _STRIPE)
        products = np.vecdot(left.take(i[part], axis=0), right.take(j[part], axis=0))
        keep[part] = products >= np.float32(cutoff)
    return i[keep], j[keep]
