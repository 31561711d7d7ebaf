"""Draw the images of a glyph set: letters in many fonts, stamped with their index; near copies and bad files.

Letters are rotated, scaled, shifted and made noisy. The last step writes the index of the file, scrambled by a
bijection, into the lowest bit of 64 fixed pixels of the border. So no two originals are equal, by construction, and a
near copy is equal to nothing. A stamp changes the sign of no pixel: only the lowest bit changes, so 127 never becomes
128.

The same seed gives the same pixels on every processor: sines are rounded, and all later arithmetic uses integers, or
fractions that float64 stores exactly. The fonts are those in matplotlib, so a set is the same on every machine with the
same Pillow.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.glyphs.plan import Index, Kind, between, draw_bytes, draws

if TYPE_CHECKING:
    from PIL import Image


LETTER_SIDE = 64  # longer side of a letter in its template, in pixels
CANVAS = 96  # side of a template
_MEASURE_SIZE = 256  # font size at which the proportions of a letter are measured
STROKES = (0, 1, 2)  # weights: pixels put around the letter's outline


class Face(NamedTuple):
    """A font file and the code point where its letters A to J begin."""

    file: str
    first: int = ord("A")


FACES = (
    Face("DejaVuSans.ttf"),
    Face("DejaVuSans-Bold.ttf"),
    Face("DejaVuSans-Oblique.ttf"),
    Face("DejaVuSans-BoldOblique.ttf"),
    Face("DejaVuSansMono.ttf"),
    Face("DejaVuSansMono-Bold.ttf"),
    Face("DejaVuSansMono-Oblique.ttf"),
    Face("DejaVuSerif.ttf"),
    Face("DejaVuSerif-Bold.ttf"),
    Face("DejaVuSerif-Italic.ttf"),
    Face("DejaVuSerif-BoldItalic.ttf"),
    Face("STIXGeneral.ttf"),
    Face("STIXGeneralBol.ttf"),
    Face("STIXGeneralItalic.ttf"),
    Face("STIXGeneralBolIta.ttf"),
    Face("STIXGeneralBolIta.ttf", 0x1D4D0),  # bold script
    Face("STIXGeneralBol.ttf", 0x1D56C),  # bold Fraktur
    Face("STIXGeneral.ttf", 0x1D670),  # monospaced
    Face("cmb10.ttf"),
    Face("cmmi10.ttf"),
    Face("cmr10.ttf"),
    Face("cmss10.ttf"),
    Face("cmsy10.ttf"),  # calligraphic
    Face("cmti10.ttf"),
    Face("cmtt10.ttf"),
)


@cache
def template(face: int, letter: int, weight: int) -> "Image.Image":
    """Draw a letter large, once per process.

    Args:
        face: position in `FACES`.
        letter: 0 for A to 9 for J.
        weight: position in `STROKES`.

    Returns:
        (CANVAS, CANVAS) gray image, white on black: the letter in the middle, about `LETTER_SIDE` pixels long without
        its stroke.
    """
    text = chr(FACES[face].first + letter)
    box = _draw_cropped(face, text, _MEASURE_SIZE, 0).size
    inked = _draw_cropped(face, text, round(_MEASURE_SIZE * LETTER_SIDE / max(box)), STROKES[weight])
    left, top = (inked.width - CANVAS) // 2, (inked.height - CANVAS) // 2
    return inked.crop((left, top, left + CANVAS, top + CANVAS))  # outside the image there is black


def _draw_cropped(face: int, text: str, size: int, stroke: int) -> "Image.Image":
    """Draw a letter and crop it to its ink; the boxes of fonts include space around a letter."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - only drawing needs Pillow

    font = ImageFont.truetype(_folder() / FACES[face].file, size, layout_engine=ImageFont.Layout.BASIC)
    image = Image.new("L", (3 * size, 3 * size))
    ImageDraw.Draw(image).text((size, size), text, fill=255, font=font, stroke_width=stroke)
    return image.crop(image.getbbox())


