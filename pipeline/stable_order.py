"""Pseudo-random order without a random generator: a number for every item, computed from its identity and a seed.

The number depends on the item and the seed only. An order made of these numbers is therefore the same on any engine,
for any number of cores and for any listing order, and adding an item does not move the others.

References:
    SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. The constants of the
    finaliser are David Stafford's ("Mix13").
"""

import numpy as np
import xxhash
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)


def mix64(words: Words) -> Words:
    """Scramble 64-bit words with the SplitMix64 step, a bijection whose output looks random.

    Args:
        words: uint64 of any shape.

    Returns:
        uint64 of the same shape; unequal inputs give unequal outputs.
    """
    out = words + _GOLDEN_RATIO
    out ^= out >> np.uint64(30)
    out *= _MULTIPLIER_1
    out ^= out >> np.uint64(27)
    out *= _MULTIPLIER_2
    out ^= out >> np.uint64(31)
    return out


def order_keys(image_ids: NDArray[np.uint8], seed: int, purpose: str) -> Words:
    """Compute the number to sort each image by.

    Args:
        image_ids: (n, 16) uint8.
        seed: the user's seed; any integer.
        purpose: what the order is used for. Orders with one seed and different purposes are independent.

    Returns:
        (n,) uint64, uniform over the whole range.
    """
    halves = np.ascontiguousarray(image_ids).view("<u8").astype(np.uint64, copy=False)
    digest = xxhash.xxh3_128_digest(f"{seed}\0{purpose}".encode())
    salt = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    return mix64(mix64(halves[:, 0] ^ salt[0]) ^ halves[:, 1] ^ salt[1])
