"""The faces that letters are drawn in, and one large drawing of every letter in each.

All come from the fonts inside matplotlib, so a set looks the same on every machine with the same Pillow.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 64  # longer side of a drawn letter, in pixels of its template
CANVAS = 96  # side of a template
_TRIAL = 256  # font size at which a letter's proportions are measured
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
        (CANVAS, CANVAS) gray image, white on black: the letter in the middle, `LONGEST` pixels long (to one
        or two) before its stroke is put on.
    """
    text = chr(FACES[face].first + letter)
    box = _ink(face, text, _TRIAL, 0).size
    inked = _ink(face, text, round(_TRIAL * LONGEST / max(box)), STROKES[weight])
    left, top = (inked.width - CANVAS) // 2, (inked.height - CANVAS) // 2
    return inked.crop((left, top, left + CANVAS, top + CANVAS))  # beyond the picture there is black


def _ink(face: int, text: str, size: int, stroke: int) -> "Image.Image":
    """Draw a letter and cut out its ink: a font's own boxes count the space around a letter as well."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - only drawing needs Pillow

    font = ImageFont.truetype(_folder() / FACES[face].file, size, layout_engine=ImageFont.Layout.BASIC)
    image = Image.new("L", (3 * size, 3 * size))
    ImageDraw.Draw(image).text((size, size), text, fill=255, font=font, stroke_width=stroke)
    return image.crop(image.getbbox())


@cache
def _folder() -> Path:
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only drawing needs its fonts

    return Path(mpl.get_data_path()) / "fonts" / "ttf"
