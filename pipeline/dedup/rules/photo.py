"""photo:t: the same photograph, perhaps shifted, cropped, mirrored, recoloured or compressed, by a score of t or more.

Candidates are all pairs whose descriptors (whitened principal components of a thumbnail, see `photo.descriptor`) have a
cosine of 0.55 or more, as they are or by a view of one of them; none is missed. Each is looked at again: one thumbnail
is laid over the other, and the share of structure that they have in common is measured (`photo.look`). The score is

    (2 * share + cosine) / 3

0 to 1, or 1 where the thumbnails are equal. It depends on the two pictures and on the basis alone, so adding images
changes no score. A picture whose thumbnail is constant has no descriptor, and is in no pair.

The basis is fitted once, to a sample of the lake's first images, and kept in the table `bases`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.vectors import best_products, in_order, near_by_views, one_blas_thread
from pipeline.dedup.photo.descriptor import VIEWS, Basis, describe, fit
from pipeline.dedup.photo.thumbnails import CHANNELS, SIDE, thumbnails
from pipeline.dedup.photo.verify_pair import look
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Places
from pipeline.hashing import hash_rows

FAMILY = "photo"
CANDIDATE = 0.55
_LOOKED_AT = 1024
_BATCH = 2048

Floats = NDArray[np.float32]


def rule(parameter: str | None) -> "Photo":
    """Make the rule.

    Raises:
        ValueError: the parameter is no number above 0, up to 1.
    """
    try:
        least = float(parameter or "")
    except ValueError:
        least = 0.0
    if not 0 < least <= 1:
        raise ValueError("it takes the least score, above 0 and up to 1; write photo:0.5")
    return Photo(least)


@dataclass(frozen=True)
class Photo:
    """The rule, ready to run; see `Comparison`.

    Attributes:
        least: the least score of a pair.
        basis: what descriptors are made with; None until it is fitted.
    """

    least: float
    basis: Basis | None = None

    def index(self, pixels: Pixels) -> Entries:
        """Describe pictures of one shape by their thumbnails; pictures of all shapes are compared."""
        vector = thumbnails(pixels).reshape(len(pixels), -1)
        digests = hash_rows(vector).view(">i8").astype(np.int64)
        return Entries(digests[:, 0], digests[:, 1], vector)

    def fit(self, sample: Entries) -> bytes:
        """Fit a basis to a sample of the index."""
        with one_blas_thread():
            return fit(_pictures(sample)).to_bytes()

    def using(self, basis: bytes) -> "Photo":
        """Take a basis that was fitted before."""
        return replace(self, basis=Basis.from_bytes(basis))

    @property
    def equal_signatures(self) -> bool:
        """No: pairs say it all."""
        return False

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair whose descriptors are near enough and whose second look reaches the least score."""
        a = self._described(left)
        b = a if right is None else self._described(right)
        other = left if right is None else right
        for i, j in near_by_views(a, None if right is None else b, CANDIDATE):
            cosine, view = best_products(a[:, i], b[:, j])
            near = cosine >= CANDIDATE
            scores = _scores(left.take(i[near]), other.take(j[near]), cosine[near], view[near])
            reached = scores >= np.float32(self.least)
            yield Candidates(i[near][reached], j[near][reached], scores[reached])

    def _described(self, entries: Entries) -> Floats:
        if self.basis is None:
            raise AssertionError("rule photo compares before its basis is fitted")
        basis, pictures = self.basis, _pictures(entries)
        parts = in_order(lambda at: describe(pictures[at : at + _BATCH], basis), range(0, len(pictures), _BATCH))
        return np.concatenate([describe(pictures[:0], basis), *parts], axis=1)


def _pictures(entries: Entries) -> Pixels:
    return entries.vector.reshape(-1, SIDE, SIDE, CHANNELS)


def _scores(left: Entries, right: Entries, cosine: NDArray[np.float64], view: Places) -> Floats:
    """Look at pairs from both sides and take the better look: which of the two comes first does not matter."""
    a, b = _pictures(left), _pictures(right)
    there, back = _starts(view)

    def scored(at: int) -> Floats:
        part = slice(at, at + _LOOKED_AT)
        one = look(a[part], b[part], there[part, :4], there[part, 4] > 0)
        other = look(b[part], a[part], back[part, :4], back[part, 4] > 0)
        return np.maximum(one, other)

    shares = np.concatenate([np.empty(0, np.float32), *in_order(scored, range(0, len(cosine), _LOOKED_AT))])
    equal = (left.key == right.key) & (left.signature == right.signature)
    return np.where(equal, np.float32(1), (2 * shares + cosine.astype(np.float32)) / np.float32(3))


def _starts(view: Places) -> tuple[Floats, Floats]:
    """Tell from the view that brought two pictures nearest how the left lies on the right, and the right on the left.

    Returns:
        Two of (p, 5) float32: how to look at the one to see the other, see `warp.warped`, and whether it is mirrored.
    """
    views = np.array([(0.0, 0.0, 1.0, 0.0), *VIEWS], dtype=np.float32)
    of_right = view > len(VIEWS)
    across, down, size, mirrored = views[np.where(of_right, view - len(VIEWS), view)].T
    sign = np.where(mirrored > 0, np.float32(1), np.float32(-1))
    log = np.log(size)
    seen = np.stack([across, down, log, log, mirrored], axis=1)
    undone = np.stack([sign * across / size, -down / size, -log, -log, mirrored], axis=1)
    turned = of_right[:, None]
    return np.where(turned, undone, seen), np.where(turned, seen, undone)
