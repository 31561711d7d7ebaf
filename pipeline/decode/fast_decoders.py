"""The common pictures by C decoders, several times faster than Pillow and with the same pixels.

Taken here: PNG of 8-bit gray or RGB, not interlaced, without a transparent colour; JPEG in gray or YCbCr without an
orientation. Everything else, and everything that these decoders complain of, is left to Pillow, the judge of what a
file is and of what is wrong with it: so a picture never depends on which of the two decoded it.
See docs/decisions/0010-c-decoders.md.
"""

import logging
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.recipe import DecodePart

Pixels = NDArray[np.uint8]

# libpng's warnings come as log records, and those without a handler are printed. Pillow judges such files.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())
logging.getLogger("imagecodecs").propagate = False

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_AROUND = 57  # bytes of a PNG around the pixels of its only IDAT chunk: signature, IHDR, IDAT's own, IEND
# Bit depth, colour type, and plain compression, filter and interlace: gray, RGB.
_PNG_KINDS = {b"\x08\x00\0\0\0": 1, b"\x08\x02\0\0\0": 3}
# Chunks that say nothing about 8-bit pixels, and how long they are: in another length Pillow may trip over them.
_PNG_SILENT = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}
_SIDES = struct.Struct(">II").unpack_from
_JPEG = b"\xff\xd8\xff"
_JPEG_KINDS = {"Gray": ("GRAY", 1), "YCbCr": ("RGB", 3)}
# Segments of whose fields Pillow reads some, and how long they are at least: it trips over shorter ones.
_JPEG_NOTES = ((b"JFIF", 16), (b"Adobe", 14))
# Pictures with these may be turned: Pillow reads an orientation from either.
_TURNED = (b"Exif\0\0", b"rientation")


def quick_decoder(spec: DecodePart) -> Callable[[bytes], Pixels | None]:
    """Make a decoder for the common pictures.

    Args:
        spec: the recipe's `[decode]`.

    Returns:
        A function from an encoded file to (height, width, channels) uint8 with channels 1 or 3, as the file has it:
        neither size nor mode of the recipe is applied. None where Pillow must judge.
    """
    max_bytes, max_pixels = spec.max_bytes, spec.max_pixels

    def quick(data: bytes) -> Pixels | None:
        try:
            if len(data) <= max_bytes and data.startswith(_PNG):
                return _png(max_pixels, data)
            if len(data) <= max_bytes and data.startswith(_JPEG):
                return _jpeg(max_pixels, data)
        except (ValueError, RuntimeError, struct.error):  # what imagecodecs and simplejpeg raise; Pillow says why
            pass
        return None

    return quick


def _png(max_pixels: int, data: bytes) -> Pixels | None:
    channels = _PNG_KINDS.get(data[24:29])
    if channels is None:
        return None
    width, height = _SIDES(data, 16)
    if width * height > max_pixels or not (_is_bare(data) or _is_plain(data)):
        return None
    # A checksum that is wrong, or pixels that are too few, raise.
    pixels: Pixels = imagecodecs.png_decode(data)
    return pixels.reshape(height, width, 1) if channels == 1 else pixels


def _is_bare(data: bytes) -> bool:
    """Tell whether a PNG has nothing but its header, one chunk of pixels and its end, as most small ones."""
    return data.endswith(_PNG_END) and data[37:41] == b"IDAT" and int.from_bytes(data[33:37]) == len(data) - _PNG_AROUND


def _is_plain(data: bytes) -> bool:
    """Tell whether a PNG has, besides its pixels, only chunks that say nothing about them, all of them whole."""
    start = 33
    while (end := start + 12 + int.from_bytes(data[start : start + 4])) <= len(data):
        kind = data[start + 4 : start + 8]
        if kind == b"IEND":
            return True
        if kind != b"IDAT" and (
            _PNG_SILENT.get(kind) != end - start - 12
            or zlib.crc32(memoryview(data)[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end])
        ):
            return False
        start = end
    return False


def _jpeg(max_pixels: int, data: bytes) -> Pixels | None:
    if any(mark in data for mark in _TURNED) or not all(_is_whole(data, *note) for note in _JPEG_NOTES):
        return None
    height, width, kind, _ = simplejpeg.decode_jpeg_header(data)
    if kind not in _JPEG_KINDS or width * height > max_pixels:
        return None
    colours, channels = _JPEG_KINDS[kind]
    # Strict: whatever libjpeg would only warn of, such as data that end early, raises.
    pixels: Pixels = simplejpeg.decode_jpeg(data, colours, strict=True)
    return pixels.reshape(height, width, channels)


def _is_whole(data: bytes, note: bytes, least: int) -> bool:
    at = data.find(note)
    return at < 2 or int.from_bytes(data[at - 2 : at]) >= least  # noqa: PLR2004 - the length stands in front
