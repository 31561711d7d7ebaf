"""Verify a candidate pair: align one thumbnail with the other, and measure the share of structure they have in common.

Alignment finds the shift and stretch between two thumbnails by robust Gauss-Newton steps. Then both are filtered to a
band of frequencies. In a small window around every second pixel, a correlation r means that -log(1 - r^2) / 2 of
information is shared (the mutual information of two Gaussians); the most that can be shared is limited by the window's
contrast above the noise. The ratio of both sums separates copies from images that are similar by chance: sky and other
smooth areas have little information to share, so they have little weight, and a busy image has no advantage.

Most pairs are rejected after two steps at half the resolution, in one direction.

References:
    Baker, Matthews, "Lucas-Kanade 20 Years On: A Unifying Framework", IJCV 56(3), 2004. The weights are Cauchy's, see
    Holland, Welsch, "Robust regression using iteratively reweighted least-squares", 1977.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import (
    CENTRE,
    SIDE,
    Floats,
    Pixels,
    filter_both_axes,
    interpolation,
    inverse,
    smoothing,
    source_coordinates,
)

# Minimum share of structure after the rough alignment, and after the full alignment in the first direction.
_MIN_ROUGH_SHARE, _MIN_FORWARD_SHARE = np.float32(0.06), np.float32(0.15)
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
# The larger of the two middle ones of 14 x 14 residuals in ascending order.
_MIDDLE = 98
# Variance of noise in the frequency band, in squared gray values, as left by JPEG.
_BAND_NOISE = np.float32(0.67)
_MAX_SQUARED_CORRELATION = np.float32(0.995)
# Added to the available information, so that little shared of little available gives a low share.
_INFORMATION_DAMPING = np.float32(5.0)


class _Resolution(NamedTuple):
    """A size of images, and the filters of images of this size.

    Attributes:
        step: pixels of a thumbnail along one side of a pixel.
        from_centre: (side,) float32, coordinates of the pixels relative to the centre, in pixels of a thumbnail.
        sampled: the 14 pixels along one axis that are compared: every second one of a thumbnail, without the edge.
        smooth: (side, side) the filter that images are smoothed by before they are aligned.
        fine: (side, side) the filter at the upper end of the frequency band; None if no frequency is too high.
        coarse: (side, side) the filter at its lower end.
        window: (14, side) the filter that adds up a window around every sampled pixel.
    """

    step: int
    from_centre: Floats
    sampled: slice
    smooth: Floats
    fine: Floats | None
    coarse: Floats
    window: Floats

    @classmethod
    def of(cls, step: int, *, smooth: float, fine: float | None, coarse: float) -> Self:
        """Make the filters, given the deviations of the first three in pixels of a thumbnail."""
        side = SIDE // step
        edge = 2 // step
        from_centre = (np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)) * np.float32(step)
        sampled = slice(edge, side - edge, edge)
        a, b, c, d = (smoothing((deviation or 1) / step, side) for deviation in (smooth, fine, coarse, 2.0))
        return cls(step, from_centre, sampled, a, None if fine is None else b, c, d[sampled])

    def matrices(self, shifts: Floats, axis: int, from_centre: Floats, *, derivative: bool = False) -> Floats:
        """Make matrices that interpolate shifted images along one axis; see `thumbnails.interpolation`."""
        places = source_coordinates(shifts, axis, from_centre) / np.float32(self.step)
        places -= np.float32((self.step - 1) / (2 * self.step))
        return interpolation(places, len(self.from_centre), derivative=derivative)

    def warp(self, images: Floats, shifts: Floats) -> Floats:
        """Shift and stretch images of this size: (p, side, side) to the same shape."""
        across, down = (self.matrices(shifts, axis, self.from_centre) for axis in (0, 1))
        warped: Floats = np.matmul(np.matmul(down, images), across.swapaxes(1, 2))
        return warped


_HALF = _Resolution.of(2, smooth=1.6, fine=None, coarse=2.0)
_FULL = _Resolution.of(1, smooth=1.0, fine=1.0, coarse=2.8)
_ROUGH_STEPS, _STEPS = 2, 4
# Pairs that are aligned at a time, so that their images stay in the processor's cache.
_ROUGH_PAIRS, _FINE_PAIRS = 512, 128


def shared_structure(left: Pixels, right: Pixels, start: Floats) -> Floats:
    """Measure the share of structure that pairs of thumbnails have in common, aligned in the better direction.

    Only the direction from left to right is tried if little is found in it.

    Args:
        left: (p, 32, 32) uint8, gray values.
        right: the same shape.
        start: (p, 4) float32, approximate shifts that align the left images with the right ones: the shift across and
            down in pixels, then the logarithm of the stretch across and down. A pixel of the aligned image has the
            left image's value at centre + stretch * (pixel - centre) + shift.

    Returns:
        (p,) float32, 0 to 1; 0 if an image is constant, or if they share next to nothing when the left image is roughly
        aligned. Each result depends on its pair only.
    """
    shares, rough = np.zeros(len(left), np.float32), np.empty((len(left), 4), np.float32)
    for part in _parts(len(left), _ROUGH_PAIRS):
        rough[part], shares[part] = _align_roughly(_halve(left[part]), _halve(right[part]), start[part])
    near = np.flatnonzero(shares >= _MIN_ROUGH_SHARE)
    shares[shares < _MIN_ROUGH_SHARE] = 0
    for part in _parts(len(near), _FINE_PAIRS):
        x, y, shifts = left[near[part]].astype(np.float32), right[near[part]].astype(np.float32), rough[near[part]]
        forward = _share_of_aligned(x, y, shifts)
        both = np.flatnonzero(forward >= _MIN_FORWARD_SHARE)
        if len(both):
            backward = _share_of_aligned(y[both], x[both], inverse(shifts[both]))
            forward[both] = np.maximum(forward[both], backward)
        shares[near[part]] = forward
    return shares


def _parts(count: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, count, step)]


def _align_roughly(x: Floats, y: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Make two steps that align images of half the size, and measure the share of structure in one direction."""
    left, target = _smooth(x, y, _HALF)
    shifts, weights = start, np.ones_like(target)
    for _ in range(_ROUGH_STEPS):
        shifts, weights = _step(left, _fit(left, target, shifts, weights, _HALF), shifts, _HALF)
    return shifts, _information_share(x, y, shifts, _HALF)


