"""Measure pictures, batch by batch: brightness, contrast, sharpness of edges, and uniform borders.

All values are quotients of whole numbers, so they do not depend on the batch or the machine.

Sharpness is measured at edges only. Across a sharp edge, most of the change happens between two neighbouring pixels;
across a blurred edge, it takes many pixels. So the steepest change over one pixel is compared with the steepest change
over four. A picture without edges has no sharpness; the variance of its Laplacian would call it blurred.
"""

from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Pictures with a longer side are reduced before they are measured, in pixels.
LONGEST = 512
# Gray levels by which pixels of one colour may differ in a blank picture.
_SAME = 3
# The same in a border: a part of the contrast, but not less and not more than this.
_BORDER_PART, _SAME_BORDER = 16, (2, 8)
# Pixels over which a blurred edge rises.
_FAR = 4
# The part of all pixels that may be darker than `low`, and brighter than `high`.
_TAIL = 0.01
# The part of all changes that is at least as steep as `step` and `rise`.
_STEEP = 0.005
# A change over four pixels is an edge if it is at least this large, in gray levels and as a part of `high - low`.
_EDGE, _EDGE_PART = 8, 8
# Pixels that are measured at a time: about 50 bytes of memory each.
_BATCH = 2**20


class Measurements(NamedTuple):
    """What was measured of n pictures, each (n,) float32.

    Attributes:
        low: gray level that 1 % of the pixels are at or below, 0 to 255.
        high: gray level that 99 % of the pixels are at or below, 0 to 255.
        uniform: share of pixels within 3 gray levels of the median.
        step: change over one pixel that 0.5 % of all places reach, in gray levels.
        rise: the same, over four pixels.
        edges: share of places with an edge.
        border: share of the area that is a border of one colour, such as black bars.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    uniform: NDArray[np.float32]
    step: NDArray[np.float32]
    rise: NDArray[np.float32]
    edges: NDArray[np.float32]
    border: NDArray[np.float32]

    def matrix(self) -> NDArray[np.float32]:
        """Return the values as (n, 7)."""
        return np.stack(self, axis=1)


def measure(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Measure pictures of one shape.

    Args:
        pixels: (n, height, width, channels) uint8; 1 channel for gray, 3 for RGB.

    Returns:
        (n, 7) float32, the columns as in `Measurements`.
    """
    size = max(1, _BATCH // max(1, pixels[:1].size))
    parts = [_measure(pixels[at : at + size]).matrix() for at in range(0, len(pixels), size)]
    return np.concatenate([np.empty((0, len(Measurements._fields)), np.float32), *parts])


def gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn pictures gray by ITU-R 601, in whole numbers: (n, height, width) uint8."""
    if pixels.shape[3] == 1:
        return pixels[..., 0]
    red, green, blue = (pixels[..., channel].astype(np.uint16) for channel in range(3))
    return ((red * 77 + green * 150 + blue * 29 + 128) >> 8).astype(np.uint8)


def reduced(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Reduce pictures, (n, height, width, channels), so that no side is longer: means of squares of pixels."""
    count, height, width, channels = pixels.shape
    factor = ceil(max(height, width) / longest)
    if factor <= 1:
        return pixels
    # A picture that is narrower than the square is reduced along its length only.
    rows, columns = (min(factor, side) for side in (height, width))
    cut = pixels[:, : height - height % rows, : width - width % columns]
    squares = cut.reshape(count, height // rows, rows, width // columns, columns, channels)
    means: NDArray[np.uint8] = (squares.sum(axis=(2, 4), dtype=np.int64) // (rows * columns)).astype(np.uint8)
    return means


def _measure(pixels: NDArray[np.uint8]) -> Measurements:
    pictures = gray(reduced(pixels, LONGEST))
    counts = _histograms(pictures)
    low, middle, high = (_quantile(counts, part) for part in (_TAIL, 0.5, 1 - _TAIL))
    totals = np.cumsum(counts, axis=1)
    rows = np.arange(len(counts))
    above = totals[rows, np.minimum(middle + _SAME, 255)]
    below = np.where(middle > _SAME, totals[rows, np.maximum(middle - _SAME - 1, 0)], 0)
    near, far = (_changes(pictures, distance) for distance in (1, _FAR))
    rise = _quantile(far, 1 - _STEEP)
    edge = np.maximum(_EDGE, -(-(high - low) // _EDGE_PART))
    places = far.sum(axis=1)
    edges = places - np.cumsum(far, axis=1)[rows, edge - 1]
    values = (
        low,
        high,
        (above - below) / np.maximum(totals[:, -1], 1),
        _quantile(near, 1 - _STEEP),
        rise,
        edges / np.maximum(places, 1),
        _borders(pictures, high - low),
    )
    return Measurements(*(value.astype(np.float32) for value in values))


def _histograms(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the values of each picture: (n, 256)."""
    count = len(values)
    flat = values.reshape(count, -1)
    places = flat + np.arange(count)[:, None] * 256
    counted: NDArray[np.int64] = np.bincount(places.ravel(), minlength=count * 256)
    return counted.reshape(count, 256)


def _changes(pictures: NDArray[np.uint8], distance: int) -> NDArray[np.int64]:
    """Count the absolute differences of pixels at a distance, along rows and along columns: (n, 256)."""
    found = np.zeros((len(pictures), 256), np.int64)
    signed = pictures.astype(np.int16)
    for axis in (1, 2):
        if pictures.shape[axis] > distance:
            lines = np.moveaxis(signed, axis, 1)
            found += _histograms(np.abs(lines[:, distance:] - lines[:, :-distance]).astype(np.uint8))
    return found


def _quantile(counts: NDArray[np.int64], part: float) -> NDArray[np.int64]:
    """Find the smallest value that at least a part of the counted values are at or below: (n,)."""
    totals = np.cumsum(counts, axis=1)
    wanted = np.ceil(totals[:, -1:] * part)
    found: NDArray[np.int64] = (totals < wanted).sum(axis=1)
    return found


def _borders(pictures: NDArray[np.uint8], contrast: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the area that is a border of one colour on any side: (n,), 1 for a picture of one colour.

    A border ends at a straight edge: three quarters of the first line inside have other colours. The margin of a
    drawing does not.
    """
    same = np.clip(contrast // _BORDER_PART, *_SAME_BORDER).astype(np.int16)[:, None, None]
    inner = []
    for axis in (1, 2):
        lines = np.moveaxis(pictures, axis, 1).astype(np.int16)
        count = lines.shape[1]
        # Each side has the colour of its corner.
        sides = (lines, 0), (lines[:, ::-1], -1)
        widths = []
        for ordered, end in sides:
            others = (np.abs(ordered - ordered[:, :1, end, None]) > same).sum(axis=2)
            width = np.where(others.any(axis=1), (others > 0).argmax(axis=1), count)
            first = others[np.arange(len(others)), np.minimum(width, count - 1)]
            widths.append(np.where((width == count) | (4 * first >= 3 * lines.shape[2]), width, 0))
        inner.append(np.maximum(count - widths[0] - widths[1], 0))
    share: NDArray[np.float64] = 1 - inner[0] * inner[1] / (pictures.shape[1] * pictures.shape[2])
    return share
