"""From which images of a role every fit got right to rows of scores: accuracies, what leaked, and their intervals.

Metrics, all for one train size and role:

    accuracy        0 to 1, of one seed on one part of the role
    accuracy_mean   estimate over all seeds, and accuracy_low, accuracy_high: its 95 % interval over seeds
    wilson_low      and wilson_high: 95 % interval of accuracy_mean for other test images of the same kind
    leak            -1 to 1, of one seed: accuracy on the original less that on the sanitized part, by a rule
    leak_mean       estimate over all seeds, and leak_low, leak_high: its 95 % interval over seeds, of paired
                    differences. It holds also whatever makes overlapping pictures easier or harder than others: at
                    small train sizes, where few of their twins are drawn, that is most of it.
    images          images in a part
    seeds           fits that the intervals over seeds stand on; 1: no spread could be measured, and accuracy_low and
                    accuracy_high are Wilson's interval, leak_low and leak_high Newcombe's, of the test images
    train_dropped   images that may be trained on although the split's sanitizing drops them

Confidence intervals of 95 %: over seeds, of a share of test images, and of the difference of two such shares.

Two errors are kept apart. What another training sample would change is the spread over seeds (`over_seeds`). What
other test images would change is the error of a share of n images (`wilson`, `newcombe`); training more often does not
make it smaller.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.eval_data import Part
from pipeline.baselines.fit import Effort

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


Row = dict[str, Any]


class Fit(NamedTuple):
    """What one trained model got right.

    Attributes:
        seed: of the fit.
        effort: what the fit took.
        correct: (n,) bool, in the order of the role's images.
    """

    seed: int
    effort: Effort
    correct: NDArray[np.bool_]


def measure(fits: Sequence[Fit], parts: Sequence[Part], *, resampled: bool, train_dropped: int) -> Iterator[Row]:
    """Measure the fits of one train size.

    Args:
        fits: one per seed, the first seed first.
        parts: made by `parts.name_parts`: the original first.
        resampled: whether seeds after the first had bootstrap samples; see `intervals.over_seeds`.
        train_dropped: images that may be trained on although sanitizing drops them.

    Yields:
        eval_on, rule, metric, value, seed, seconds, memory. Rows over all seeds have the first seed, the seconds of all
        together and the memory of the one with most.
        An empty part has its row of images alone, and no leak is measured where nothing is sanitized.
    """
    whole = _accuracies(fits, parts[0])
    usual = over_seeds(whole, resampled=resampled)
    yield _over_all(fits, "original", None, "seeds", len(fits) if usual else 1)
    yield _over_all(fits, "original", None, "train_dropped", train_dropped)
    for part in parts:
        images = int(part.rows.sum())
        yield _over_all(fits, part.eval_on, part.rule, "images", images)
        if images:
            values = _accuracies(fits, part)
            among = wilson(estimate(values, resampled=resampled), images)
            found = over_seeds(values, resampled=resampled) or among
            yield from _rows(fits, (part.eval_on, part.rule), "accuracy", values, _clipped(found, 0))
            yield _over_all(fits, part.eval_on, part.rule, "wilson_low", among.low)
            yield _over_all(fits, part.eval_on, part.rule, "wilson_high", among.high)
    for sanitized in (part for part in parts if part.eval_on == "sanitized" and part.rows.any()):
        values = [score - rest for score, rest in zip(whole, _accuracies(fits, sanitized), strict=True)]
        found = over_seeds(values, resampled=resampled) or _leak_of_one(fits[0], sanitized)
        yield from _rows(fits, ("original", sanitized.rule), "leak", values, _clipped(found, -1))


def _leak_of_one(fit: Fit, sanitized: Part) -> Interval:
    """Estimate the leak of one fit: it is the share of the overlap times (overlap less sanitized)."""
    overlap = ~sanitized.rows
    seen, rest = int(overlap.sum()), int(sanitized.rows.sum())
    if not seen:
        return Interval(0.0, 0.0, 0.0)
    gap = newcombe(float(fit.correct[overlap].mean()), seen, float(fit.correct[sanitized.rows].mean()), rest)
    share = seen / (seen + rest)
    # The difference itself as it is in the row of the seed, to the last bit.
    difference = float(fit.correct.mean()) - float(fit.correct[sanitized.rows].mean())
    return Interval(difference, gap.low * share, gap.high * share)


def _accuracies(fits: Sequence[Fit], part: Part) -> list[float]:
    return [float(np.mean(fit.correct[part.rows])) for fit in fits]


def _clipped(found: Interval, lowest: int) -> Interval:
    return Interval(found.mean, max(float(lowest), found.low), min(1.0, found.high))


def _rows(
    fits: Sequence[Fit], where: tuple[str, str | None], metric: str, values: Sequence[float], found: Interval
) -> Iterator[Row]:
    """Spell out a metric of every seed, its estimate and the ends of its interval."""
    for fit, value in zip(fits, values, strict=True):
        yield row_of(*where, metric, value, fit.seed, fit.effort)
    for end, value in found._asdict().items():
        yield _over_all(fits, *where, f"{metric}_{end}", value)


def _over_all(fits: Sequence[Fit], eval_on: str, rule: str | None, metric: str, value: float) -> Row:
    most = max((fit.effort.memory for fit in fits if fit.effort.memory is not None), default=None)
    effort = Effort(sum(fit.effort.seconds for fit in fits), most)
    return row_of(eval_on, rule, metric, value, fits[0].seed, effort)


def row_of(eval_on: str, rule: str | None, metric: str, value: float, seed: int, effort: Effort) -> Row:  # noqa: PLR0913, PLR0917 - the columns of the table
    """Make a row of one value: eval_on, rule, metric, value, seed, seconds, memory."""
    named = {"eval_on": eval_on, "rule": rule, "metric": metric}
    return {**named, "value": float(value), "seed": seed, **effort._asdict()}
