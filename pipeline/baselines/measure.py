"""Accuracy, loss and leak of a baseline, with confidence intervals, as rows of the scores table.

Metrics, all for one train size and role:

    accuracy        0 to 1, of one seed on one part of the role
    accuracy_mean   estimate over all seeds; accuracy_low and accuracy_high are its 95 % interval over seeds
    wilson_low      with wilson_high the 95 % interval of accuracy_mean for other test images of the same kind
    loss            mean cross-entropy in nats, of one seed on the original, or on a part of the split's own sanitizing;
                    only of models with probabilities, which are clipped as in `predict`
    loss_mean       estimate over all seeds
    leak            -1 to 1, of one seed: accuracy on the original less that on the sanitized part, by a rule
    leak_mean       estimate over all seeds; leak_low and leak_high are its 95 % interval over seeds, of paired
                    differences. It also contains any other reason why overlapping images are easier or harder than
                    others. At small train sizes, which draw few of their duplicates, that is most of it.
    images          images in a part
    seeds           fits that the intervals over seeds are computed from. 1: no spread could be measured; accuracy_low
                    and accuracy_high are then Wilson's interval, leak_low and leak_high Newcombe's, of the test images
    train_dropped   images for training that the split's sanitizing drops

Two errors are separate. Another training sample would change the result by the spread over seeds (`over_seeds`). Other
test images would change it by the error of a share of n images (`wilson`, `newcombe`), which more fits do not reduce.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.eval_data import EvalPart
from pipeline.baselines.fit import Cost

LEVEL = 0.95
_TAIL = (1 + LEVEL) / 2
_Z = 1.959963984540054  # quantile _TAIL of the standard normal distribution


class Interval(NamedTuple):
    """An estimate and its confidence interval, all in the unit of the values; `low <= mean <= high`."""

    mean: float
    low: float
    high: float


def over_seeds(values: Sequence[float], *, resampled: bool) -> Interval | None:
    """Estimate a value and its error from repeated training.

    Without `resampled` every value is of its own sample: the estimate is the mean, and its standard error s / sqrt(n).
    The interval is for samples of this train role. If a sample is nearly the whole role, samples share most of their
    images, and the interval is too narrow for samples of a larger population.

    With `resampled` only the first value is of the real training set, which is the whole role; the others are of
    bootstrap samples of it. A bootstrap sample has 63 % of the images, so its value is lower on average. The estimate
    is therefore the first value alone. The spread of the others is its standard error. It is not divided by sqrt(n),
    because there is one training set, however often it is resampled.

    Args:
        values: one per seed, the first seed first, in any unit.
        resampled: whether the values after the first are of bootstrap samples.

    Returns:
        The interval by Student's t, not clipped. None if there is no spread to measure: below two values, or below
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
    """Estimate a value from repeated training: the mean, or the first value if the others are of bootstrap samples.

    Args:
        values: one per seed, the first seed first; at least one.
        resampled: as for `over_seeds`.
    """
    return values[0] if resampled else statistics.fmean(values)


def student_quantile(degrees: int) -> float:
    """Compute the half width of the 95 % interval of Student's t, in standard errors.

    Args:
        degrees: degrees of freedom, 1 or more.

    Returns:
        12.7 for one degree, falling to 1.96.
    """
    from scipy.special import stdtrit  # noqa: PLC0415 - used by scipy.stats.t.ppf; slow to import

    return float(stdtrit(degrees, _TAIL))


def wilson(share: float, images: int) -> Interval:
    """Estimate a share of all images from a sample: the score interval, which is also good for few images.

    Args:
        share: 0 to 1. It may be the mean share of several models: the interval is then not too narrow.
        images: sample size, 1 or more.

    Returns:
        The share and its interval, 0 to 1.

    References:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    squared = _Z * _Z / images
    center = (share + squared / 2) / (1 + squared)
    half = _Z / (1 + squared) * math.sqrt(share * (1 - share) / images + squared / (4 * images))
    # Rounding may move the ends past 0, 1 or the share by 1e-17.
    return Interval(share, max(0.0, min(share, center - half)), min(1.0, max(share, center + half)))


def newcombe(left: float, left_images: int, right: float, right_images: int) -> Interval:
    """Estimate the difference of two shares of different images.

    Args:
        left: first share, 0 to 1.
        left_images: sample size of the first share, 1 or more.
        right: second share, 0 to 1.
        right_images: sample size of the second share, 1 or more.

    Returns:
        left - right and its interval, -1 to 1.

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
    """The correct predictions of one fitted model.

    Attributes:
        seed: of the fit.
        cost: of the fit.
        correct: (n,) bool, in the order of the role's images.
        loss: (n,) cross-entropy in nats; None for a model without probabilities.
    """

    seed: int
    cost: Cost
    correct: NDArray[np.bool_]
    loss: NDArray[np.float64] | None = None


