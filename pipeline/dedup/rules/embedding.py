"""embedding:NAME:t: the cosine of two vectors that the user brought is t or more.

The score is the inner product of the stored vectors, float32 and scaled to length 1, in float64. A vector of zeros has
no direction and is in no pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.joins.vectors import near_vectors
from pipeline.dedup.rules.comparison import Candidates, Entries

_CACHED = 2**20
# What scaling to length 1 and rounding to float32 can add to a product of two vectors.
_SLACK = 2.0**-20


def rule(parameter: str | None) -> "Embedding":
    """Make the rule.

    Raises:
        ValueError: the parameter is no name and least cosine.
    """
    name, _, least = (parameter or "").rpartition(":")
    try:
        threshold = float(least)
    except ValueError:
        threshold = 0.0
    if not name or not 0 < threshold <= 1:
        raise ValueError(
            "it takes the name of an [[embedding]] and the least cosine, above 0; write embedding:clip:0.9"
        )
    return Embedding(name, threshold)


@dataclass(frozen=True)
class Embedding:
    """The rule, ready to run; see `Comparison`.

    Attributes:
        name: of the recipe's `[[embedding]]`.
        least: the least score of a pair.
    """

    name: str
    least: float

    @property
    def equal_signatures(self) -> bool:
        """No: pairs say it all."""
        return False

    def candidates(self, left: Entries, right: Entries | None) -> Iterator[Candidates]:
        """Find every pair that reaches the least score, with its score."""
        a = _vectors(left)
        b = a if right is None else _vectors(right)
        for i, j in near_vectors(a, None if right is None else b, self.least - _SLACK):
            scores = _products(a, b, i, j)
            reached = scores >= self.least
            yield Candidates(i[reached], j[reached], scores[reached].astype(np.float32))


def entries(vectors: NDArray[np.float32]) -> Entries:
    """Describe images by vectors that the user brought.

    Args:
        vectors: (n, d) of any floating type, finite.

    Returns:
        Entries whose vector is that vector, scaled to length 1, as d float32.
    """
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = (wide / np.where(length > 0, length, 1)).astype(np.float32)
    key = np.full(len(unit), unit.shape[1], dtype=np.int64)
    return Entries(key, (length[:, 0] > 0).astype(np.int64), unit.view(np.uint8))


def _vectors(side: Entries) -> NDArray[np.float32]:
    return np.ascontiguousarray(side.vector).view(np.float32)


def _products(
    a: NDArray[np.float32], b: NDArray[np.float32], i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    out = np.empty(len(i), dtype=np.float64)
    step = max(1, _CACHED // max(1, a.shape[1]))
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        out[part] = np.einsum("ij,ij->i", a[i[part]].astype(np.float64), b[j[part]].astype(np.float64))
    return out
