"""The second look at a pair: lay one picture over the other and ask how much of what could agree does.

Both pictures are filtered to a band of frequencies. In a small window around every second pixel their correlation r
says that -log(1 - r^2) / 2 of information is shared (the mutual information of two Gaussians), where no more is to be
had than the window's contrast over the noise allows. The ratio of both sums tells a copy from a chance likeness: sky
and other smooth areas have little to share and weigh little, and a busy picture gains nothing by being busy.

Register pairs of pictures: find the shift and stretch that lays one over the other, by robust Gauss-Newton steps.

References:
    Baker, Matthews, "Lucas-Kanade 20 Years On: A Unifying Framework", IJCV 56(3), 2004. The weights are Cauchy's, see
    Holland, Welsch, "Robust regression using iteratively reweighted least-squares", 1977.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import (
    CENTRE,
    FROM_CENTRE,
    SIDE,
    Pixels,
    both_ways,
    coordinates,
    opposite,
    smoothing,
    taps,
    warped,
)

Floats = NDArray[np.float32]

# Smoothing of both pictures and steps on it: roughly first, then finely.
_ROUNDS = ((smoothing(2.0), 3), (smoothing(1.0), 4))
# Every second pixel, without the edge.
_SEEN = slice(2, SIDE - 2, 2)
# Of a step and of all steps together: pixels, and logarithm of the stretch.
_STEP_MOST = np.array([1.0, 1.0, 0.06, 0.06], np.float32)
_MOST = np.array([6.0, 6.0, 0.35, 0.35], np.float32)
# Damping, in proportion and absolute: a stretch has to be worth it.
_DAMPED, _RELUCTANT = 1.02, np.array([0.002, 0.002, 0.12, 0.12], np.float32)
# Variance in gray values squared that is noise.
_STEP_NOISE = 4.0
_GAIN_MOST, _GAIN_DAMPED = 3.0, 0.02
_TYPICAL, _TYPICAL_LEAST = 2.0, 0.05
_BADNESS = 0.3


def register(left: Floats, right: Floats, start: Floats) -> Floats:
    """Find how to look at the left pictures so that they lie over the right ones.

    Light and contrast are free, and what one picture has and the other has not weighs little. Each pair is registered
    on its own.

    Args:
        left: (p, 32, 32) float32, gray values 0 to 255.
        right: the same shape.
        start: (p, 4) float32, see `warp.warped`.

    Returns:
        (p, 4) float32: of all steps the one that fits best.
    """
    at = start
    for smooth, steps in _ROUNDS:
        goal = _scaled(_seen(both_ways(smooth, right)))
        at = _descend(both_ways(smooth, left), goal, at, steps)
    return at


class _Fit(NamedTuple):
    """How pairs fit: residuals (p, m), weights of the steps' next, badness (p,), and what a slope needs."""

    residual: Floats
    deviation: Floats
    badness: Floats
    down: Floats
    across: Floats
    rows: Floats


def _descend(left: Floats, goal: Floats, at: Floats, steps: int) -> Floats:
    best, least = at, np.full(len(at), np.inf, np.float32)
    weights = np.ones_like(goal)
    for step in range(steps + 1):
        fit = _fit(left, goal, at, weights)
        better = fit.badness < least
        best, least = np.where(better[:, None], at, best), np.where(better, fit.badness, least)
        if step < steps:
            typical = _TYPICAL * np.median(np.abs(fit.residual), axis=1, keepdims=True) + _TYPICAL_LEAST
            weights = (1 / (1 + (fit.residual / typical) ** 2)).astype(np.float32)
            at = np.clip(at - _step(left, fit, at, weights), -_MOST, _MOST)
    return best


def _fit(left: Floats, goal: Floats, at: Floats, weights: Floats) -> _Fit:
    """Lay the left pictures over the goal, with the offset and gain that fit best under the weights."""
    eyes = FROM_CENTRE[_SEEN]
    across, down = taps(coordinates(at, 0, eyes)).swapaxes(1, 2), taps(coordinates(at, 1, eyes))
    rows = np.matmul(left, across)
    seen = np.matmul(down, rows).reshape(goal.shape)
    total = weights.sum(axis=1, keepdims=True)
    seen = seen - (weights * seen).sum(axis=1, keepdims=True) / total
    deviation = np.sqrt((weights * seen * seen).sum(axis=1, keepdims=True) / total + np.float32(_STEP_NOISE))
    seen /= deviation
    wanted = goal - (weights * goal).sum(axis=1, keepdims=True) / total
    power = (weights * wanted * wanted).sum(axis=1, keepdims=True) + np.float32(_GAIN_DAMPED) * total
    gain = np.clip((weights * seen * wanted).sum(axis=1, keepdims=True) / power, 0, _GAIN_MOST)
    residual = seen - gain * wanted
    badness = np.log1p((residual / np.float32(_BADNESS)) ** 2).mean(axis=1)
    return _Fit(residual, deviation, badness, down, across, rows)


