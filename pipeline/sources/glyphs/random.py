"""Random numbers with random access: a function of (seed, channel, index), without a sequence.

So blocks of files can be made in any order, in any number of processes.
"""

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.stable_order import Words, mix64

Index = NDArray[np.int64]

_STEP = np.uint64(0xD1342543DE82EF95)  # odd, so that all words of one item start from different states


def draws(seed: int, channel: str, index: Index) -> Words:
    """Return a random number for every item.

    Args:
        seed: any integer.
        channel: name of the random quantity; numbers of different channels are independent.
        index: (n,) int64, 0 or more.

    Returns:
        (n,) uint64, uniform over the whole range; a bijection of the index within one channel.
    """
    salt = np.uint64(xxhash.xxh3_64_intdigest(f"{seed}\0glyphs\0{channel}".encode()))
    return mix64(index.astype(np.uint64) ^ salt)


def draw_bytes(seed: int, channel: str, index: Index, count: int) -> NDArray[np.uint8]:
    """Return a row of random bytes for every item.

    Args:
        seed: any integer.
        channel: as for `draws`.
        index: (n,) int64, 0 or more.
        count: bytes per item, a multiple of 8.

    Returns:
        (n, count) uint8, uniform over 0 to 255.
    """
    steps = np.arange(count // 8, dtype=np.uint64) * _STEP
    words = mix64(draws(seed, channel, index)[:, None] + steps)
    return words.astype("<u8", copy=False).view(np.uint8)


def below(words: Words, bound: int | Index) -> Index:
    """Convert random words to random integers.

    Args:
        words: (n,) uint64.
        bound: number of values, 1 to 2**31; one for all items or one per item.

    Returns:
        (n,) int64, 0 to bound - 1.
    """
    return ((words >> np.uint64(32)) * np.asarray(bound).astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def between(words: Words, low: int, high: int) -> Index:
    """Convert random words to random integers from `low` to `high`, both included: (n,) int64."""
    return below(words, high - low + 1) + low
