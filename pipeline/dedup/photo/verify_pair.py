"""Verify a candidate pair: align one thumbnail with the other, and measure the share of structure they have in common.

`align` finds the shift and stretch between two thumbnails by robust Gauss-Newton steps. Then both are filtered to a
band of frequencies. In a small window around every second pixel, a correlation r means that -log(1 - r^2) / 2 of
information is shared (the mutual information of two Gaussians); the most that can be shared is limited by the window's
contrast above the noise. The ratio of both sums separates copies from images that are similar by chance: sky and other
smooth areas have little information to share, so they have little weight, and a busy image has no advantage.

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
    Floats,
    Pixels,
    filter_both_axes,
    interpolation,
    inverse,
    smoothing,
    source_coordinates,
    warp,
)

# Alignment: Gaussian filters of both images and the number of steps with each, coarse first.
_ROUNDS = ((smoothing(2.0), 2), (smoothing(1.0), 4))
# Minimum share after the first of them.
_MIN_COARSE_SHARE = np.float32(0.12)
# Every second pixel, without the edge.
_SAMPLED = slice(2, SIDE - 2, 2)
# Limits of one step and of all steps together: shifts in pixels, logarithms of the stretch.
_MAX_STEP = np.array([1.0, 1.0, 0.06, 0.06], np.float32)
_MAX_TOTAL = np.array([6.0, 6.0, 0.35, 0.35], np.float32)
# Damping of a step, relative and absolute. The absolute part is larger for the stretch, to avoid it if possible.
_DAMPING_FACTOR, _DAMPING = 1.02, np.array([0.002, 0.002, 0.12, 0.12], np.float32)
# Variance of noise, in squared gray values.
_ALIGNMENT_NOISE = 4.0
_MAX_GAIN, _GAIN_DAMPING = 3.0, 0.02
# The scale of residuals above which weights fall: this factor times their median, plus a minimum.
_RESIDUAL_FACTOR, _MIN_RESIDUAL = 2.0, 0.05
_MISFIT_SCALE = 0.3

# Comparison of aligned images.
_FINE, _COARSE = smoothing(1.0), smoothing(2.8)
_WINDOW_CENTRES = np.arange(2, SIDE - 2, 2)
_WINDOW = smoothing(2.0)[_WINDOW_CENTRES]
# Variance of noise in the frequency band, in squared gray values, as left by JPEG.
_BAND_NOISE = np.float32(0.67)
_MAX_SQUARED_CORRELATION = np.float32(0.995)
# Added to the available information, so that little shared of little available gives a low share.
_INFORMATION_DAMPING = np.float32(5.0)


def shared_structure(left: Pixels, right: Pixels, start: Floats) -> Floats:
    """Measure the share of structure that pairs of thumbnails have in common, aligned in the better direction.

    Args:
        left: (p, 32, 32) uint8, gray values.
        right: the same shape.
        start: (p, 4) float32, approximate shifts that align the left images with the right ones; see `warp`.

    Returns:
        (p,) float32, 0 to 1; 0 if an image is constant, or if they share next to nothing. Each result depends on its
        pair only.
    """
    x, y = left.astype(np.float32), right.astype(np.float32)
    better: Floats = np.maximum(_share_of_aligned(x, y, start), _share_of_aligned(y, x, inverse(start)))
    return better


def _share_of_aligned(x: Floats, y: Floats, start: Floats) -> Floats:
    """Align the first images with the second ones; not to the end if they share next to nothing when nearly aligned."""
    shares = np.zeros(len(x), np.float32)
    coarse, fine = _ROUNDS
    shifts = _align(x, y, start, *coarse)
    near = np.flatnonzero(_information_share(warp(x, shifts), y, shifts) >= _MIN_COARSE_SHARE)
    if not len(near):
        return shares
    x, y = x[near], y[near]
    forward = _align(x, y, shifts[near], *fine)
    backward = inverse(forward)
    both = _information_share(warp(x, forward), y, forward) + _information_share(warp(y, backward), x, backward)
    shares[near] = both / np.float32(2)
    return shares


def _align(left: Floats, right: Floats, start: Floats, smooth: Floats, steps: int) -> Floats:
    """Find the shifts and stretches that align the left images with the right ones, after smoothing.

    Brightness and contrast are ignored, and features that only one image has get little weight. Each pair is aligned
    independently.

    Returns:
        (p, 4) float32: of all steps the one that fits best.
    """
    target = _standardize(_sample(filter_both_axes(smooth, right)))
    return _descend(filter_both_axes(smooth, left), target, start, steps)


class _Fit(NamedTuple):
    """How well pairs fit: residuals (p, m), standard deviation, misfit (p,), and matrices that a step needs again."""

    residual: Floats
    deviation: Floats
    misfit: Floats
    down: Floats
    across: Floats
    rows: Floats


def _descend(left: Floats, target: Floats, shifts: Floats, steps: int) -> Floats:
    """Make Gauss-Newton steps and return the shifts of the smallest misfit."""
    best, smallest = shifts, np.full(len(shifts), np.inf, np.float32)
    weights = np.ones_like(target)
    for step in range(steps + 1):
        fit = _fit(left, target, shifts, weights)
        better = fit.misfit < smallest
        best, smallest = np.where(better[:, None], shifts, best), np.where(better, fit.misfit, smallest)
        if step < steps:
            median = np.median(np.abs(fit.residual), axis=1, keepdims=True)
            scale = _RESIDUAL_FACTOR * median + _MIN_RESIDUAL
            weights = (1 / (1 + (fit.residual / scale) ** 2)).astype(np.float32)
            shifts = np.clip(shifts - _step(left, fit, shifts, weights), -_MAX_TOTAL, _MAX_TOTAL)
    return best


def _fit(left: Floats, target: Floats, shifts: Floats, weights: Floats) -> _Fit:
    """Compare the shifted left images with the target, with the offset and gain that fit best under the weights."""
    from_centre = FROM_CENTRE[_SAMPLED]
    across = interpolation(source_coordinates(shifts, 0, from_centre)).swapaxes(1, 2)
    down = interpolation(source_coordinates(shifts, 1, from_centre))
    rows = np.matmul(left, across)
    warped = np.matmul(down, rows).reshape(target.shape)
    total = weights.sum(axis=1, keepdims=True)
    warped = warped - (weights * warped).sum(axis=1, keepdims=True) / total
    deviation = np.sqrt((weights * warped * warped).sum(axis=1, keepdims=True) / total + np.float32(_ALIGNMENT_NOISE))
    warped /= deviation
    centred = target - (weights * target).sum(axis=1, keepdims=True) / total
    power = (weights * centred * centred).sum(axis=1, keepdims=True) + np.float32(_GAIN_DAMPING) * total
    gain = np.clip((weights * warped * centred).sum(axis=1, keepdims=True) / power, 0, _MAX_GAIN)
    residual = warped - gain * centred
    misfit = np.log1p((residual / np.float32(_MISFIT_SCALE)) ** 2).mean(axis=1)
    return _Fit(residual, deviation, misfit, down, across, rows)


def _step(left: Floats, fit: _Fit, shifts: Floats, weights: Floats) -> Floats:
    """Compute a damped Gauss-Newton step."""
    from_centre = FROM_CENTRE[_SAMPLED]
    across_slope = interpolation(source_coordinates(shifts, 0, from_centre), derivative=True).swapaxes(1, 2)
    down_slope = interpolation(source_coordinates(shifts, 1, from_centre), derivative=True)
    by_across = np.matmul(fit.down, np.matmul(left, across_slope))
    by_down = np.matmul(down_slope, fit.rows)
    stretch = np.exp(shifts[:, 2:])[:, :, None, None]
    slopes = np.stack(
        [
            by_across,
            by_down,
            by_across * from_centre * stretch[:, 0],
            by_down * from_centre[:, None] * stretch[:, 1],
        ],
        axis=1,
    ).reshape(len(shifts), 4, -1)
    slopes /= fit.deviation[:, None]
    weighted = slopes * weights[:, None]
    total = weights.sum(axis=1)[:, None, None]
    hessian = np.matmul(weighted, slopes.swapaxes(1, 2)) / total
    diagonal = np.arange(4)
    hessian[:, diagonal, diagonal] = hessian[:, diagonal, diagonal] * np.float32(_DAMPING_FACTOR) + _DAMPING
    gradient = np.matmul(weighted, fit.residual[..., None]) / total
    step: Floats = np.clip(np.linalg.solve(hessian, gradient)[..., 0], -_MAX_STEP, _MAX_STEP)
    return step


def _sample(images: Floats) -> Floats:
    return images[:, _SAMPLED, _SAMPLED].reshape(len(images), -1)


def _standardize(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    scaled: Floats = centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(_ALIGNMENT_NOISE))
    return scaled


def _information_share(warped: Floats, other: Floats, shifts: Floats) -> Floats:
    """Divide the information that two aligned images share by the information they could share: (p,) 0 to 1."""
    a, b = (filter_both_axes(_FINE, images) - filter_both_axes(_COARSE, images) for images in (warped, other))
    aa, bb, ab = (filter_both_axes(_WINDOW, product) for product in (a * a, b * b, a * b))
    correlation = np.maximum(ab, 0) / np.sqrt((np.maximum(aa, 0) + _BAND_NOISE) * (np.maximum(bb, 0) + _BAND_NOISE))
    shared = -np.log1p(-np.minimum(correlation * correlation, _MAX_SQUARED_CORRELATION)) / 2
    available = np.log1p(np.sqrt(np.maximum(aa * bb, 0)) / _BAND_NOISE) / 2
    inside = _windows_inside(shifts)
    share: Floats = (shared * inside).sum(axis=(1, 2)) / ((available * inside).sum(axis=(1, 2)) + _INFORMATION_DAMPING)
    return share


def _windows_inside(shifts: Floats) -> NDArray[np.bool_]:
    """Find the windows whose centre lies inside the image that was warped."""
    from_centre = FROM_CENTRE[_WINDOW_CENTRES]
    across, down = (
        np.abs(source_coordinates(shifts, axis, from_centre) - CENTRE) <= CENTRE + np.float32(0.5) for axis in (0, 1)
    )
    inside: NDArray[np.bool_] = down[:, :, None] & across[:, None, :]
    return inside
