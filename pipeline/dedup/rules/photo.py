"""photo:t: the same photograph, perhaps shifted, cropped, turned, recoloured or compressed, by a score of t or more.

Pairs pass three steps. None that passes is missed. Each step depends on the two images and the basis only, so adding
images changes no score.

1. The outlines of both (low frequencies of a thumbnail, see `photo.outline`) are close enough: as they are, mirrored,
   in a view of one of them, which is cropped or turned by 5 degrees, or with one of them turned by 90, 180 or 270
   degrees; the rule photo:t:upright leaves these out. The constants below have the views and the minimum products.
2. Their descriptors (whitened principal components, see `photo.descriptor`) have a cosine of 0.55 or more in the same
   view, or of 0.6 or more in the views that are turned, or cropped to less than 90 %.
3. One thumbnail is aligned with the other, first roughly at half the resolution, and the share of structure that they
   have in common is measured (see `photo.verify_pair`). The score is

       (2 * share + cosine) / 3

   from 0 to 1, or exactly 1 if the thumbnails are equal. A pair that shares next to nothing after the rough alignment
   has no score.

An image whose thumbnail is constant has no outline and is in no pair.

The basis is fitted once, to a sample of the lake's first images, and kept in the table `bases`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.inner_product import Product, rounding_error, view_hits
from pipeline.dedup.joins.streaming import map_in_order, one_blas_thread
from pipeline.dedup.photo.descriptor import COMPONENTS, Basis, Projection, describe, fit, make_projection
from pipeline.dedup.photo.outline import UNIT, orient, outline_weights, outlines
from pipeline.dedup.photo.thumbnails import MIRRORED, Floats, pack, thumbnails, tilt, turn, undo, unpack
from pipeline.dedup.photo.verify_pair import shared_structure
from pipeline.dedup.photo.views import PLAIN, View, values
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Positions, number_or_nan
from pipeline.hashing import hash_rows

FAMILY = "photo"
# Increase this when descriptors are made in another way from the same basis.
BASIS_VERSION = 1
# Bytes of one image in memory while it is compared, besides its entry: 9 KB, which only one of two blocks has.
BYTES_IN_MEMORY = 4608
_UPRIGHT = "upright"
# Minimum product of two outlines: long ones, and short ones of a view, of a corner, mirrored and turned.
_MIN_LONG, _MIN_VIEW, _MIN_CORNER, _MIN_MIRRORED, _MIN_TURNED = 0.57, 0.7, 0.8, 0.65, 0.8
# Minimum cosine of two descriptors: as they are, shifted, mirrored or cropped to 90 %; and in the other views.
_MIN_COSINE, _MIN_VIEW_COSINE = 0.55, 0.6
# Shifts of both images together cover all eight directions. Only their descriptors are compared.
_SHIFTED = tuple(View(1.25 * x, 1.25 * y) for x, y in ((1, 0), (0, 1), (1, 1), (1, -1)))
_MIDDLE = View(size=0.9)
# Views that are compared with another view: crops of the middle and of the corners with the whole. Turns by 5 degrees,
# also on a canvas that was enlarged for it, with the middle, so that corners without a picture do not count.
_CROPPED = (
    (_MIDDLE, PLAIN),
    (View(size=0.75), PLAIN),
    *((View(1.8 * x, 1.8 * y, 0.87), PLAIN) for x in (-1, 1) for y in (-1, 1)),
    (View(size=0.9, degrees=5.0), _MIDDLE),
    (View(size=0.83, degrees=5.0), _MIDDLE),
    (View(size=0.83, degrees=-5.0), _MIDDLE),
)
# Mirrored; turned by 180 degrees, and by 90 degrees to both sides; see `thumbnails.turn`.
_ORIENTED = tuple(View(orientation=orientation) for orientation in (MIRRORED, 3, 5, 6))
# With at most this many images on the left side, only those of the right side are described whose outline is close.
_FEW = 64
# Images that one thread describes and compares at a time, and pairs that it compares and verifies at a time.
_STRIPE, _COMPARED_PAIRS, _VERIFIED_PAIRS = 1024, 2048, 4096


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
        raise ValueError("it takes the minimum score, above 0 and up to 1; write photo:0.5")
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
        if not len(left.key) or (right is not None and not len(right.key)):
            return
        plan = _Plan.of(self._fitted(), turns=self.turns)
        kept = None
        if right is not None and len(left.key) <= _FEW:
            kept = _within_reach(plan.side(left), right, plan)
            if not len(kept):
                return
            right = right.take(kept)
        other = _join(map_in_order(plan.side, _cut(left if right is None else right)))

        def compare(start: int) -> Candidates:
            part = slice(start, start + _STRIPE)
            one = other.take(part) if right is None else plan.side(left.take(part))
            i, j, scores = _score(one, other, plan, _near(one, other, plan, start if right is None else None))
            reached = scores >= np.float32(self.least)
            j = j[reached] if kept is None else kept[j[reached]]
            return Candidates(i[reached] + start, j, scores[reached])

        yield from map_in_order(compare, range(0, len(left.key), _STRIPE))

    def _fitted(self) -> Basis:
        if self.basis is None:
            raise AssertionError("rule photo needs a basis before it compares images")
        return self.basis


class _Way(NamedTuple):
    """How two images are compared.

    Attributes:
        left: number of the view of the left image.
        right: number of the view of the right image.
        least: minimum cosine.
    """

    left: int
    right: int
    least: float = _MIN_COSINE


class _Side(NamedTuple):
    """What is compared of n images.

    Attributes:
        key: (n,) int64, the first half of the digest of a thumbnail.
        signature: (n,) int64, the second half.
        gray: (n, 32, 32) uint8.
        outlines: (n, 45) float32, then (n, 25) float32 of every compared view, see `photo.outline`.
        descriptors: (views, n, 96) float32, see `describe`.
    """

    key: Positions
    signature: Positions
    gray: Pixels
    outlines: list[Floats]
    descriptors: Floats

    def take(self, part: slice) -> "_Side":
        """Select some of the images, without a copy."""
        key, signature, gray, outlined, descriptors = self
        return _Side(key[part], signature[part], gray[part], [some[part] for some in outlined], descriptors[:, part])


def _cut(entries: Entries) -> Iterator[Entries]:
    """Cut entries into stripes."""
    yield from (entries.take(slice(start, start + _STRIPE)) for start in range(0, len(entries.key), _STRIPE))


def _join(sides: Iterable[_Side]) -> _Side:
    """Join stripes."""
    parts = list(sides)
    key, signature = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    gray = np.concatenate([part.gray for part in parts])
    descriptors = np.concatenate([part.descriptors for part in parts], axis=1)
    outlined = [np.concatenate(some) for some in zip(*(part.outlines for part in parts), strict=True)]
    return _Side(key, signature, gray, outlined, descriptors)


class _Plan(NamedTuple):
    """The views in which images are compared, and the weights that compute them.

    Attributes:
        views: images as they are, cropped or tilted, shifted, and oriented; in this order.
        products: the outlines to compare: positions in `_Side.outlines` of the left, and in `oriented` of the right.
        ways: for each product, in which ways the descriptors of its pairs are compared.
        outlined: the weights of outlines.
        described: the weights of descriptors.
    """

    views: tuple[View, ...]
    products: list[Product]
    ways: list[list[_Way]]
    outlined: tuple[Floats, Floats]
    described: Projection

    @classmethod
    def of(cls, basis: Basis, *, turns: bool) -> "_Plan":
        """List the views, and make the weights of them in a basis."""
        oriented = _ORIENTED if turns else _ORIENTED[:1]
        outlined = (PLAIN, *(view for view, _ in _CROPPED))
        views = (*outlined, *_SHIFTED, *oriented)
        products = [Product(0, 0, _MIN_LONG * UNIT**2)]
        ways = [[_Way(0, 0)]]
        for number in map(views.index, _SHIFTED):
            ways[0] += [_Way(number, 0), _Way(0, number)]
        for view, opposite in _CROPPED:
            least = _MIN_COSINE if view == _MIDDLE else _MIN_VIEW_COSINE
            product = (_MIN_CORNER if view.across else _MIN_VIEW) * UNIT**2
            for left, right in ((view, opposite), (opposite, view)):
                way = _Way(views.index(left), views.index(right), least)
                products.append(Product(1 + way.left, 1 + way.right, product))
                ways.append([way])
        for number, view in enumerate(oriented, start=1 + len(outlined)):
            mirrored = view.orientation == MIRRORED
            products.append(Product(1, number, (_MIN_MIRRORED if mirrored else _MIN_TURNED) * UNIT**2))
            least, opposite = _MIN_COSINE if mirrored else _MIN_VIEW_COSINE, View(orientation=undo(view.orientation))
            ways.append([_Way(views.index(opposite), 0, least), _Way(0, views.index(view), least)])
        return cls(views, products, ways, outline_weights(outlined), make_projection(basis, views))

    def side(self, entries: Entries, *, described: bool = True) -> _Side:
        """Compute what is compared of the entries of an index; without `described`, no descriptors."""
        planes = unpack(entries.vector)
        rows, constant = values(planes), planes.constant()
        descriptors = np.empty((0, len(constant), COMPONENTS), np.float32)
        if described:
            descriptors = np.ascontiguousarray(describe(rows, constant, self.described).swapaxes(0, 1))
        return _Side(entries.key, entries.signature, planes.gray, outlines(rows, constant, self.outlined), descriptors)

    def oriented(self, side: _Side) -> list[Floats]:
        """List the outlines of the right side: as it has them, then oriented."""
        return [
            *side.outlines,
            *(orient(side.outlines[1], view.orientation) for view in self.views if view.orientation),
        ]


def _within_reach(left: _Side, right: Entries, plan: _Plan) -> Positions:
    """List the images of the right side of which an outline is close enough to one of the left."""

    def reached(start: int) -> Positions:
        part = plan.side(right.take(slice(start, start + _STRIPE)), described=False)
        return np.unique(view_hits(left.outlines, plan.oriented(part), plan.products)[1]) + start

    return np.concatenate(list(map_in_order(reached, range(0, len(right.key), _STRIPE))))


class _Near(NamedTuple):
    """Pairs whose outlines and descriptors are close enough, once for each way in which they are.

    Attributes:
        left: (p,) int64 positions.
        right: (p,) int64 positions.
        left_view: (p,) int64, the number of the view of the left image.
        right_view: (p,) int64, the same of the right image.
        cosine: (p,) float64.
    """

    left: Positions
    right: Positions
    left_view: Positions
    right_view: Positions
    cosine: NDArray[np.float64]


def _near(one: _Side, other: _Side, plan: _Plan, first: int | None) -> _Near:
    """Find the pairs that must be verified; if the left side is a part of the right one, with later images only."""
    i, j, product = view_hits(one.outlines, plan.oriented(other), plan.products, first)
    starts = np.searchsorted(product, np.arange(len(plan.ways) + 1)).tolist()
    empty = np.empty(0, np.int64)
    found = [_Near(empty, empty, empty, empty, np.empty(0))]
    for ways, (first_hit, end) in zip(plan.ways, pairwise(starts), strict=True):
        for start in range(first_hit, end, _COMPARED_PAIRS):
            part = slice(start, min(start + _COMPARED_PAIRS, end))
            found += _compare(one.descriptors, other.descriptors, i[part], j[part], ways)
    return _Near(*(np.concatenate(some) for some in zip(*found, strict=True)))


def _compare(left: Floats, right: Floats, i: Positions, j: Positions, ways: Sequence[_Way]) -> Iterator[_Near]:
    """Keep the pairs whose descriptors are close enough, by way."""
    of_left = {view: left[view].take(i, axis=0) for view in {way.left for way in ways}}
    of_right = {view: right[view].take(j, axis=0) for view in {way.right for way in ways}}
    for way in ways:
        x, y = of_left[way.left], of_right[way.right]
        near = np.flatnonzero(np.einsum("pd,pd->p", x, y) >= way.least - rounding_error(COMPONENTS))
        if len(near):
            cosine = np.einsum("pd,pd->p", x[near].astype(np.float64), y[near].astype(np.float64))
            near, cosine = near[cosine >= way.least], cosine[cosine >= way.least]
            yield _Near(i[near], j[near], np.full(len(near), way.left), np.full(len(near), way.right), cosine)


def _score(one: _Side, other: _Side, plan: _Plan, near: _Near) -> tuple[Positions, Positions, Floats]:
    """Score pairs, as they are and turned, each in the way with the largest cosine, and take the better score."""
    (a, b), (c, d) = ((x[near.left], y[near.right]) for x, y in zip(one[:2], other[:2], strict=True))
    # The two images are ordered by their digests, so that their order here does not matter.
    swap = np.where(a == b, c > d, a > b)
    views = np.where(swap, [near.right_view, near.left_view], [near.left_view, near.right_view])
    is_turned = np.array([view.orientation > MIRRORED for view in plan.views])
    turned = is_turned[views[0]] | is_turned[views[1]]
    pair = near.left * len(other.key) + near.right
    order = np.lexsort((*views, -near.cosine, turned, pair))
    best = order[_firsts(pair[order] * 2 + turned[order])]
    i, j = near.left[best], near.right[best]
    scores = np.empty(len(best), np.float32)
    for start in range(0, len(best), _VERIFIED_PAIRS):
        part = slice(start, start + _VERIFIED_PAIRS)
        x, y, back = one.gray[i[part]], other.gray[j[part]], swap[best[part]][:, None, None]
        first, second = np.where(back, y, x), np.where(back, x, y)
        share = _share(first, second, views[:, best[part]], plan.views)
        cosine = near.cosine[best[part]].astype(np.float32)
        scores[part] = np.where(share > 0, (2 * share + cosine) / np.float32(3), np.float32(0))
    scores[(a == b)[best] & (c == d)[best]] = 1
    starts = _firsts(pair[best])
    return i[starts], j[starts], np.maximum.reduceat(scores, starts) if len(starts) else scores


def _firsts(numbers: Positions) -> Positions:
    """Return the positions of the first of each run of equal numbers."""
    return np.flatnonzero(np.diff(numbers, prepend=-1))


def _share(x: Pixels, y: Pixels, numbers: Positions, views: tuple[View, ...]) -> Floats:
    """Measure the share of structure of pairs, of which the views with the given numbers, (2, p), are alike."""
    for images, mine in ((x, numbers[0]), (y, numbers[1])):
        for number, view in enumerate(views):
            if (view.degrees or view.orientation) and len(rows := np.flatnonzero(mine == number)):
                images[rows] = tilt(turn(images[rows], view.orientation), view.degrees)
    (x_shift, x_size), (y_shift, y_size) = (
        (
            np.array([view[:2] for view in views], np.float32)[mine],
            np.array([view.size for view in views], np.float32)[mine, None],
        )
        for mine in numbers
    )
    size = x_size / y_size
    start = np.concatenate([x_shift - size * y_shift, np.log(size), np.log(size)], axis=1)
    return shared_structure(x, y, start)
