"""embedding:NAME:t: the cosine of two vectors that the user provides is t or more.

The score is the inner product, computed in float64, of the stored vectors, which are float32 of length 1. A zero vector
has no direction and is in no pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.inner_product import inner_product_join
from pipeline.dedup.rules.comparison import Candidates, Entries, Positions, number_or_nan

# Number of vector values in one block, for the cache.
_BLOCK_VALUES = 2**20
# Bounds the error in an inner product from scaling to length 1 and rounding to float32.
_SLACK = 2.0**-20

Vectors = NDArray[np.float32]


def rule(parameter: str | None) -> "Embedding":
    """Make the rule.

    Args:
        parameter: name of an embedding, a colon and the minimum cosine, such as "clip:0.9".

    Returns:
        The rule.

    Raises:
        ValueError: the parameter is not a name and a number above 0, up to 1.
    """
    name, _, least = (parameter or "").rpartition(":")
    threshold = number_or_nan(least)
    if not name or not 0 < threshold <= 1:
        raise ValueError(
            "it takes the name of an [[embedding]] and a minimum cosine, above 0 and up to 1; write embedding:clip:0.9"
        )
    return Embedding(name, threshold)


@dataclass(frozen=True)
class Embedding:
    """The rule, ready to run; see `Comparison`.

    Attributes:
        name: name of the recipe's `[[embedding]]`.
        least: minimum score of a pair.
    """

    name: str
    least: float

    @property
    def equal_signatures(self) -> bool:
        """False: all duplicates are paired."""
        return False

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair that reaches the minimum score, with its score."""
        a = _vectors(left)
        b = a if right is None else _vectors(right)
        for i, j in inner_product_join(a, None if right is None else b, self.least - _SLACK):
            scores = _inner_products(a, b, i, j)
            reached = scores >= self.least
            yield Candidates(i[reached], j[reached], scores[reached].astype(np.float32))


def entries(vectors: Vectors) -> Entries:
    """Make entries of vectors that the user provides.

    Args:
        vectors: (n, d) of any floating type, finite.

    Returns:
        Entries whose vector is the given one, scaled to length 1, as d float32. The key is d; the signature is 0 for a
        zero vector, else 1.
    """
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = (wide / np.where(length > 0, length, 1)).astype(np.float32)
    key = np.full(len(unit), unit.shape[1], dtype=np.int64)
    return Entries(key, (length[:, 0] > 0).astype(np.int64), unit.view(np.uint8))


def _vectors(side: Entries) -> Vectors:
    return np.ascontiguousarray(side.vector).view(np.float32)


def _inner_products(a: Vectors, b: Vectors, i: Positions, j: Positions) -> NDArray[np.float64]:
    out = np.empty(len(i), dtype=np.float64)
    step = max(1, _BLOCK_VALUES // max(1, a.shape[1]))
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        out[part] = np.einsum("ij,ij->i", a[i[part]].astype(np.float64), b[j[part]].astype(np.float64))
    return out
