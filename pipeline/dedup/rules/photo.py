"""photo:t: the same photograph, perhaps shifted, cropped, turned, recoloured or compressed, by a score of t or more.

Pairs pass three steps. None that passes is missed. Each step depends on the two images and the basis only, so adding
images changes no score.

1. The outlines of both (low frequencies of a thumbnail, see `photo.outline`) have a product of 0.6 or more: as they
   are, mirrored, or in a view of one of them, which is cropped to 75 % or 88 % or turned by 5 degrees. Or they have
   0.8 or more if one is turned by 90, 180 or 270 degrees; the rule photo:t:upright leaves these out.
2. Their descriptors (whitened principal components, see `photo.descriptor`) have a cosine of 0.55 or more, turned like
   that, as they are or in a view of one of them.
3. One thumbnail is aligned with the other, and the share of structure that they have in common is measured (see
   `photo.verify_pair`). The score is

       (2 * share + cosine) / 3

   from 0 to 1, or exactly 1 if the thumbnails are equal.

An image whose thumbnail is constant has no outline and is in no pair.

The basis is fitted once, to a sample of the lake's first images, and kept in the table `bases`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.inner_product import Product, best_products, rounding_error, view_join
from pipeline.dedup.joins.streaming import PairArrays, combine_small, map_in_order, one_blas_thread
from pipeline.dedup.photo.descriptor import COMPONENTS, PLAIN, TILTED, VIEWS, Basis, describe, fit
from pipeline.dedup.photo.outline import UNIT, orient, outlines
from pipeline.dedup.photo.thumbnails import MIRRORED, Floats, Planes, pack, thumbnails, tilt, undo, unpack
from pipeline.dedup.photo.verify_pair import shared_structure
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Positions, number_or_nan
from pipeline.hashing import hash_rows

FAMILY = "photo"
# Bytes of one image in memory while it is compared, besides its entry.
BYTES_IN_MEMORY = 4096
_UPRIGHT = "upright"
# Minimum product of two outlines: as they are, mirrored or enlarged; and turned.
_MIN_OUTLINE, _MIN_TURNED = 0.6, 0.8
# Minimum cosine of two descriptors.
_MIN_COSINE = 0.55
# Turned by 180 degrees, and by 90 degrees to both sides; see `thumbnails.turn`.
_TURNED = (3, 5, 6)
# Number of pairs compared, of pairs verified, and of images described, by one thread at a time.
_COMPARED_PAIRS, _VERIFIED_PAIRS = 4096, 1024
_DESCRIBED_IMAGES = 2048


def rule(parameter: str | None) -> "Photo":
    """Make the rule.

    Args:
        parameter: the minimum score, such as "0.5"; with ":upright" after it to leave out turned images.

    Returns:
        The rule, without a basis.

    Raises:
        ValueError: the parameter is not a number above 0, up to 1.
    """
    number, colon, kind = (parameter or "").partition(":")
    least = number_or_nan(number)
    if not 0 < least <= 1:
        raise ValueError("it takes the least score, above 0 and up to 1; write photo:0.5")
    if colon and kind != _UPRIGHT:
        raise ValueError(f"after the score it takes {_UPRIGHT} only; write photo:0.5 or photo:0.5:{_UPRIGHT}")
    return Photo(least, turns=not colon)


@dataclass(frozen=True)
class Photo:
    """The rule, ready to run; see `Comparison`.

    Attributes:
        least: minimum score of a pair.
        turns: whether images are also compared turned by 90, 180 and 270 degrees.
        basis: basis of the descriptors; None until it is fitted.
    """

    least: float
    turns: bool = True
    basis: Basis | None = None

    @property
    def equal_signatures(self) -> bool:
        """False: all duplicates are paired."""
        return False

    def index(self, pixels: Pixels) -> Entries:
        """Make the entries of images of one shape from their thumbnails. Images of all shapes are compared."""
        images = thumbnails(pixels)
        digests = hash_rows(images.reshape(len(pixels), -1)).view(">i8").astype(np.int64)
        return Entries(digests[:, 0], digests[:, 1], pack(images))

    def fit(self, sample: Entries) -> bytes:
        """Fit a basis to a sample of the index."""
        with one_blas_thread():
            return fit(unpack(sample.vector)).to_bytes()

    def using(self, basis: bytes) -> "Photo":
        """Return the rule with a basis that was fitted before."""
        return replace(self, basis=Basis.from_bytes(basis))

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair whose outlines and descriptors are close enough and whose score reaches the minimum."""
        one = _Side.of(left, self._fitted())
        other = one if right is None else _Side.of(right, self._fitted())
        views = len(one.outlines)
        oriented = [orient(other.outlines[0], orientation) for orientation in (MIRRORED, *self._turned)]
        products = [Product(0, view, _MIN_OUTLINE * UNIT**2) for view in range(views + 1)]
        products += [Product(view, 0, _MIN_OUTLINE * UNIT**2) for view in range(1, views)]
        products += [Product(0, views + number, _MIN_TURNED * UNIT**2) for number in range(1, len(oriented))]
        joined = view_join([*one.outlines], [*other.outlines, *oriented], products, self_join=right is None)
        near = map_in_order(lambda pairs: self._near(one, other, *pairs), _cut(joined, _COMPARED_PAIRS))
        parts = _cut(combine_small(near, _COMPARED_PAIRS), _VERIFIED_PAIRS)
        for i, j, scores in map_in_order(lambda pairs: self._score(one, other, *pairs), parts):
            reached = scores >= np.float32(self.least)
            yield Candidates(i[reached], j[reached], scores[reached])

    @property
    def _turned(self) -> tuple[int, ...]:
        return _TURNED if self.turns else ()

    def _near(self, one: "_Side", other: "_Side", i: Positions, j: Positions) -> PairArrays[np.int64, np.uint8]:
        """Keep the pairs that must be verified: bit 0 of the last array if upright, the others by orientation."""
        cosine = _rough_products(one.descriptors[:, i], other.descriptors[:, j])
        ways = (cosine >= _MIN_COSINE - rounding_error(COMPONENTS)).astype(np.uint8)
        a, b = one.outlines[0, i], other.outlines[0, j]
        for number, orientation in enumerate(self._turned, start=1):
            products = np.einsum("ij,ij->i", a, orient(b, orientation))
            ways |= (products >= _MIN_TURNED * UNIT**2).astype(np.uint8) << np.uint8(number)
        kept = ways > 0
        return i[kept], j[kept], ways[kept]

    def _score(
        self, one: "_Side", other: "_Side", i: Positions, j: Positions, ways: NDArray[np.uint8]
    ) -> PairArrays[np.int64, np.float32]:
        """Score pairs in all ways in which they are near, and take the best; 0 if their descriptors are not close."""
        first, second = one.take(i), other.take(j)
        # The two images are ordered by their digests, so that their order here does not matter.
        swap = (first.key > second.key) | ((first.key == second.key) & (first.signature > second.signature))
        a, b = _choose(swap, second, first), _choose(swap, first, second)
        scores = np.zeros(len(i), np.float32)
        upright = np.flatnonzero(ways & 1)
        scores[upright] = _verify(a.take(upright), b.take(upright))
        for number, orientation in enumerate(self._turned, start=1):
            near = (ways >> np.uint8(number) & np.uint8(1)).astype(bool)
            # The second image in this orientation is like the first: the first is like the second in the opposite one.
            for rows, turned in ((near & swap, orientation), (near & ~swap, undo(orientation))):
                if rows.any():
                    scored = _verify_turned(a.take(rows), b.take(rows), turned, self._fitted())
                    scores[rows] = np.maximum(scores[rows], scored)
        equal = (a.key == b.key) & (a.signature == b.signature)
        return i, j, np.where(equal, np.float32(1), scores)

    def _fitted(self) -> Basis:
        if self.basis is None:
            raise AssertionError("rule photo needs a basis before it compares images")
        return self.basis


