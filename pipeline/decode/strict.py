"""How Pillow is held to strictness, and how its complaints become reason codes."""

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import Image, ImageFile

# Not read: formats that anything begins like (TGA), that start another program (EPS), or that decode to other pixels
# where the file was cut short (JPEG 2000).
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
_PNG = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = (_PNG, b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
# A file shorter than this has lost its header, if it ever was an image.
_SHORT = 64


class Unfit(Exception):  # noqa: N818 - not an error: bad images are rows
    """A file that does not become an image: the reason code and what exactly was wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Hold Pillow's settings, which belong to the whole process, to what decoding needs, and give them back after.

    A file that ends early must not pass for a picture with a black rest; the recipe's own limit of pixels is checked
    with a clearer reason than Pillow's; and of odd metadata Pillow need not warn: only the pixels count here.
    """
    held = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = held


@cache
def formats() -> tuple[str, ...]:
    """Name the formats that are read: those of the list that this Pillow was built with."""
    Image.init()
    return tuple(form for form in _FORMATS if form in Image.OPEN)


def check_png(data: bytes) -> None:
    """Check the checksums of a PNG's pixels, which Pillow leaves unread: a flipped bit must not be another picture.

    Raises:
        Unfit: a checksum is wrong. One that is cut off is not: whether the pixels are all there shows on decoding.
    """
    start = len(_PNG)
    while data.startswith(_PNG) and (end := start + 12 + int.from_bytes(data[start : start + 4])) <= len(data):
        if data[start + 4 : start + 8] == b"IDAT":
            body = memoryview(data)[start + 4 : end - 4]
            if zlib.crc32(body) != int.from_bytes(data[end - 4 : end]):
                raise Unfit("corrupt", f"the checksum of the pixels at byte {start} is wrong")
        start = end


def unidentified(data: bytes) -> Unfit:
    """Say why no format took the data."""
    if not data.startswith(_SIGNATURES) and not any(start.startswith(data) for start in _SIGNATURES):
        return Unfit("not_an_image", f"none of {', '.join(formats())}")
    # The start of a known format that Pillow cannot open was an image once.
    return Unfit(_reason(data), "starts like an image but has no readable header")


def broken(data: bytes, error: Exception) -> Unfit:
    """Say why data that began as an image did not decode."""
    return Unfit(_reason(data, error), " ".join(f"{type(error).__name__}: {error}".split())[:200])


def _reason(data: bytes, error: Exception | None = None) -> str:
    text = str(error).lower()
    cut = isinstance(error, EOFError) or "truncated" in text or "unexpected end" in text
    return "truncated" if cut or len(data) < _SHORT or not _has_end(data) else "corrupt"


def _has_end(data: bytes) -> bool:
    """Tell whether a file ends as its format asks; True where the format does not say."""
    if data.startswith(_PNG):
        return b"IEND" in data
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in data[-16:]
    if data.startswith(b"GIF8"):
        return data.endswith(b";")
    if data.startswith(b"RIFF"):
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return not data.startswith(b"BM") or len(data) >= int.from_bytes(data[2:6], "little")
