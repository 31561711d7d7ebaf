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
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.baselines.effort import Effort
from pipeline.baselines.intervals import Interval, estimate, newcombe, over_seeds, wilson
from pipeline.baselines.parts import Part

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