def _share_of_aligned(x: Floats, y: Floats, start: Floats) -> Floats:
    """Align the first images with the second ones, and average the shares of both directions."""
    forward = _align(x, y, start)
    backward = inverse(forward)
    both = _information_share(x, y, forward, _FULL) + _information_share(y, x, backward, _FULL)
    average: Floats = both / np.float32(2)
    return average


def _halve(images: Pixels) -> Floats:
    """Resize images by area: (p, 32, 32) to (p, 16, 16)."""
    pairs = images[:, ::2].astype(np.uint16) + images[:, 1::2]
    sums = pairs[:, :, ::2] + pairs[:, :, 1::2]
    return sums.astype(np.float32) / np.float32(4)


def _align(left: Floats, right: Floats, start: Floats) -> Floats:
    """Find the shifts and stretches that align the left images with the right ones, after smoothing.

    Brightness and contrast are ignored, and features that only one image has get little weight. Each pair is aligned
    independently.

    Returns:
        (p, 4) float32: of all steps the one that fits best.
    """
    left, target = _smooth(left, right, _FULL)
    shifts = best = start
    smallest, weights = np.full(len(shifts), np.inf, np.float32), np.ones_like(target)
    for step in range(_STEPS + 1):
        fit = _fit(left, target, shifts, weights, _FULL)
        better = fit.misfit < smallest
        best, smallest = np.where(better[:, None], shifts, best), np.where(better, fit.misfit, smallest)
        if step < _STEPS:
            shifts, weights = _step(left, fit, shifts, _FULL)
    return best


