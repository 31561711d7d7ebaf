"""How precise a rule is by score, and which threshold follows, from pairs that people have decided.

People decide some of the stored pairs. The share of "same" among them is fitted by an isotonic regression: the higher
the score, the more likely a pair is the same. The precision of a threshold is the mean of that fit over all stored
pairs with the score or more, so it does not matter which scores people have looked at most. Each stored pair counts for
the nearest decided score; where few decided pairs stand for many stored ones, the interval is wide (effective number of
Kish).

References:
    Kish (1965), Survey sampling, on the effective number of weighted observations.
    Wilson (1927), Probable inference, the law of succession, and statistical inference.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Fewer decided pairs say nothing.
LEAST = 20
_BINS = 8
# Scores at which the precision is computed: quantiles of the stored pairs.
_POINTS = 200
_Z = 1.959964
Floats = NDArray[np.float64]


class Bin(NamedTuple):
    """Decided pairs of similar scores.

    Attributes:
        least: lowest score of them.
        most: highest score of them.
        pairs: number of decided pairs.
        same: number of them that are the same.
        low: lower end of the Wilson interval, 95 %, of the share that is the same.
        high: its upper end.
    """

    least: float
    most: float
    pairs: int
    same: int
    low: float
    high: float


class Proposal(NamedTuple):
    """What the decided pairs say about a rule.

    Attributes:
        target: the wanted precision.
        decided: number of decided pairs.
        bins: decided pairs by score, lowest scores first.
        scores: (n,) thresholds, ascending.
        precision: (n,) share of the stored pairs with at least that score that are the same.
        low: (n,) lower end of its interval, 95 %.
        high: (n,) its upper end.
        threshold: the lowest threshold whose precision reaches the target; None if none does.
        surest: the lowest threshold whose precision reaches the target even at the lower end of its interval; None if
            none does.
        boldest: the lowest threshold whose precision may reach the target, at the upper end of its interval. The
            interval of the threshold, 95 %, is from this one to `surest`.
        kept: number of stored pairs with that score or more; 0 without a threshold.
    """

    target: float
    decided: int
    bins: list[Bin]
    scores: Floats
    precision: Floats
    low: Floats
    high: Floats
    threshold: float | None
    boldest: float | None
    surest: float | None
    kept: int


def propose(
    stored: NDArray[np.float32], scores: NDArray[np.float32], same: NDArray[np.bool_], target: float
) -> Proposal:
    """Estimate the precision of every threshold, and propose one. Deterministic.

    Args:
        stored: (m,) scores of all stored pairs of the rule.
        scores: (n,) scores of the decided pairs, at least `LEAST`.
        same: (n,) whether they are the same.
        target: wanted precision, 0 to 1.
    """
    points, weights = _population(stored)
    values, place = np.unique(scores.astype(np.float64), return_inverse=True)
    decided = np.bincount(place).astype(np.float64)
    same_of = np.bincount(place, weights=same).astype(np.float64)
    precision = _precision(points, weights, values, decided, same_of)
    low, high = wilson(precision, _effective(points, weights, values, decided))
    threshold = _first(points, precision >= target)
    kept = 0 if threshold is None else int(np.count_nonzero(stored >= np.float32(threshold)))
    return Proposal(
        target,
        len(scores),
        bins_of(scores, same),
        points,
        precision,
        low,
        high,
        threshold,
        _first(points, high >= target),
        _first(points, low >= target),
        kept,
    )


def bins_of(scores: NDArray[np.float32], same: NDArray[np.bool_]) -> list[Bin]:
    """Group decided pairs by score into bins of about equal numbers; equal scores are in one bin."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, _BINS + 1), method="lower"))
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, max(0, len(edges) - 2))
    made = []
    for number in np.unique(place).tolist():
        inside = place == number
        pairs, good = int(inside.sum()), int(same[inside].sum())
        low, high = wilson(np.array(good / pairs), np.array(pairs))
        made.append(Bin(float(scores[inside].min()), float(scores[inside].max()), pairs, good, float(low), float(high)))
    return made


def wilson(share: Floats, of: Floats) -> tuple[Floats, Floats]:
    """Compute the ends of the Wilson intervals, 95 %, of shares of numbers of observations."""
    squared = _Z * _Z
    middle = (share + squared / (2 * of)) / (1 + squared / of)
    half = _Z / (1 + squared / of) * np.sqrt(share * (1 - share) / of + squared / (4 * of * of))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _population(stored: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return thresholds, ascending, and the number of stored pairs from each up to the next."""
    points = np.unique(np.quantile(stored, np.linspace(0, 1, _POINTS + 1), method="lower"))
    counts = np.bincount(np.searchsorted(points, stored, side="right") - 1, minlength=len(points))
    return points.astype(np.float64), counts.astype(np.float64)


def _precision(points: Floats, weights: Floats, values: Floats, decided: Floats, same: Floats) -> Floats:
    """Fit the share of the same by score, and average it over the stored pairs from each threshold up."""
    from scipy.optimize import isotonic_regression  # noqa: PLC0415 - slow to import

    fit = isotonic_regression(same / decided, weights=decided).x
    return _from_above(np.interp(points, values, fit) * weights) / _from_above(weights)


def _effective(points: Floats, weights: Floats, values: Floats, decided: Floats) -> Floats:
    """Return for every threshold how many decided pairs its estimate is worth."""
    nearest = np.searchsorted((values[1:] + values[:-1]) / 2, points)
    of_values = np.zeros((len(points), len(values)))
    of_values[np.arange(len(points)), nearest] = weights
    stand_for = _from_above(of_values)
    worth: Floats = stand_for.sum(axis=1) ** 2 / (stand_for**2 / decided).sum(axis=1)
    return worth


def _from_above(values: Floats) -> Floats:
    return np.cumsum(values[::-1], axis=0)[::-1]


def _first(points: Floats, reached: NDArray[np.bool_]) -> float | None:
    return float(points[reached.argmax()]) if reached.any() else None
