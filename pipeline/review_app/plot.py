"""Draw precision by score as SVG. Colours and fonts come from the style sheet."""

from typing import Any, NamedTuple

import numpy as np

from pipeline.review_app.precision import Floats, Proposal

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 40
_TICKS = 5


class Plot(NamedTuple):
    """The numbers of the drawing, in pixels.

    Attributes:
        width: of the drawing.
        height: of the drawing.
        band: points of the polygon of the interval.
        line: points of the line of the precision.
        bins: x, y, low, high and a description of every bin of decided pairs.
        x_ticks: x and text.
        y_ticks: y and text.
        target: y of the wanted precision.
        threshold: x of the proposed threshold; None without one.
        frame: left, right, top and bottom of the axes.
    """

    width: int
    height: int
    band: str
    line: str
    bins: list[dict[str, Any]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    target: float
    threshold: float | None
    frame: tuple[int, int, int, int]


def draw_precision(found: Proposal) -> Plot:
    """Compute the drawing of a proposal."""
    low, high = float(found.scores[0]), float(found.scores[-1])
    span = high - low or 1.0
    floor = min(0.5, float(found.low.min()), *(one.low for one in found.bins))

    def x(score: float) -> float:
        return round(_LEFT + (score - low) / span * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(share: float) -> float:
        return round(_TOP + (1 - share) / (1 - floor) * (_HEIGHT - _TOP - _BOTTOM), 1)

    def points(scores: Floats, shares: Floats) -> list[str]:
        return [f"{x(score)},{y(share)}" for score, share in zip(scores.tolist(), shares.tolist(), strict=True)]

    middle = [(one.least + one.most) / 2 for one in found.bins]
    return Plot(
        _WIDTH,
        _HEIGHT,
        " ".join([*points(found.scores, found.high), *points(found.scores[::-1], found.low[::-1])]),
        " ".join(points(found.scores, found.precision)),
        [
            {
                "x": x(min(max(score, low), high)),
                "y": y(one.same / one.pairs),
                "low": y(one.low),
                "high": y(one.high),
                "text": f"{one.same} of {one.pairs} decided pairs with scores from {one.least:.4f} to {one.most:.4f}",
            }
            for score, one in zip(middle, found.bins, strict=True)
        ],
        [(x(score), f"{score:.3f}") for score in np.linspace(low, high, _TICKS).tolist()],
        [(y(share), f"{share:.0%}") for share in np.linspace(floor, 1, _TICKS).tolist()],
        y(max(found.target, floor)),
        None if found.threshold is None else x(found.threshold),
        (_LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM),
    )