def _step(left: Floats, fit: _Fit, at: Floats, weights: Floats) -> Floats:
    """Make a damped Gauss-Newton step."""
    eyes = FROM_CENTRE[_SEEN]
    steep_across = taps(coordinates(at, 0, eyes), slope=True).swapaxes(1, 2)
    steep_down = taps(coordinates(at, 1, eyes), slope=True)
    by_across = np.matmul(fit.down, np.matmul(left, steep_across))
    by_down = np.matmul(steep_down, fit.rows)
    stretch = np.exp(at[:, 2:])[:, :, None, None]
    slopes = np.stack(
        [by_across, by_down, by_across * eyes * stretch[:, 0], by_down * eyes[:, None] * stretch[:, 1]], axis=1
    ).reshape(len(at), 4, -1)
    slopes /= fit.deviation[:, None]
    weighed = slopes * weights[:, None]
    total = weights.sum(axis=1)[:, None, None]
    curve = np.matmul(weighed, slopes.swapaxes(1, 2)) / total
    corner = np.arange(4)
    curve[:, corner, corner] = curve[:, corner, corner] * np.float32(_DAMPED) + _RELUCTANT
    downhill = np.matmul(weighed, fit.residual[..., None]) / total
    step: Floats = np.clip(np.linalg.solve(curve, downhill)[..., 0], -_STEP_MOST, _STEP_MOST)
    return step


def _seen(pictures: Floats) -> Floats:
    return pictures[:, _SEEN, _SEEN].reshape(len(pictures), -1)


def _scaled(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    scaled: Floats = centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(_STEP_NOISE))
    return scaled


_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FINE, _COARSE = smoothing(1.0), smoothing(2.8)
_AT = np.arange(2, SIDE - 2, 2)
_WINDOW = smoothing(2.0)[_AT]
# Variance of noise in the band, in gray values squared: what JPEG leaves.
_NOISE = np.float32(0.67)
_SURE = np.float32(0.995)
# Added to the information that is available: next to nothing shared of next to nothing proves nothing.
_DOUBT = np.float32(5.0)


def look(left: Pixels, right: Pixels, start: Floats, mirrored: NDArray[np.bool_]) -> Floats:
    """Look at pairs closely.

    Args:
        left: (p, 32, 32, 3) uint8.
        right: the same shape.
        start: (p, 4) float32, about how the left picture, mirrored or not, lies on the right one; see `warp.warped`.
        mirrored: (p,) bool, whether the left picture is mirrored first.

    Returns:
        (p,) float32, 0 to 1: the share of the structure that the pair has in common; 0 where a picture is constant.
        Each pair is judged on its own.
    """
    x, y = left.astype(np.float32) @ _LUMA, right.astype(np.float32) @ _LUMA
    x[mirrored] = x[mirrored][:, :, ::-1]
    there = register(x, y, start)
    back = opposite(there)
    shared: Floats = (_shared(warped(x, there), y, there) + _shared(warped(y, back), x, back)) / np.float32(2)
    return shared


def _shared(seen: Floats, other: Floats, shifts: Floats) -> Floats:
    a, b = (both_ways(_FINE, pictures) - both_ways(_COARSE, pictures) for pictures in (seen, other))
    aa, bb, ab = both_ways(_WINDOW, a * a), both_ways(_WINDOW, b * b), both_ways(_WINDOW, a * b)
    likeness = np.maximum(ab, 0) / np.sqrt((np.maximum(aa, 0) + _NOISE) * (np.maximum(bb, 0) + _NOISE))
    shared = -np.log1p(-np.minimum(likeness * likeness, _SURE)) / 2
    available = np.log1p(np.sqrt(np.maximum(aa * bb, 0)) / _NOISE) / 2
    inside = _inside(shifts)
    ratio: Floats = (shared * inside).sum(axis=(1, 2)) / ((available * inside).sum(axis=(1, 2)) + _DOUBT)
    return ratio


def _inside(shifts: Floats) -> NDArray[np.bool_]:
    """Tell which windows look at the inside of the picture that was shifted."""
    eyes = FROM_CENTRE[_AT]
    across, down = (np.abs(coordinates(shifts, axis, eyes) - CENTRE) <= CENTRE + np.float32(0.5) for axis in (0, 1))
    inside: NDArray[np.bool_] = down[:, :, None] & across[:, None, :]
    return inside
