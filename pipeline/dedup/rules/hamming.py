"""hamming:d: perceptual hashes that differ in at most d of 64 bits.

The relation is not transitive: of three images, the first and the last can differ in more than d bits although both are
within d bits of the second.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.hamming import hamming_join
from pipeline.dedup.perceptual_hash import dct_hashes, gradient_hashes
from pipeline.dedup.rules.comparison import Candidates, Entries, Pixels, Positions

_BITS = 64
# Hashes of unrelated images differ in 32 bits on average. Above 12 bits most pairs are unrelated, and very many.
_MAX_DISTANCE = 12

_HASH_FUNCTIONS = {"": dct_hashes, "dhash": gradient_hashes}


def rule(parameter: str | None) -> "Hamming":
    """Make the rule.

    Args:
        parameter: "6" for DCT hashes within 6 bits; "6:dhash" for gradient hashes.

    Returns:
        The rule.

    Raises:
        ValueError: the distance is not an integer from 0 to 12, or the kind of hash is unknown.
    """
    distance, colon, kind = (parameter or "").partition(":")
    known = kind in _HASH_FUNCTIONS and bool(colon) == bool(kind)
    if not known or distance not in map(str, range(_MAX_DISTANCE + 1)):
        raise ValueError(
            f"it takes how many bits may differ, 0 to {_MAX_DISTANCE}, then :dhash for gradient hashes; "
            "write hamming:6 or hamming:6:dhash"
        )
    return Hamming(int(distance), _HASH_FUNCTIONS[kind])


@dataclass(frozen=True)
class Hamming:
    """The rule, ready to run; see `Comparison`. The score is 1 - bits / 64. Pixels are not compared.

    Attributes:
        distance: number of bits that may differ, 0 to 12.
        hashes: from (n, height, width, channels) uint8 to (n,) uint64, a pure function of each image.
    """

    distance: int
    hashes: Callable[[Pixels], NDArray[np.uint64]]

    @property
    def least(self) -> float:
        """Score of two images that differ as much as the rule allows."""
        return 1 - self.distance / _BITS

    @property
    def equal_signatures(self) -> bool:
        """False: all duplicates are paired."""
        return False

    def index(self, pixels: Pixels) -> Entries:
        """Make the entries of images of one shape: key and signature are the hash. All shapes are compared."""
        words = self.hashes(pixels).view(np.int64)
        return Entries(words, words, np.empty((len(words), 0), np.uint8))

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair within the distance; see `hamming_join`."""
        other = None if right is None else _words(right.signature)
        for i, j, bits in hamming_join(_words(left.signature), other, self.distance):
            yield Candidates(i, j, (1 - bits / np.float32(_BITS)).astype(np.float32))


def _words(signature: Positions) -> NDArray[np.uint64]:
    return np.ascontiguousarray(signature).view(np.uint64)