class _Side(NamedTuple):
    """What is compared of n images.

    Attributes:
        key: (n,) int64, the first half of the digest of a thumbnail.
        signature: (n,) int64, the second half.
        planes: the thumbnails.
        outlines: (1 + views, n, 45) float32, see `photo.outline`.
        descriptors: (1 + views, n, 96) float32, see `describe`.
    """

    key: Positions
    signature: Positions
    planes: Planes
    outlines: Floats
    descriptors: Floats

    @classmethod
    def of(cls, entries: Entries, basis: Basis) -> Self:
        """Compute what is compared of the entries of an index."""

        def part(start: int) -> tuple[Planes, Floats, Floats]:
            planes = unpack(entries.vector[start : start + _DESCRIBED_IMAGES])
            return planes, outlines(planes), describe(planes, basis)

        parts = list(map_in_order(part, range(0, max(1, len(entries.key)), _DESCRIBED_IMAGES)))
        planes = Planes(*(np.concatenate([part[0][number] for part in parts]) for number in (0, 1)))
        outlined, described = (np.concatenate([part[number] for part in parts], axis=1) for number in (1, 2))
        return cls(entries.key, entries.signature, planes, outlined, described)

    def take(self, which: Positions | NDArray[np.bool_]) -> Self:
        """Select some of the images, in the given order."""
        return type(self)(
            self.key[which],
            self.signature[which],
            self.planes.take(which),
            self.outlines[:, which],
            self.descriptors[:, which],
        )


