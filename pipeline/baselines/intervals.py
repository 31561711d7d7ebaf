"""Confidence intervals of 95 %: over seeds, of a share of test images, and of the difference of two such shares.

Two errors are kept apart. What another training sample would change is the spread over seeds (`over_seeds`). What
other test images would change is the error of a share of n images (`wilson`, `newcombe`); training more often does not
make it smaller.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

LEVEL = 0.95
_TAIL = (1 + LEVEL) / 2
_Z = 1.959963984540054  # quantile _TAIL of the standard normal distribution


class Interval(NamedTuple):
    """An estimate and the ends of its interval, all in the unit of the values; `low <= mean <= high`."""

    mean: float
    low: float
    high: float


def over_seeds(values: Sequence[float], *, resampled: bool) -> Interval | None:
    """Estimate a value and its error from repeated training.

    Without `resampled` every value is of a sample of its own: the estimate is the mean, its standard error s / sqrt(n).
    It speaks of samples of this train role: where a sample is nearly the whole role, samples share most of their
    images, and the interval is too narrow for samples of anything larger.

    With `resampled` only the first value is of the real training set, which is the whole role; the others are of
    bootstrap samples of it. These hold 63 % of its images, so that their values are lower on average and stay out of
    the estimate: it is the first value. Their spread is the standard error of that one value, and it is not divided by
    sqrt(n), as there is one training set however often it is resampled.

    Args:
        values: one per seed, the first seed first, in any unit.
        resampled: whether the values after the first are of bootstrap samples.

    Returns:
        The interval, Student's t; not clipped. None where the values have no spread to measure: below two, or below
        three with `resampled`.

    References:
        Student, "The probable error of a mean", Biometrika 6, 1908. Efron and Tibshirani, An Introduction to the
        Bootstrap, 1993, sections 6.2 (standard errors) and 12.2 (intervals of t with them).
    """
    spread = values[1:] if resampled else values
    count = len(spread)
    if count < 2:  # noqa: PLR2004 - one value has no spread
        return None
    deviation = statistics.stdev(spread)
    half = student_quantile(count - 1) * (deviation if resampled else deviation / math.sqrt(count))
    center = estimate(values, resampled=resampled)
    return Interval(center, center - half, center + half)


def estimate(values: Sequence[float], *, resampled: bool) -> float:
    """Estimate a value from repeated training: the mean, or the first where only that is of the real training set.

    Args:
        values: one per seed, the first seed first; at least one.
        resampled: as in `over_seeds`.
    """
    return values[0] if resampled else statistics.fmean(values)


def student_quantile(degrees: int) -> float:
    """Look up how many standard errors the 95 % interval of Student's t reaches to each side.

    Args:
        degrees: degrees of freedom, 1 or more.

    Returns:
        12.7 for one degree, falling to 1.96.
    """
    from scipy.special import stdtrit  # noqa: PLC0415 - what scipy.stats.t.ppf calls; only builds that train pay for it

    return float(stdtrit(degrees, _TAIL))


def wilson(share: float, images: int) -> Interval:
    """Estimate a share of all images from that of a sample of them: the score interval, good for few images too.

    Args:
        share: 0 to 1. The mean share of several models may be given: the interval is then not too narrow.
        images: sample size, 1 or more.

    Returns:
        The share and the ends of its interval, 0 to 1.

    References:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    squared = _Z * _Z / images
    center = (share + squared / 2) / (1 + squared)
    half = _Z / (1 + squared) * math.sqrt(share * (1 - share) / images + squared / (4 * images))
    # The interval reaches 0 and 1 exactly; rounding may miss them, and the share, by 1e-17.
    return Interval(share, max(0.0, min(share, center - half)), min(1.0, max(share, center + half)))


def newcombe(left: float, left_images: int, right: float, right_images: int) -> Interval:
    """Estimate the difference of two shares of different images.

    Args:
        left: first share, 0 to 1.
        left_images: images it is of, 1 or more.
        right: second share, 0 to 1.
        right_images: images it is of, 1 or more.

    Returns:
        left - right and the ends of its interval, -1 to 1.

    References:
        R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine
        17, 1998, method 10.
    """
    first, second = wilson(left, left_images), wilson(right, right_images)
    difference = left - right
    return Interval(
        difference,
        difference - math.hypot(left - first.low, second.high - right),
        difference + math.hypot(first.high - left, right - second.low),
    )
