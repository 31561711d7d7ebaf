"""What a rule is that keys alone do not decide: entries of the index, candidates among them, and a score for each."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Places = NDArray[np.int64]


class Entries(NamedTuple):
    """What the index holds of n images under one rule.

    Attributes:
        key: (n,) int64; only images that share it are compared, unless the rule says otherwise.
        signature: (n,) int64.
        vector: (n, bytes) uint8; of width 0 where the rule needs none.
    """

    key: Places
    signature: Places
    vector: Pixels

    def take(self, positions: Places | slice) -> Self:
        """Keep some of the images, in the order given."""
        return type(self)(self.key[positions], self.signature[positions], self.vector[positions])


class Candidates(NamedTuple):
    """Pairs of positions that may be the same picture.

    Attributes:
        left: (p,) int64 positions in the left entries.
        right: (p,) int64 positions in the right entries.
        score: (p,) float32 where the entries decide; None where pixels must be looked at.
    """

    left: Places
    right: Places
    score: NDArray[np.float32] | None


class Comparison(Protocol):
    """A rule that compares. Complete: of all pairs whose score reaches `least`, candidates misses none."""

    @property
    def least(self) -> float:
        """The score from which on two images are a pair; higher is closer."""

    @property
    def equal_signatures(self) -> bool:
        """Whether images with equal key and signature, not 0, are in one cluster without a pair."""

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find candidates between two sides, each once; for `right` None among the left, with left < right."""


@runtime_checkable
class FromPixels(Protocol):
    """A rule whose entries are made of pixels, and not of what the user brings."""

    def index(self, pixels: Pixels) -> Entries:
        """Describe pictures of one shape, (n, height, width, channels) uint8: a pure function of each."""


@runtime_checkable
class Verified(Protocol):
    """A rule whose candidates come without a score: their pixels decide."""

    def verify(self, pixels: Pixels, left: Places, right: Places) -> NDArray[np.float32]:
        """Score candidates by their pixels: (m, height, width, channels) uint8, and positions in them, (p,) each."""
