"""photo:t: the same photograph, perhaps shifted, cropped, mirrored, recoloured or compressed, by a score of t or more.

Candidates are all pairs whose descriptors (whitened principal components of a thumbnail, see `photo.descriptor`) have a
cosine of 0.55 or more, as they are or in a view of one of them; none is missed. Each candidate is verified: one
thumbnail is aligned with the other, and the share of structure that they have in common is measured (see
`photo.verify_pair`). The score is

    (2 * share + cosine) / 3

from 0 to 1, or exactly 1 if the thumbnails are equal. It depends on the two images and the basis only, so adding images
changes no score. An image whose thumbnail is constant has no descriptor and is in no pair.

The basis is fitted once, to a sample of the lake's first images, and kept in the table `bases`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.inner_product import best_products, best_view_join
from pipeline.dedup.joins.streaming import map_in_order, one_blas_thread
from pipeline.dedup.photo.descriptor import PLAIN, VIEWS, Basis, describe, fit
from pipeline.dedup.photo.thumbnails import CHANNELS, SIDE, Floats, thumbnails
from pipeline.dedup.photo.verify_pair import shared_structure
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Positions, number_or_nan
from pipeline.hashing import hash_rows

FAMILY = "photo"
# Minimum cosine of two descriptors.
_MIN_COSINE = 0.55
# Number of pairs verified, and of images described, by one thread at a time.
_VERIFIED_PAIRS = 1024
_DESCRIBED_IMAGES = 2048


def rule(parameter: str | None) -> "Photo":
    """Make the rule.

    Args:
        parameter: the minimum score, such as "0.5".

    Returns:
        The rule, without a basis.

    Raises:
        ValueError: the parameter is not a number above 0, up to 1.
    """
    least = number_or_nan(parameter or "")
    if not 0 < least <= 1:
        raise ValueError("it takes the least score, above 0 and up to 1; write photo:0.5")
    return Photo(least)


@dataclass(frozen=True)
class Photo:
    """The rule, ready to run; see `Comparison`.

    Attributes:
        least: minimum score of a pair.
        basis: basis of the descriptors; None until it is fitted.
    """

    least: float
    basis: Basis | None = None

    @property
    def equal_signatures(self) -> bool:
        """False: all duplicates are paired."""
        return False

    def index(self, pixels: Pixels) -> Entries:
        """Make the entries of images of one shape from their thumbnails. Images of all shapes are compared."""
        vector = thumbnails(pixels).reshape(len(pixels), -1)
        digests = hash_rows(vector).view(">i8").astype(np.int64)
        return Entries(digests[:, 0], digests[:, 1], vector)

    def fit(self, sample: Entries) -> bytes:
        """Fit a basis to a sample of the index."""
        with one_blas_thread():
            return fit(_images(sample)).to_bytes()

    def using(self, basis: bytes) -> "Photo":
        """Return the rule with a basis that was fitted before."""
        return replace(self, basis=Basis.from_bytes(basis))

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair whose descriptors are close enough and whose score reaches the minimum."""
        a = self._descriptors(left)
        b = a if right is None else self._descriptors(right)
        other = left if right is None else right
        for i, j in best_view_join(a, None if right is None else b, _MIN_COSINE):
            cosine, view = best_products(a[:, i], b[:, j])
            near = cosine >= _MIN_COSINE
            scores = _scores(left.take(i[near]), other.take(j[near]), cosine[near], view[near])
            reached = scores >= np.float32(self.least)
            yield Candidates(i[near][reached], j[near][reached], scores[reached])

    def _descriptors(self, entries: Entries) -> Floats:
        if self.basis is None:
            raise AssertionError("rule photo needs a basis before it compares images")
        basis, images = self.basis, _images(entries)
        starts = range(0, len(images), _DESCRIBED_IMAGES)
        parts = map_in_order(lambda start: describe(images[start : start + _DESCRIBED_IMAGES], basis), starts)
        return np.concatenate([describe(images[:0], basis), *parts], axis=1)


def _images(entries: Entries) -> Pixels:
    return entries.vector.reshape(-1, SIDE, SIDE, CHANNELS)


def _scores(left: Entries, right: Entries, cosine: NDArray[np.float64], view: Positions) -> Floats:
    """Verify pairs in both directions and take the better result, so that the order of the two does not matter."""
    a, b = _images(left), _images(right)
    forward, backward = _initial_shifts(view)

    def share(start: int) -> Floats:
        part = slice(start, start + _VERIFIED_PAIRS)
        one = shared_structure(a[part], b[part], forward[part, :4], forward[part, 4] > 0)
        other = shared_structure(b[part], a[part], backward[part, :4], backward[part, 4] > 0)
        return np.maximum(one, other)

    parts = map_in_order(share, range(0, len(cosine), _VERIFIED_PAIRS))
    shares = np.concatenate([np.empty(0, np.float32), *parts])
    equal = (left.key == right.key) & (left.signature == right.signature)
    return np.where(equal, np.float32(1), (2 * shares + cosine.astype(np.float32)) / np.float32(3))


def _initial_shifts(view: Positions) -> tuple[Floats, Floats]:
    """Derive the initial alignment of pairs from the view with the best product.

    Args:
        view: (p,) int64, as `best_products` returns it.

    Returns:
        Two (p, 5) float32: shifts that align the left image with the right one (see `thumbnails.warp`) and whether it
        is mirrored; then the same for the right image.
    """
    views = np.array([PLAIN, *VIEWS], dtype=np.float32)
    of_right = view > len(VIEWS)
    across, down, size, mirrored = views[np.where(of_right, view - len(VIEWS), view)].T
    sign = np.where(mirrored > 0, np.float32(1), np.float32(-1))
    log = np.log(size)
    viewed = np.stack([across, down, log, log, mirrored], axis=1)
    undone = np.stack([sign * across / size, -down / size, -log, -log, mirrored], axis=1)
    is_right = of_right[:, None]
    return np.where(is_right, undone, viewed), np.where(is_right, viewed, undone)
