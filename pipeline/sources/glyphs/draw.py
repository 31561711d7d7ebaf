"""From indices to pixels: letters turned, stretched, shifted and made noisy, then stamped with their index.

No two originals are equal, by construction and not by luck: the last step writes the file's index, scrambled
by a bijection, into the lowest bit of 64 fixed pixels of the border, so files with unequal indices differ in
one of them whatever they show. Near copies carry their own index and are therefore equal to nothing. Only the
lowest bit changes: 127 never becomes 128, so a stamp changes no sign of any pixel.

The same seed gives the same pixels on any processor: sines are rounded and all later arithmetic is on
integers or on fractions so short that float64 holds every intermediate result exactly.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.glyphs.chance import Index, between, draw_bytes, draws
from pipeline.sources.glyphs.faces import CANVAS, FACES, LONGEST, STROKES, template

SIDE = 28
_OVER = 2  # letters are sampled at twice the size and averaged down: smooth edges at half a bicubic's cost
_STEPS = 4096  # coefficients are multiples of 1 / 4096
_TURNS = 60  # in quarter degrees, either way

Pictures = NDArray[np.uint8]

_BORDER = np.ones((SIDE, SIDE), dtype=bool)
_BORDER[1:-1, 1:-1] = False
_STAMPED = np.flatnonzero(_BORDER)[:64]


def draw_letters(letters: NDArray[np.uint8], index: Index, seed: int) -> Pictures:
    """Draw letters, each in its own face, weight, size, width, angle, place and noise.

    Args:
        letters: (n,) uint8, 0 for A to 9 for J.
        index: (n,) int64, the index that fixes the looks of each.
        seed: the set's seed.

    Returns:
        (n, 28, 28) uint8, white (255) on black (0), not stamped.
    """
    faces = between(draws(seed, "face", index), 0, len(FACES) - 1)
    weights = between(draws(seed, "weight", index), 0, len(STROKES) - 1)
    sampled = _sample(zip(faces.tolist(), letters.tolist(), weights.tolist(), strict=True), _affine(index, seed))
    tiles = sampled.reshape(-1, SIDE, _OVER, SIDE, _OVER)
    averaged = (tiles.sum(axis=(2, 4), dtype=np.uint16) + _OVER * _OVER // 2) // (_OVER * _OVER)
    strength = np.maximum(between(draws(seed, "grain", index), -16, 32), 0)  # a third of the letters is clean
    return add_noise(averaged.astype(np.uint8), strength, index, seed, "noise")


def add_noise(pictures: Pictures, strength: Index, index: Index, seed: int, channel: str) -> Pictures:
    """Add noise to every pixel, triangular and cut off at 0 and 255.

    Args:
        pictures: (n, 28, 28) uint8.
        strength: (n,) int64, largest change of a pixel, 0 to 127.
        index: (n,) int64, the index that fixes the noise of each picture.
        seed: the set's seed.
        channel: what the noise is for.

    Returns:
        (n, 28, 28) uint8.
    """
    grains = draw_bytes(seed, channel, index, 2 * SIDE * SIDE).reshape(-1, 2, SIDE, SIDE)
    noise = grains[:, 0].astype(np.int16)
    noise += grains[:, 1]
    noise -= 255
    noise *= strength.astype(np.int16)[:, None, None]
    noise += 128
    noise >>= 8
    noise += pictures
    return noise.clip(0, 255).astype(np.uint8)


def stamp(pictures: Pictures, index: Index, seed: int) -> Pictures:
    """Write the index into the lowest bits of the first 64 border pixels.

    Injective in the index, whatever the pictures show; no pixel crosses from below 128 to 128 or back.

    Args:
        pictures: (n, 28, 28) uint8.
        index: (n,) int64, the index to write.
        seed: the set's seed; it fixes the scrambling.

    Returns:
        (n, 28, 28) uint8, a copy.
    """
    words = draws(seed, "stamp", index).astype("<u8", copy=False)
    bits = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1)
    flat = pictures.reshape(-1, SIDE * SIDE).copy()
    flat[:, _STAMPED] = flat[:, _STAMPED] & 0xFE | bits
    return flat.reshape(-1, SIDE, SIDE)


def _affine(index: Index, seed: int) -> NDArray[np.float64]:
    """Place the letters: (n, 6) float64, from a sampled pixel back to its template, as Pillow has it."""
    longest = between(draws(seed, "size", index), 18 * 16, 24 * 16) / 16  # pixels of the picture
    width = between(draws(seed, "width", index), 54, 74) / 64
    down = LONGEST / (longest * _OVER)
    across = down / width
    angles = between(draws(seed, "angle", index), 0, 2 * _TURNS)
    sines, cosines = _SINES[angles], _COSINES[angles]
    turned = np.stack([cosines * across, sines * across, -sines * down, cosines * down], axis=1)
    a, b, d, e = (np.rint(turned * _STEPS) / _STEPS).T
    room = (SIDE - longest) / 2 / 16  # a letter may touch the edge, and seldom reaches a little over it
    x, y = (
        SIDE / 2 * _OVER + np.rint(between(draws(seed, axis, index), -18, 18) * room * _OVER * 64) / 64 for axis in "xy"
    )
    return np.stack([a, b, CANVAS / 2 - a * x - b * y, d, e, CANVAS / 2 - d * x - e * y], axis=1)


def _sample(cuts: "zip[tuple[int, int, int]]", affine: NDArray[np.float64]) -> Pictures:
    """Draw every template through its transform: (n, 56, 56) uint8."""
    from PIL.Image import Resampling, Transform  # noqa: PLC0415 - only drawing needs Pillow

    size, method, filtered = (SIDE * _OVER, SIDE * _OVER), Transform.AFFINE, Resampling.BILINEAR
    drawn = (
        template(*cut).transform(size, method, row, filtered).tobytes()
        for cut, row in zip(cuts, affine.tolist(), strict=True)
    )
    return np.frombuffer(b"".join(drawn), dtype=np.uint8)


_RADIANS = [math.radians((turn - _TURNS) / 4) for turn in range(2 * _TURNS + 1)]
_SINES = np.array([round(math.sin(angle), 9) for angle in _RADIANS])
_COSINES = np.array([round(math.cos(angle), 9) for angle in _RADIANS])