@cache
def _folder() -> Path:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only drawing needs its fonts

    return Path(mpl.get_data_path()) / "fonts" / "ttf"


SIDE = 28
_OVER = 2  # letters are sampled at twice the size and averaged: smooth edges at half the cost of bicubic sampling
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
        index: (n,) int64, the index that determines the appearance of each.
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
        index: (n,) int64, the index that determines the noise of each image.
        seed: the set's seed.
        channel: name of the noise.

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
    down = LETTER_SIDE / (longest * _OVER)
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

_MOVES = ((1, -1), (1, 1), (2, -1), (2, 1))  # (axis, step): up, down, left, right
_IMAGE_DATA = 41  # bytes of a PNG before its image data: signature 8, header chunk 25, length and type of the next 8
_LENGTH = slice(33, 37)


def shifted(pictures: Pictures, index: Index, seed: int) -> Pictures:
    """Shift every image by one pixel up, down, left or right, and fill with black.

    Args:
        pictures: (n, 28, 28) uint8.
        index: (n,) int64, the index of each near copy.
        seed: the set's seed.

    Returns:
        (n, 28, 28) uint8.
    """
    moves = between(draws(seed, "move", index), 0, len(_MOVES) - 1)
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    rolled = [np.roll(padded, step, axis=axis)[:, 1:-1, 1:-1] for axis, step in _MOVES]
    return np.stack(rolled)[moves, np.arange(len(pictures))]


def brightness(pictures: Pictures, index: Index, seed: int) -> Pictures:
    """Fade every picture to 80 to 95 % of its range, half of them towards black and half towards white.

    Args:
        pictures: (n, 28, 28) uint8.
        index: (n,) int64, the index of each near copy.
        seed: the set's seed.

    Returns:
        (n, 28, 28) uint8.
    """
    gain = between(draws(seed, "gain", index), 205, 243)[:, None, None]
    lift = (between(draws(seed, "lift", index), 0, 1) * 255)[:, None, None]
    return ((pictures * gain + lift * (256 - gain)) >> 8).astype(np.uint8)


def rethresholded(pictures: Pictures, _index: Index, _seed: int) -> Pictures:
    """Make every pixel black or white, with threshold 128: for the sign rule, the copy equals the original.

    Args:
        pictures: (n, 28, 28) uint8.

    Returns:
        (n, 28, 28) uint8, 0 or 255.
    """
    return np.where(pictures >= 128, 255, 0).astype(np.uint8)  # noqa: PLR2004 - the rule's own number


def noisy(pictures: Pictures, index: Index, seed: int) -> Pictures:
    """Change every pixel by up to 12, at random.

    Args:
        pictures: (n, 28, 28) uint8.
        index: (n,) int64, the index of each near copy.
        seed: the set's seed.

    Returns:
        (n, 28, 28) uint8.
    """
    return add_noise(pictures, np.full(len(index), 12), index, seed, "near noise")


NEAR: dict[Kind, Callable[[Pictures, Index, int], Pictures]] = {
    Kind.SHIFTED: shifted,
    Kind.BRIGHTNESS: brightness,
    Kind.RETHRESHOLDED: rethresholded,
    Kind.NOISY: noisy,
}


def damage(png: bytes, kind: Kind, index: int, seed: int) -> bytes:
    """Damage a file.

    Args:
        png: a PNG as Pillow writes it, all its image data in one chunk.
        kind: EMPTY, TRUNCATED or NOT_AN_IMAGE.
        index: the file's index.
        seed: the set's seed.

    Returns:
        No bytes; or the PNG with the first 20 to 80 % of its image data; or a line of text with the index.
    """
    if kind == Kind.EMPTY:
        return b""
    if kind == Kind.NOT_AN_IMAGE:
        return f"This is file {index}, and it holds no image.\n".encode()
    percent = int(between(draws(seed, "cut", np.array([index])), 20, 80)[0])
    return png[: _IMAGE_DATA + int.from_bytes(png[_LENGTH], "big") * percent // 100]
