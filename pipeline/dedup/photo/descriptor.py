"""Describe thumbnails by whitened principal components, as they are and in several views.

Natural photographs have most of their energy in low frequencies, so the cosine of their pixels ranks two skies above
two copies. Whitening gives every component the same weight, so that rare features count.

A view is the thumbnail shifted, mirrored or enlarged a little. Two images are compared as they are, and the views of
each with the other as it is. A shift of one image is the opposite shift of the other, so half of the shifts are enough,
and the score does not depend on the order of the two images.
"""

from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import CENTRE, CHANNELS, FROM_CENTRE, SIDE, Floats, Planes, interpolation

COMPONENTS = 96
_HALF_SIDE = SIDE // 2
_VALUES = _HALF_SIDE * _HALF_SIDE * CHANNELS
# Added to the sum of squares, so that an image with little contrast gets a short vector.
_CONTRAST_DAMPING = 25.0
# Components with less variance than this share of the largest are noise and are not amplified further.
_MIN_VARIANCE_SHARE = 1e-3
# Number of images in one block, so that temporary arrays stay in the cache.
_BLOCK_IMAGES = 128
# Images (of length 2 or less) and components are rounded to integers in these units: sums of 768 products stay below
# 2^53.
_IMAGE_UNIT, _COMPONENT_UNIT = 2.0**20, 2.0**21
# Weights of a view along the rows, sums of them, and weights along the columns are rounded to integers in these units:
# sums stay below 2^24, so that float32 is exact.
_ROW_UNIT, _SUM_UNIT, _COLUMN_UNIT = 2.0**15, 2.0**4, 2.0**11
# Weights of red and blue in green, given their differences from gray.
_RED_IN_GREEN, _BLUE_IN_GREEN = np.float32(-0.299 / 0.587), np.float32(-0.114 / 0.587)


class View(NamedTuple):
    """A change of a thumbnail: mirrored or tilted, then enlarged by 1 / size, then shifted by its pixels."""

    across: float
    down: float
    size: float
    mirrored: bool = False
    degrees: float = 0.0


_SHIFT = 1.25
PLAIN = View(0.0, 0.0, 1.0)
# A small turn. A turn of one image is the opposite turn of the other.
TILTED = View(0.0, 0.0, 1.0, degrees=5.0)
# The shifts of both images together cover all eight directions. Shifted mirror images would add more unrelated images
# than copies.
VIEWS = (
    *(View(x * _SHIFT, y * _SHIFT, 1.0) for x, y in ((1, 0), (0, 1), (1, 1), (1, -1))),
    View(0.0, 0.0, 0.9),
    View(0.0, 0.0, 0.75),
    View(0.0, 0.0, 1.0, mirrored=True),
    TILTED,
)


