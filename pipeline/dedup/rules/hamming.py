"""hamming:d: perceptual hashes that differ in at most d bits.

Unlike the rules that are decided by keys, this one is no equivalence: of three pictures the first and the last can be
further than d bits apart, though both are near the second.

Rules on 64-bit words: an image is one word, and two are near where their words differ in few bits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.bits import near_words
from pipeline.dedup.perceptual_hash import dct_hashes, gradient_hashes
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Places

# Hashes of unlike pictures differ in 32 bits on average; beyond these, finds are mostly strangers and very many.
_MOST = 12

_HASHES = {"": dct_hashes, "dhash": gradient_hashes}


@dataclass(frozen=True)
class Hamming:
    """What two pictures must have in common to be near.

    Attributes:
        distance: bits in which their hashes may differ, 0 to 12.
        hashes: (n, height, width, channels) uint8 to (n,) uint64, a pure function of each picture.
    """

    distance: int
    hashes: Callable[[NDArray[np.uint8]], NDArray[np.uint64]]


def _hamming(parameter: str | None) -> Hamming:
    """Make the rule.

    Args:
        parameter: "6" for DCT hashes within 6 bits; "6:dhash" for gradient hashes.

    Raises:
        ValueError: the distance is no whole number from 0 to 12, or the hash is another one.
    """
    distance, colon, kind = (parameter or "").partition(":")
    known = kind in _HASHES and bool(colon) == bool(kind)
    if not known or distance not in map(str, range(_MOST + 1)):
        raise ValueError(
            f"it takes how many bits may differ, 0 to {_MOST}, and dhash behind them for gradient hashes;"
            " write hamming:6 or hamming:6:dhash"
        )
    return Hamming(int(distance), _HASHES[kind])


_BITS = 64


def rule(parameter: str | None) -> "WordComparison":
    """Make the rule hamming:d; see `_hamming`."""
    return WordComparison(_hamming(parameter))


@dataclass(frozen=True)
class WordComparison:
    """The rule, ready to run; see `Comparison`. The score is 1 - bits / 64, and no pixel is looked at again."""

    hashed: Hamming

    @property
    def least(self) -> float:
        """The score of two images as far apart as the rule allows."""
        return 1 - self.hashed.distance / _BITS

    def index(self, pixels: Pixels) -> Entries:
        """Describe pictures of one shape: key and signature are the hash. Pictures of all shapes are compared."""
        words = self.hashed.hashes(pixels).view(np.int64)
        return Entries(words, words, np.empty((len(words), 0), np.uint8))

    @property
    def equal_signatures(self) -> bool:
        """No: pairs say it all."""
        return False

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair within the distance, by pigeonhole; see `joins.bits`."""
        other = None if right is None else _words(right.signature)
        for i, j, bits in near_words(_words(left.signature), other, self.hashed.distance):
            yield Candidates(i, j, (1 - bits / np.float32(_BITS)).astype(np.float32))


def _words(signature: Places) -> NDArray[np.uint64]:
    return np.ascontiguousarray(signature).view(np.uint64)
