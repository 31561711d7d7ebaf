"""Read the metadata of an encoded image: its format, its size, and when and by which camera it was taken.

EXIF data are written by cameras and tools, and may be wrong or damaged. A value that does not conform to the standard
counts as absent; it never makes an image a reject.

References:
    CIPA DC-008, "Exchangeable image file format for digital still cameras: Exif", tags 0x9003 DateTimeOriginal,
    0x9011 OffsetTimeOriginal, 0x010F Make, 0x0110 Model.
"""

import io
import re
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from PIL import ExifTags, Image

from pipeline.decode.picture import formats_for

_EXIF_TIME = "%Y:%m:%d %H:%M:%S"
_OFFSET = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d")
# Characters of a camera's name.
_LONGEST_NAME = 100


class Facts(NamedTuple):
    """The metadata of a file.

    Attributes:
        format: such as JPEG or PNG.
        height: rows of pixels, before the orientation is applied.
        width: columns of pixels, likewise.
        taken_at: ISO 8601, with an offset if the file has one; None if unknown.
        camera: make and model; None if unknown.
    """

    format: str
    height: int
    width: int
    taken_at: str | None = None
    camera: str | None = None


def facts_of(data: bytes) -> Facts:
    """Read the facts of an image that was decoded; call it inside `strict_pillow()`. No pixel is decoded."""
    image = Image.open(io.BytesIO(data), formats=formats_for(data))
    # An MPO is a JPEG with more pictures behind it.
    form = "JPEG" if image.format == "MPO" else str(image.format)
    taken_at = camera = None
    if "exif" in image.info or form == "TIFF":
        with suppress(Exception):  # damaged EXIF data raise errors of many kinds
            exif = image.getexif()
            camera = _camera(exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model))
            shot = exif.get_ifd(ExifTags.IFD.Exif)
            taken_at = _time(shot.get(ExifTags.Base.DateTimeOriginal), shot.get(ExifTags.Base.OffsetTimeOriginal))
    return Facts(form, image.height, image.width, taken_at, camera)


def _time(text: object, offset: object) -> str | None:
    """Return a time of EXIF as ISO 8601; None for one that is no time, such as 0000:00:00 00:00:00."""
    try:
        local = datetime.strptime(_text(text), _EXIF_TIME)  # noqa: DTZ007 - the camera's local time
    except ValueError:
        return None
    zone = _text(offset)
    return local.isoformat() + (zone if _OFFSET.fullmatch(zone) else "")


def _camera(make: object, model: object) -> str | None:
    """Join make and model; most models begin with the make already."""
    maker, name = _text(make), _text(model)
    joined = name if name.lower().startswith(maker.lower()) else f"{maker} {name}"
    return joined.strip()[:_LONGEST_NAME] or None


def _text(value: object) -> str:
    """Return a text of EXIF up to its first NUL, without characters that do not print; empty for other types."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value.partition("\0")[0]).split())