def _smooth(left: Floats, right: Floats, size: _Resolution) -> tuple[Floats, Floats]:
    """Smooth images before they are aligned, and sample and standardize the right ones."""
    sampled = filter_both_axes(size.smooth, right)[:, size.sampled, size.sampled].reshape(len(right), -1)
    centred = sampled - sampled.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(_ALIGNMENT_NOISE))
    return filter_both_axes(size.smooth, left), centred / deviation


class _Fit(NamedTuple):
    """How well pairs fit: residuals (p, m), standard deviation, misfit (p,), and matrices that a step needs again."""

    residual: Floats
    deviation: Floats
    misfit: Floats
    down: Floats
    across: Floats
    rows: Floats


def _fit(left: Floats, target: Floats, shifts: Floats, weights: Floats, size: _Resolution) -> _Fit:
    """Compare the shifted left images with the target, with the offset and gain that fit best under the weights."""
    sampled = size.from_centre[size.sampled]
    across, down = size.matrices(shifts, 0, sampled).swapaxes(1, 2), size.matrices(shifts, 1, sampled)
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


def _step(left: Floats, fit: _Fit, shifts: Floats, size: _Resolution) -> tuple[Floats, Floats]:
    """Make a damped Gauss-Newton step; return the shifts and the weights of the samples."""
    residual = np.abs(fit.residual)
    median = np.partition(residual, _MIDDLE, axis=1)[:, _MIDDLE, None]
    scale = np.float32(_RESIDUAL_FACTOR) * median + np.float32(_MIN_RESIDUAL)
    weights = 1 / (1 + (residual / scale) ** 2)
    from_centre = size.from_centre[size.sampled]
    across_slope = size.matrices(shifts, 0, from_centre, derivative=True).swapaxes(1, 2)
    down_slope = size.matrices(shifts, 1, from_centre, derivative=True)
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
    slopes /= fit.deviation[:, None] * np.float32(size.step)
    weighted = slopes * weights[:, None]
    total = weights.sum(axis=1)[:, None, None]
    hessian = np.matmul(weighted, slopes.swapaxes(1, 2)) / total
    diagonal = np.arange(4)
    hessian[:, diagonal, diagonal] = hessian[:, diagonal, diagonal] * np.float32(_DAMPING_FACTOR) + _DAMPING
    gradient = np.matmul(weighted, fit.residual[..., None]) / total
    step = np.clip(np.linalg.solve(hessian, gradient)[..., 0], -_MAX_STEP, _MAX_STEP)
    return np.clip(shifts - step, -_MAX_TOTAL, _MAX_TOTAL), weights


def _information_share(images: Floats, other: Floats, shifts: Floats, size: _Resolution) -> Floats:
    """Divide the information that two images, one of them shifted, share by what they could share: (p,) 0 to 1."""
    a, b = (
        (some if size.fine is None else filter_both_axes(size.fine, some)) - filter_both_axes(size.coarse, some)
        for some in (size.warp(images, shifts), other)
    )
    aa, bb, ab = (filter_both_axes(size.window, product) for product in (a * a, b * b, a * b))
    correlation = np.maximum(ab, 0) / np.sqrt((np.maximum(aa, 0) + _BAND_NOISE) * (np.maximum(bb, 0) + _BAND_NOISE))
    shared = -np.log1p(-np.minimum(correlation * correlation, _MAX_SQUARED_CORRELATION)) / 2
    available = np.log1p(np.sqrt(np.maximum(aa * bb, 0)) / _BAND_NOISE) / 2
    inside = _windows_inside(shifts, size)
    share: Floats = (shared * inside).sum(axis=(1, 2)) / ((available * inside).sum(axis=(1, 2)) + _INFORMATION_DAMPING)
    return share


def _windows_inside(shifts: Floats, size: _Resolution) -> NDArray[np.bool_]:
    """Find the windows whose centre lies inside the image that was warped."""
    from_centre = size.from_centre[size.sampled]
    across, down = (
        np.abs(source_coordinates(shifts, axis, from_centre) - CENTRE) <= CENTRE + np.float32(0.5) for axis in (0, 1)
    )
    inside: NDArray[np.bool_] = down[:, :, None] & across[:, None, :]
    return inside