def _choose(first: NDArray[np.bool_], a: _Side, b: _Side) -> _Side:
    """Take each image from a or b, as `first` says."""

    def either(x: NDArray[Any], y: NDArray[Any], axis: int = 0) -> NDArray[Any]:
        shape = [1] * x.ndim
        shape[axis] = len(first)
        return np.where(first.reshape(shape), x, y)

    return _Side(
        either(a.key, b.key),
        either(a.signature, b.signature),
        Planes(either(a.planes.gray, b.planes.gray), either(a.planes.colour, b.planes.colour)),
        either(a.outlines, b.outlines, axis=1),
        either(a.descriptors, b.descriptors, axis=1),
    )


def _cut(arrays: Iterable[tuple[NDArray[Any], ...]], size: int) -> Iterator[tuple[NDArray[Any], ...]]:
    """Cut arrays of equal length into parts of a size."""
    for part in arrays:
        for start in range(0, len(part[0]), size):
            yield tuple(values[start : start + size] for values in part)


def _rough_products(left: Floats, right: Floats) -> Floats:
    """Compute the best product of pairs in float32, see `best_products`."""
    of_left, of_right = (np.einsum("vpd,pd->pv", x, y[0]) for x, y in ((left, right), (right[1:], left)))
    best: Floats = np.maximum(of_left.max(axis=1), of_right.max(axis=1))
    return best


def _verify(a: _Side, b: _Side) -> Floats:
    """Verify pairs in the view in which their descriptors are closest; 0 if they are not close enough."""
    scores = np.zeros(len(a.key), np.float32)
    cosine, view = best_products(a.descriptors, b.descriptors)
    near = cosine >= _MIN_COSINE
    x, y, view = a.planes.gray[near], b.planes.gray[near], view[near]
    tilted = 1 + VIEWS.index(TILTED)
    x, y = (
        np.where((view == tilted + side)[:, None, None], tilt(gray, TILTED.degrees), gray)
        for side, gray in ((0, x), (len(VIEWS), y))
    )
    forward, backward = _initial_shifts(view)
    scores[near] = _score_of(x, y, forward, backward, cosine[near])
    return scores


def _verify_turned(a: _Side, b: _Side, orientation: int, basis: Basis) -> Floats:
    """Verify pairs of which the first image is turned; 0 if their descriptors are not close enough."""
    scores = np.zeros(len(a.key), np.float32)
    turned = a.planes.turn(orientation)
    descriptors = describe(turned, basis, (PLAIN,))[0].astype(np.float64)
    cosine = np.einsum("pd,pd->p", descriptors, b.descriptors[0].astype(np.float64))
    near = cosine >= _MIN_COSINE
    start = np.zeros((int(near.sum()), 5), np.float32)
    scores[near] = _score_of(turned.gray[near], b.planes.gray[near], start, start, cosine[near])
    return scores


def _score_of(x: Pixels, y: Pixels, forward: Floats, backward: Floats, cosine: NDArray[np.float64]) -> Floats:
    """Combine the cosine with the share of structure, aligned in the better one of both directions."""
    if not len(x):
        return np.empty(0, np.float32)
    mirrored = forward[:, 4] > 0
    shares = np.maximum(
        shared_structure(x, y, forward[:, :4], mirrored), shared_structure(y, x, backward[:, :4], mirrored)
    )
    return ((2 * shares + cosine.astype(np.float32)) / np.float32(3)).astype(np.float32)


def _initial_shifts(view: Positions) -> tuple[Floats, Floats]:
    """Derive the initial alignment of pairs from the view with the best product.

    Args:
        view: (p,) int64, as `best_products` returns it.

    Returns:
        Two (p, 5) float32: shifts that align the left image with the right one (see `thumbnails.warp`) and whether it
        is mirrored; then the same for the right image.
    """
    views = np.array([PLAIN, *VIEWS], dtype=np.float32)[:, :4]
    of_right = view > len(VIEWS)
    across, down, size, mirrored = views[np.where(of_right, view - len(VIEWS), view)].T
    sign = np.where(mirrored > 0, np.float32(1), np.float32(-1))
    log = np.log(size)
    viewed = np.stack([across, down, log, log, mirrored], axis=1)
    undone = np.stack([sign * across / size, -down / size, -log, -log, mirrored], axis=1)
    is_right = of_right[:, None]
    return np.where(is_right, undone, viewed), np.where(is_right, viewed, undone)
