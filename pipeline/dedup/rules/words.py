"""Rules on 64-bit words: an image is one word, and two are near where their words differ in few bits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.bits import near_words
from pipeline.dedup.rules import hamming
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Places

_BITS = 64


def rule(parameter: str | None) -> "Words":
    """Make the rule hamming:d; see `hamming.rule`."""
    return Words(hamming.rule(parameter))


@dataclass(frozen=True)
class Words:
    """The rule, ready to run; see `Comparison`. The score is 1 - bits / 64, and no pixel is looked at again."""

    hashed: hamming.Hamming

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
