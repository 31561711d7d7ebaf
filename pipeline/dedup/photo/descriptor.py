"""Describe thumbnails by whitened principal components, as they are and in several views.

Natural photographs have most of their energy in low frequencies, so the cosine of their pixels ranks two skies above
two copies. Whitening gives every component the same weight, so that rare features count.

A view is the thumbnail shifted, mirrored or enlarged a little. Two images are compared as they are, and the views of
each with the other as it is. A shift of one image is the opposite shift of the other, so half of the shifts are enough,
and the score does not depend on the order of the two images.
"""

from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import CENTRE, CHANNELS, FROM_CENTRE, SIDE, Floats, Pixels, interpolation

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


class View(NamedTuple):
    """A change of a thumbnail: mirrored or not, then enlarged by 1 / size, then shifted by pixels of the thumbnail."""

    across: float
    down: float
    size: float
    mirrored: bool


_SHIFT = 1.25
PLAIN = View(0.0, 0.0, 1.0, mirrored=False)
# The shifts of both images together cover all eight directions. Shifted mirror images would add more unrelated images
# than copies.
VIEWS = (
    *(View(x * _SHIFT, y * _SHIFT, 1.0, mirrored=False) for x, y in ((1, 0), (0, 1), (1, 1), (1, -1))),
    View(0.0, 0.0, 0.9, mirrored=False),
    View(0.0, 0.0, 1.0, mirrored=True),
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


def fit(images: Pixels) -> Basis:
    """Fit a basis to a sample of thumbnails.

    Args:
        images: (n, 32, 32, 3) uint8. A few thousand are enough; with fewer than a thousand the last components are
            noise.

    Returns:
        The basis.
    """
    rows = _normalize(images).astype(np.float64)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(_VALUES)
    rows -= mean
    variances, vectors = np.linalg.eigh(rows.T @ rows / max(1, len(rows)))
    variances, vectors = variances[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    min_variance = max(_MIN_VARIANCE_SHARE * float(variances[0]), 1e-12)
    return Basis(mean.astype(np.float32), (vectors / np.sqrt(np.maximum(variances, min_variance))).astype(np.float32))


def describe(images: Pixels, basis: Basis) -> Floats:
    """Compute the descriptors of thumbnails and of their views.

    Args:
        images: (n, 32, 32, 3) uint8.
        basis: see `fit`.

    Returns:
        (1 + views, n, 96) float32 of length 1, or 0 if an image is constant: first the images as they are, then
        `VIEWS` in this order.
    """
    out = np.empty((1 + len(VIEWS), len(images), COMPONENTS), dtype=np.float32)
    components = basis.components.astype(np.float64)
    scale = _COMPONENT_UNIT / max(float(np.abs(components).max(initial=0)), 1e-30)
    integer_components = np.rint(components * scale)
    for start in range(0, len(images), _BLOCK_IMAGES):
        block = images[start : start + _BLOCK_IMAGES].astype(np.float32)
        for number, view in enumerate((PLAIN, *VIEWS)):
            # Sums of integers are exact in any order. With floats, BLAS rounds a row differently at another position.
            rows = np.rint((_normalize(_apply(view, block)) - basis.mean).astype(np.float64) * _IMAGE_UNIT)
            projected = (rows @ integer_components).astype(np.float32)
            out[number, start : start + _BLOCK_IMAGES] = _to_unit_length(projected, block)
    return out


def _normalize(images: NDArray[np.uint8] | Floats) -> Floats:
    """Halve thumbnails, subtract each channel's mean and scale to length 1, which removes brightness and contrast."""
    x = images.astype(np.float32)
    halved = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / np.float32(4)
    halved -= halved.mean(axis=(1, 2), keepdims=True)
    rows = halved.reshape(len(halved), _VALUES)
    scaled: Floats = rows / np.sqrt(np.einsum("ij,ij->i", rows, rows) + np.float32(_CONTRAST_DAMPING))[:, None]
    return scaled


def _to_unit_length(rows: Floats, images: Floats) -> Floats:
    """Scale rows to length 1; rows of constant images become 0."""
    constant = np.ptp(images.reshape(len(images), -1, CHANNELS), axis=1).max(axis=1) == 0
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    length[constant | (length == 0)] = np.inf
    scaled: Floats = rows / length[:, None]
    return scaled


def _apply(view: View, images: Floats) -> Floats:
    if view == PLAIN:
        return images
    turned = images[:, :, ::-1] if view.mirrored else images
    across, down = _view_matrices(view)
    rows = np.matmul(down, turned.reshape(len(turned), SIDE, SIDE * CHANNELS)).reshape(images.shape)
    changed: Floats = np.matmul(across, rows)
    return changed


@lru_cache(maxsize=len(VIEWS))
def _view_matrices(view: View) -> tuple[Floats, Floats]:
    """Make the (32, 32) matrices that turn a row, and a column, of an image into those of its view."""
    size = np.float32(view.size)
    across, down = (
        interpolation((CENTRE + size * FROM_CENTRE + np.float32(shift))[None])[0] for shift in (view.across, view.down)
    )
    return across, down