def measure(fits: Sequence[Fit], parts: Sequence[EvalPart], *, resampled: bool, train_dropped: int) -> Iterator[Row]:
    """Compute accuracy, loss and leak of the fits of one train size.

    Args:
        fits: one per seed, the first seed first.
        parts: made by `eval_data.name_parts`: the original first.
        resampled: whether seeds after the first had bootstrap samples; see `over_seeds`.
        train_dropped: images for training that sanitizing drops.

    Yields:
        Rows with eval_on, rule, metric, value, seed, seconds, memory. Rows over all seeds have the first seed, the
        seconds of all fits together and the memory of the fit that used most. An empty part has only its row `images`,
        and there is no leak without a sanitized part.
    """
    original = _accuracies(fits, parts[0])
    has_spread = over_seeds(original, resampled=resampled) is not None
    yield _over_all(fits, "original", None, "seeds", len(fits) if has_spread else 1)
    yield _over_all(fits, "original", None, "train_dropped", train_dropped)
    for part in parts:
        images = int(part.rows.sum())
        yield _over_all(fits, part.eval_on, part.rule, "images", images)
        if images:
            values = _accuracies(fits, part)
            of_images = wilson(estimate(values, resampled=resampled), images)
            interval = over_seeds(values, resampled=resampled) or of_images
            yield from _metric_rows(fits, (part.eval_on, part.rule), "accuracy", values, _clip(interval, 0))
            yield _over_all(fits, part.eval_on, part.rule, "wilson_low", of_images.low)
            yield _over_all(fits, part.eval_on, part.rule, "wilson_high", of_images.high)
            yield from _loss_rows(fits, part, resampled=resampled)
    for sanitized in (part for part in parts if part.eval_on == "sanitized" and part.rows.any()):
        values = [score - rest for score, rest in zip(original, _accuracies(fits, sanitized), strict=True)]
        interval = over_seeds(values, resampled=resampled) or _leak_of_one_fit(fits[0], sanitized)
        yield from _metric_rows(fits, ("original", sanitized.rule), "leak", values, _clip(interval, -1))


def _loss_rows(fits: Sequence[Fit], part: EvalPart, *, resampled: bool) -> Iterator[Row]:
    """Make rows of the loss on a part of the split's own sanitizing, of every seed and over all."""
    losses = [float(fit.loss[part.rows].mean()) for fit in fits if fit.loss is not None]
    if part.rule is not None or not losses:
        return
    for fit, value in zip(fits, losses, strict=True):
        yield score_row(part.eval_on, None, "loss", value, fit.seed, fit.cost)
    yield _over_all(fits, part.eval_on, None, "loss_mean", estimate(losses, resampled=resampled))


def _leak_of_one_fit(fit: Fit, sanitized: EvalPart) -> Interval:
    """Estimate the leak of one fit: the share of the overlap, times its accuracy less that of the sanitized part."""
    overlap = ~sanitized.rows
    inside, outside = int(overlap.sum()), int(sanitized.rows.sum())
    if not inside:
        return Interval(0.0, 0.0, 0.0)
    gap = newcombe(float(fit.correct[overlap].mean()), inside, float(fit.correct[sanitized.rows].mean()), outside)
    share = inside / (inside + outside)
    # Computed as in the row of the seed, so that both are equal to the last bit.
    difference = float(fit.correct.mean()) - float(fit.correct[sanitized.rows].mean())
    return Interval(difference, gap.low * share, gap.high * share)


def _accuracies(fits: Sequence[Fit], part: EvalPart) -> list[float]:
    return [float(np.mean(fit.correct[part.rows])) for fit in fits]


def _clip(interval: Interval, lowest: int) -> Interval:
    return Interval(interval.mean, max(float(lowest), interval.low), min(1.0, interval.high))


def _metric_rows(
    fits: Sequence[Fit], where: tuple[str, str | None], metric: str, values: Sequence[float], interval: Interval
) -> Iterator[Row]:
    """Make rows of a metric: its value for every seed, its estimate and the ends of its interval."""
    for fit, value in zip(fits, values, strict=True):
        yield score_row(*where, metric, value, fit.seed, fit.cost)
    for end, value in interval._asdict().items():
        yield _over_all(fits, *where, f"{metric}_{end}", value)


def _over_all(fits: Sequence[Fit], eval_on: str, rule: str | None, metric: str, value: float) -> Row:
    memory = max((fit.cost.memory for fit in fits if fit.cost.memory is not None), default=None)
    cost = Cost(sum(fit.cost.seconds for fit in fits), memory)
    return score_row(eval_on, rule, metric, value, fits[0].seed, cost)


def score_row(eval_on: str, rule: str | None, metric: str, value: float, seed: int, cost: Cost) -> Row:  # noqa: PLR0913, PLR0917 - the columns of the table
    """Make a row with one value: eval_on, rule, metric, value, seed, seconds, memory."""
    named = {"eval_on": eval_on, "rule": rule, "metric": metric}
    return {**named, "value": float(value), "seed": seed, **cost._asdict()}
