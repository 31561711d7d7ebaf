"""Thumbnails -> descriptors: whitened principal components, of the picture and of views of it.

Natural photographs have most of their energy in low frequencies, so the cosine of their pixels ranks two skies above
two copies. Whitening gives every component the same weight: what is rare counts. A view is the picture shifted,
mirrored or enlarged a little. Two pictures are compared as they are, and each one's views with the other as it is: a
shift of one picture is the opposite shift of the other, so half of the shifts will do for each, and the score is the
same whichever picture comes first.
"""

from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.dedup.photo.thumbnails import CENTRE, CHANNELS, FROM_CENTRE, SIDE, Pixels, taps

Floats = NDArray[np.float32]

COMPONENTS = 96
_CELLS = SIDE // 2
_NUMBERS = _CELLS * _CELLS * CHANNELS
# Added to the sum of squares: a picture with next to no contrast has next to no direction.
_QUIET = 25.0
# Components with less variance than this share of the largest are not raised further: they are noise.
_FLOOR = 1e-3
# Pictures worked on at a time, so that what is made of them stays in the cache.
_BATCH = 128
# Units in which pictures (no longer than 2) and components are whole numbers: products of 768 stay below 2^53.
_PICTURE_UNIT, _COMPONENT_UNIT = 2.0**20, 2.0**21


class View(NamedTuple):
    """How to look at a picture: mirrored or not, then enlarged by 1 / size, then shifted by pixels of the thumbnail."""

    across: float
    down: float
    size: float
    mirrored: bool


_STEP = 1.25
PLAIN = View(0.0, 0.0, 1.0, mirrored=False)
# Shifts of one picture and of the other together are all eight. Shifted mirrors bring more strangers than copies.
VIEWS = (
    *(View(x * _STEP, y * _STEP, 1.0, mirrored=False) for x, y in ((1, 0), (0, 1), (1, 1), (1, -1))),
    View(0.0, 0.0, 0.9, mirrored=False),
    View(0.0, 0.0, 1.0, mirrored=True),
)


class Basis(NamedTuple):
    """What descriptors are made with, fitted once for a lake.

    Attributes:
        mean: (768,) float32, the mean picture.
        components: (768, 96) float32, columns are principal components, divided by their deviations.
    """

    mean: Floats
    components: Floats

    def to_bytes(self) -> bytes:
        """Write the basis as float32, little-endian: the mean, then the components row by row."""
        return self.mean.astype("<f4").tobytes() + self.components.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, written: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        values = np.frombuffer(written, dtype="<f4").astype(np.float32)
        return cls(values[:_NUMBERS], values[_NUMBERS:].reshape(_NUMBERS, COMPONENTS))


def fit(pictures: Pixels) -> Basis:
    """Fit a basis to a sample.

    Args:
        pictures: (n, 32, 32, 3) uint8; some thousands are enough, and with less than a thousand the last components
            are noise.
    """
    rows = _coarse(pictures).astype(np.float64)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(_NUMBERS)
    rows -= mean
    variances, vectors = np.linalg.eigh(rows.T @ rows / max(1, len(rows)))
    variances, vectors = variances[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    least = max(_FLOOR * float(variances[0]), 1e-12)
    return Basis(mean.astype(np.float32), (vectors / np.sqrt(np.maximum(variances, least))).astype(np.float32))


def describe(pictures: Pixels, basis: Basis) -> Floats:
    """Describe pictures as they are and by their views.

    Args:
        pictures: (n, 32, 32, 3) uint8.
        basis: see `fit`.

    Returns:
        (1 + views, n, 96) float32 of length 1, or 0 where a picture is constant: first the pictures as they are, then
        their `VIEWS` in this order.
    """
    out = np.empty((1 + len(VIEWS), len(pictures), COMPONENTS), dtype=np.float32)
    components = basis.components.astype(np.float64)
    whole = np.rint(components * (_COMPONENT_UNIT / max(float(np.abs(components).max(initial=0)), 1e-30)))
    for start in range(0, len(pictures), _BATCH):
        part = pictures[start : start + _BATCH].astype(np.float32)
        for number, view in enumerate((PLAIN, *VIEWS)):
            # Whole numbers, whose sums are exact in any order: BLAS gives a row other bits at another place.
            rows = np.rint((_coarse(_seen(part, view)) - basis.mean).astype(np.float64) * _PICTURE_UNIT)
            out[number, start : start + _BATCH] = _unit((rows @ whole).astype(np.float32), part)
    return out


def _unit(rows: Floats, pictures: Floats) -> Floats:
    constant = np.ptp(pictures.reshape(len(pictures), -1, CHANNELS), axis=1).max(axis=1) == 0
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    length[constant | (length == 0)] = np.inf
    scaled: Floats = rows / length[:, None]
    return scaled


def _coarse(pictures: NDArray[np.uint8] | Floats) -> Floats:
    """Halve thumbnails, take each channel's mean away and scale to length 1: light and contrast are gone."""
    x = pictures.astype(np.float32)
    rows = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / np.float32(4)
    rows -= rows.mean(axis=(1, 2), keepdims=True)
    flat = rows.reshape(len(rows), _NUMBERS)
    scaled: Floats = flat / np.sqrt(np.einsum("ij,ij->i", flat, flat) + np.float32(_QUIET))[:, None]
    return scaled


def _seen(pictures: Floats, view: View) -> Floats:
    if view == PLAIN:
        return pictures
    turned = pictures[:, :, ::-1] if view.mirrored else pictures
    across, down = _maps(view)
    rows = np.matmul(down, turned.reshape(len(turned), SIDE, SIDE * CHANNELS)).reshape(pictures.shape)
    seen: Floats = np.matmul(across, rows)
    return seen


@lru_cache(maxsize=len(VIEWS))
def _maps(view: View) -> tuple[Floats, Floats]:
    """Make the (32, 32) matrices that take a row, or a column, to what the view shows of it."""
    size = np.float32(view.size)
    across, down = (taps((CENTRE + size * FROM_CENTRE + np.float32(by))[None])[0] for by in (view.across, view.down))
    return across, down
