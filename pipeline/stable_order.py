"""Order without a generator: every item gets its own random number from its identity and a seed.

A number depends on nothing but the item, so an order made of these numbers is the same on any engine, core count and
listing order, and one image more or less moves no other.

References:
    SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; constants of its
    finaliser by David Stafford ("Mix13").
"""

import numpy as np
import xxhash
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix64(words: Words) -> Words:
    """Scramble 64-bit words: a bijection whose output passes for random.

    Args:
        words: uint64 of any shape.

    Returns:
        uint64 of the same shape; unequal inputs give unequal outputs.
    """
    out = words + _GOLDEN
    out ^= out >> np.uint64(30)
    out *= _FIRST
    out ^= out >> np.uint64(27)
    out *= _SECOND
    out ^= out >> np.uint64(31)
    return out


def order_keys(image_ids: NDArray[np.uint8], seed: int, purpose: str) -> Words:
    """Give every image a number to sort by.

    Args:
        image_ids: (n, 16) uint8.
        seed: the user's seed; any integer.
        purpose: what the order is for, so that two orders with one seed are independent.

    Returns:
        (n,) uint64, uniform over the whole range.
    """
    halves = np.ascontiguousarray(image_ids).view("<u8").astype(np.uint64, copy=False)
    digest = xxhash.xxh3_128_digest(f"{seed}\0{purpose}".encode())
    salt = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    return mix64(mix64(halves[:, 0] ^ salt[0]) ^ halves[:, 1] ^ salt[1])