class Basis(NamedTuple):
    """The basis of descriptors, fitted once for a lake.

    Attributes:
        mean: (768,) float32, the mean image.
        components: (768, 96) float32, columns are principal components, divided by their standard deviations.
    """

    mean: Floats
    components: Floats

    def to_bytes(self) -> bytes:
        """Serialize the basis as float32, little-endian: the mean, then the components row by row."""
        return self.mean.astype("<f4").tobytes() + self.components.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a basis that `to_bytes` wrote."""
        values = np.frombuffer(data, dtype="<f4").astype(np.float32)
        return cls(values[:_VALUES], values[_VALUES:].reshape(_VALUES, COMPONENTS))


def fit(images: Planes) -> Basis:
    """Fit a basis to a sample of thumbnails.

    Args:
        images: a few thousand thumbnails are enough; with fewer than a thousand the last components are noise.

    Returns:
        The basis.
    """
    rows = _interleave(_rows(images, PLAIN)).astype(np.float64)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(_VALUES)
    rows -= mean
    variances, vectors = np.linalg.eigh(rows.T @ rows / max(1, len(rows)))
    variances, vectors = variances[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    min_variance = max(_MIN_VARIANCE_SHARE * float(variances[0]), 1e-12)
    return Basis(mean.astype(np.float32), (vectors / np.sqrt(np.maximum(variances, min_variance))).astype(np.float32))


def describe(images: Planes, basis: Basis, views: tuple[View, ...] = (PLAIN, *VIEWS)) -> Floats:
    """Compute the descriptors of thumbnails in several views.

    Args:
        images: n thumbnails.
        basis: see `fit`.
        views: by default, the images as they are, then `VIEWS`.

    Returns:
        (views, n, 96) float32 of length 1, or 0 if an image is constant.
    """
    count = len(images.gray)
    out = np.empty((len(views), count, COMPONENTS), dtype=np.float32)
    mean, components = (_separate(values) for values in (basis.mean, basis.components.astype(np.float64)))
    scale = _COMPONENT_UNIT / max(float(np.abs(components).max(initial=0)), 1e-30)
    integer_components = np.rint(components * scale)
    for start in range(0, count, _BLOCK_IMAGES):
        part = slice(start, start + _BLOCK_IMAGES)
        block = Planes(images.gray[part], images.colour[part])
        constant = block.constant()
        for number, view in enumerate(views):
            # Sums of integers are exact in any order. With floats, BLAS rounds a row differently at another position.
            rows = np.rint((_rows(block, view) - mean).astype(np.float64) * _IMAGE_UNIT)
            projected = (rows @ integer_components).astype(np.float32)
            length = np.sqrt(np.einsum("ij,ij->i", projected, projected))
            length[constant | (length == 0)] = np.inf
            out[number, part] = projected / length[:, None]
    return out


def _rows(images: Planes, view: View) -> Floats:
    """Halve a view of thumbnails, subtract each channel's mean and scale to length 1.

    This removes brightness and contrast.

    Returns:
        (n, 768) float32, one channel after the other.
    """
    count = len(images.gray)
    if view.degrees:
        images = images.tilt(view.degrees)
    light = _halved(images.gray, view)
    red, blue = (_halved(images.colour[:, number], view) for number in (0, 1))
    channels = np.stack([light + red, light + _RED_IN_GREEN * red + _BLUE_IN_GREEN * blue, light + blue], axis=1)
    channels -= channels.mean(axis=2, keepdims=True)
    rows = channels.reshape(count, _VALUES)
    scaled: Floats = rows / np.sqrt(np.einsum("ij,ij->i", rows, rows) + np.float32(_CONTRAST_DAMPING))[:, None]
    return scaled


def _halved(plane: NDArray[np.uint8] | NDArray[np.int16], view: View) -> Floats:
    """Compute the 16 x 16 pixels of a view of one plane, exactly: (n, side, side) to (n, 256)."""
    count, side = plane.shape[:2]
    across, down = _view_matrices(view, side)
    rows = plane.reshape(count * side, side).astype(np.float32) @ across
    sums = np.rint(rows * np.float32(_SUM_UNIT / _ROW_UNIT)).reshape(count, side, _HALF_SIDE)
    columns = np.ascontiguousarray(sums.swapaxes(1, 2)).reshape(count * _HALF_SIDE, side) @ down
    turned = columns.reshape(count, _HALF_SIDE, _HALF_SIDE).swapaxes(1, 2)
    return np.ascontiguousarray(turned).reshape(count, -1) * np.float32(1 / (_SUM_UNIT * _COLUMN_UNIT))


@lru_cache(maxsize=4 * (1 + len(VIEWS)))
def _view_matrices(view: View, side: int) -> tuple[Floats, Floats]:
    """Make the (side, 16) matrices that turn a row, and a column, of a plane into those of its view, as integers."""
    halve = np.repeat(np.eye(_HALF_SIDE), SIDE // _HALF_SIDE, axis=1) / (SIDE // _HALF_SIDE)
    enlarge = np.repeat(np.eye(side), SIDE // side, axis=0)
    size = np.float32(view.size)
    across, down = (
        halve @ interpolation((CENTRE + size * FROM_CENTRE + np.float32(shift))[None])[0] @ enlarge
        for shift in (view.across, view.down)
    )
    if view.mirrored:
        across = across[:, ::-1]
    return (
        np.rint(across * _ROW_UNIT).T.astype(np.float32, order="C"),
        np.rint(down * _COLUMN_UNIT).T.astype(np.float32, order="C"),
    )


def _separate(values: NDArray[np.generic]) -> NDArray[Any]:
    """Reorder the 768 values of pixels from one channel after the other in each pixel to one plane after the other."""
    pixels = values.reshape(_HALF_SIDE * _HALF_SIDE, CHANNELS, -1).swapaxes(0, 1)
    return np.ascontiguousarray(pixels).reshape(values.shape)


def _interleave(rows: Floats) -> Floats:
    """Undo `_separate` for (n, 768) rows."""
    return np.ascontiguousarray(rows.reshape(len(rows), CHANNELS, -1).swapaxes(1, 2)).reshape(rows.shape)
