"""Describe thumbnails by whitened principal components, as they are and in several views.

Natural photographs have most of their energy in low frequencies, so the cosine of their pixels ranks two skies above
two copies. Whitening gives every component the same weight, so that rare features count.

Two images are compared as they are, and the views of each with the other as it is. A shift of one image is the opposite
shift of the other, so half of the shifts are enough, and the score does not depend on the order of the two images.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import CHANNELS, Floats, Planes
from pipeline.dedup.photo.views import CELLS, HALF_SIDE, View, enlarge_colours, values, view_matrix, whole_weights

COMPONENTS = 96
_PIXELS = CELLS * CHANNELS
# Added to the sum of squares, so that an image with little contrast gets a short vector.
_CONTRAST_DAMPING = 25.0
# Components with less variance than this share of the largest are noise and are not amplified further.
_MIN_VARIANCE_SHARE = 1e-3
# What red and blue minus gray add to red, green and blue.
_COLOURS_IN_CHANNELS = np.array([[1, 0], [-0.299 / 0.587, -0.114 / 0.587], [0, 1]])


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
        numbers = np.frombuffer(data, dtype="<f4").astype(np.float32)
        return cls(numbers[:_PIXELS], numbers[_PIXELS:].reshape(_PIXELS, COMPONENTS))


def fit(images: Planes) -> Basis:
    """Fit a basis to a sample of thumbnails.

    Args:
        images: a few thousand thumbnails are enough; with fewer than a thousand the last components are noise.

    Returns:
        The basis.
    """
    rows = _rows(values(images)).astype(np.float64)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(_PIXELS)
    rows -= mean
    variances, vectors = np.linalg.eigh(rows.T @ rows / max(1, len(rows)))
    variances, vectors = variances[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    min_variance = max(_MIN_VARIANCE_SHARE * float(variances[0]), 1e-12)
    return Basis(mean.astype(np.float32), (vectors / np.sqrt(np.maximum(variances, min_variance))).astype(np.float32))


class Projection(NamedTuple):
    """The weights of thumbnails in the components of several views.

    Attributes:
        weights: (384, views * 96) float32 of whole numbers, see `whole_weights`.
        factors: (views * 96,) float32, by which the weighted sums are multiplied.
        mean: (views * 96,) float32, subtracted last, after scaling by the contrast.
    """

    weights: Floats
    factors: Floats
    mean: Floats


def make_projection(basis: Basis, views: Sequence[View]) -> Projection:
    """Make the weights of a basis for several views."""
    weights, factors = whole_weights(np.concatenate([_weights(basis, view) for view in views], axis=1))
    mean = basis.mean.astype(np.float64) @ basis.components.astype(np.float64)
    return Projection(weights, factors, np.tile(mean, len(views)).astype(np.float32))


def describe(rows: Floats, constant: NDArray[np.bool_], projection: Projection) -> Floats:
    """Compute the descriptors of thumbnails in several views.

    Every view is scaled by the contrast of the whole thumbnail before the mean is subtracted.

    Args:
        rows: (n, 384), see `values`.
        constant: (n,) which images are constant.
        projection: made by `make_projection`.

    Returns:
        (n, views, 96) float32 of length 1, or 0 if an image is constant.
    """
    projected = rows @ projection.weights
    projected *= projection.factors
    projected /= _length(_channels(rows))[:, None]
    projected -= projection.mean
    described = projected.reshape(len(rows), -1, COMPONENTS)
    length = np.sqrt(np.einsum("nvd,nvd->nv", described, described))
    length[constant[:, None] | (length == 0)] = np.inf
    described /= length[:, :, None]
    return described


def _weights(basis: Basis, view: View) -> NDArray[np.float64]:
    """Make the (384, 96) weights of values in the components of a view."""
    components = basis.components.astype(np.float64).reshape(CELLS, CHANNELS, COMPONENTS)
    components = components - components.mean(axis=0)
    matrix = view_matrix(view)
    parts = [matrix.T @ components.sum(axis=1) / 4]
    enlarged = (matrix @ enlarge_colours()).T
    parts += [enlarged @ np.einsum("pcd,c->pd", components, share) for share in _COLOURS_IN_CHANNELS.T]
    return np.concatenate(parts)


def _channels(rows: Floats) -> Floats:
    """Compute red, green and blue of 16 x 16 pixels, each minus its mean: (n, 384) to (n, 3, 256)."""
    count, side = len(rows), HALF_SIDE // 2
    cells = rows[:, CELLS:].reshape(count, 2, side, 1, side, 1)
    colours = np.broadcast_to(cells, (count, 2, side, 2, side, 2)).reshape(count, 2, CELLS)
    shares = _COLOURS_IN_CHANNELS.astype(np.float32)
    light = rows[:, :CELLS] * np.float32(0.25)
    channels = np.stack([light + red * colours[:, 0] + blue * colours[:, 1] for red, blue in shares], axis=1)
    channels -= channels.mean(axis=2, keepdims=True)
    return channels


def _length(channels: Floats) -> Floats:
    """Compute the lengths of images without brightness, damped: (n,)."""
    length: Floats = np.sqrt(np.einsum("ncp,ncp->n", channels, channels) + np.float32(_CONTRAST_DAMPING))
    return length


def _rows(rows: Floats) -> Floats:
    """Scale images without brightness to length 1, and list each pixel's channels: (n, 384) to (n, 768)."""
    channels = _channels(rows)
    scaled = channels / _length(channels)[:, None, None]
    return np.ascontiguousarray(scaled.swapaxes(1, 2)).reshape(len(rows), _PIXELS)
