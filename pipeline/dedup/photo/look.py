"""The second look at a pair: lay one picture over the other and ask how much of what could agree does.

Both pictures are filtered to a band of frequencies. In a small window around every second pixel their correlation r
says that -log(1 - r^2) / 2 of information is shared (the mutual information of two Gaussians), where no more is to be
had than the window's contrast over the noise allows. The ratio of both sums tells a copy from a chance likeness: sky
and other smooth areas have little to share and weigh little, and a busy picture gains nothing by being busy.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.register import register
from pipeline.dedup.photo.thumbnails import SIDE, Pixels
from pipeline.dedup.photo.warp import CENTRE, FROM_CENTRE, both_ways, coordinates, opposite, smoothing, warped

Floats = NDArray[np.float32]

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
