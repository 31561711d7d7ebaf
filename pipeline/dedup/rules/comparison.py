"""The interface of rules that compare images: entries of the index, candidate pairs, and a score for each pair."""

from collections.abc import Iterator
from math import nan
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Positions = NDArray[np.int64]


def number_or_nan(text: str) -> float:
    """Parse a number in a rule's parameter; NaN, which is outside any range, if the text is not a number."""
    try:
        return float(text)
    except ValueError:
        return nan


class Entries(NamedTuple):
    """The index entries of n images under one rule.

    Attributes:
        key: (n,) int64; in most rules, only images with equal keys are compared.
        signature: (n,) int64.
        vector: (n, bytes) uint8; of width 0 if the rule needs none.
    """

    key: Positions
    signature: Positions
    vector: Pixels

    def take(self, positions: Positions | slice) -> Self:
        """Select some of the images, in the given order."""
        return type(self)(self.key[positions], self.signature[positions], self.vector[positions])


class Candidates(NamedTuple):
    """Pairs that may be duplicates.

    Attributes:
        left: (p,) int64 positions in the left entries.
        right: (p,) int64 positions in the right entries.
        score: (p,) float32 if the entries decide; None if the pixels must be compared.
    """

    left: Positions
    right: Positions
    score: NDArray[np.float32] | None


class Comparison(Protocol):
    """A rule that compares images. Its candidates include every pair whose score reaches `least`."""

    @property
    def least(self) -> float:
        """Minimum score of a pair; a higher score means more similar images."""

    @property
    def equal_signatures(self) -> bool:
        """Whether images with equal key and equal signature, not 0, are in one cluster without being paired."""

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find candidates between two sides, each once. If `right` is None: among the left, with left < right."""


@runtime_checkable
class FromPixels(Protocol):
    """A rule whose entries are made of pixels, not provided by the user."""

    def index(self, pixels: Pixels) -> Entries:
        """Make the entries of images of one shape, (n, height, width, channels) uint8; a pure function of each."""


@runtime_checkable
class Verified(Protocol):
    """A rule whose candidates have no score until their pixels are compared."""

    @property
    def least(self) -> float:
        """Minimum score of a pair."""

    def verify(self, pixels: Pixels, left: Positions, right: Positions) -> NDArray[np.float32]:
        """Score candidates by pixels, (m, height, width, channels) uint8, and positions in them, (p,) each."""
