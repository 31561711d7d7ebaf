"""hamming:d: perceptual hashes that differ in at most d bits.

Unlike the rules that are decided by keys, this one is no equivalence: of three pictures the first and the last can be
further than d bits apart, though both are near the second.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.phash import dct_hashes, gradient_hashes

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


def rule(parameter: str | None) -> Hamming:
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
