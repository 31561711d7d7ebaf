"""Decode common images with C decoders, several times faster than Pillow and with the same pixels.

They decode PNG of 8-bit gray or RGB that is not interlaced and has no transparent colour, JPEG in gray or YCbCr
without an orientation, also at reduced scale, and lossy WebP without other chunks. Pillow decodes everything else, and
every file on which these decoders fail, so that neither pixels nor reject reasons depend on the decoder.
See docs/decisions/0010-c-decoders.md.
"""

import logging
import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.decode.picture import PNG_SIGNATURE, png_chunks
from pipeline.decode.reduced import SCAN, fits_reduced, jpeg_scale, jpeg_segments
from pipeline.recipe import DecodePart

Pixels = NDArray[np.uint8]
# An image, and the (height, width) of its file where it is decoded at a reduced scale. A plain tuple, which is fast.
Decoded = tuple[Pixels, tuple[int, int] | None]
FastDecoder = Callable[[bytes], Decoded | None]

# imagecodecs logs libpng's warnings, and records without a handler are printed. Pillow decodes such files.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())
logging.getLogger("imagecodecs").propagate = False

PNG_HEAD = PNG_SIGNATURE + b"\0\0\0\rIHDR"
PNG_HEADER_BYTES = 33  # signature and IHDR
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
PNG_OVERHEAD = 57  # bytes of a PNG with one IDAT chunk besides its data: signature, IHDR, IDAT header, IEND
# Channels by bit depth, colour type, compression, filter and interlace: gray, RGB.
PNG_CHANNELS = {b"\x08\x00\0\0\0": 1, b"\x08\x02\0\0\0": 3}
# Chunks that do not change 8-bit pixels, and their lengths. Pillow may fail on other lengths.
_PNG_NEUTRAL_CHUNKS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}
PNG_SIDES = struct.Struct(">II").unpack_from
_JPEG = b"\xff\xd8\xff"
_JPEG_COLOUR_SPACES = {"Gray": ("GRAY", 1), "YCbCr": ("RGB", 3)}
# Segments that Pillow parses, and their minimum length. Pillow fails on shorter ones.
_JPEG_SEGMENTS = ((b"JFIF", 16), (b"Adobe", 14))
# A WebP file whose only chunk is a lossy picture: it has no alpha, metadata or animation. Then the start of its frame,
# and the bits of a side; the others say how to show it.
_WEBP = b"WEBPVP8 "
_WEBP_KEY_FRAME = b"\x9d\x01\x2a"
_WEBP_SIDE = 0x3FFF
# Either may hold an orientation, which Pillow applies.
_ORIENTATION_MARKS = (b"Exif\0\0", b"rientation")


def fast_decoder(spec: DecodePart) -> FastDecoder:
    """Make a decoder for common images.

    Returns:
        A function from an encoded file to (height, width, channels) uint8 with channels 1 or 3, with the file's own
        size, or that of a reduced scale (see `pipeline.decode.reduced`), and channels. None if Pillow must decode the
        file.
    """
    max_bytes, max_pixels = spec.max_bytes, spec.max_pixels

    def decode(data: bytes) -> Decoded | None:
        try:
            if len(data) <= max_bytes and data.startswith(PNG_HEAD):
                pixels = _decode_png(max_pixels, data)
                return None if pixels is None else (pixels, None)
            if len(data) <= max_bytes and data.startswith(_JPEG):
                return _decode_jpeg(spec, data)
            if len(data) <= max_bytes and data.startswith(b"RIFF") and data[8:16] == _WEBP:
                pixels = _decode_webp(max_pixels, data)
                return None if pixels is None else (pixels, None)
        except (
            ValueError,
            RuntimeError,
            struct.error,
        ):  # errors of imagecodecs and simplejpeg; Pillow then gives the reason
            pass
        return None

    return decode


def _decode_png(max_pixels: int, data: bytes) -> Pixels | None:
    channels = PNG_CHANNELS.get(data[24:29])
    if channels is None:
        return None
    width, height = PNG_SIDES(data, 16)
    if width * height > max_pixels or not (_is_minimal(data) or _has_only_neutral_chunks(data)):
        return None
    # Wrong checksums and missing pixels raise.
    pixels: Pixels = imagecodecs.png_decode(data)
    return pixels.reshape(height, width, 1) if channels == 1 else pixels


def _is_minimal(data: bytes) -> bool:
    """Return whether a PNG has only its header, one chunk of pixels and its end, as most small ones do."""
    return data.endswith(PNG_END) and data[37:41] == b"IDAT" and int.from_bytes(data[33:37]) == len(data) - PNG_OVERHEAD


def _has_only_neutral_chunks(data: bytes) -> bool:
    """Return whether the other chunks of a PNG are complete and do not change its pixels."""
    for chunk in png_chunks(data, PNG_HEADER_BYTES):
        if chunk.kind == b"IEND":
            return True
        if chunk.kind != b"IDAT" and (_PNG_NEUTRAL_CHUNKS.get(chunk.kind) != chunk.length or not chunk.is_intact(data)):
            return False
    return False


def _decode_jpeg(spec: DecodePart, data: bytes) -> Decoded | None:
    header = data[: next((start for marker, start in jpeg_segments(data) if marker == SCAN), len(data))]
    if any(mark in header for mark in _ORIENTATION_MARKS) or not all(
        _has_length(header, *segment) for segment in _JPEG_SEGMENTS
    ):
        return None
    height, width, kind, _ = simplejpeg.decode_jpeg_header(data)
    if kind not in _JPEG_COLOUR_SPACES:
        return None
    scale = jpeg_scale(height, width, spec)
    if width * height > spec.max_pixels and not fits_reduced(height, width, scale, data, spec):
        return None
    rows, columns = -(-height // scale), -(-width // scale)
    colours, channels = _JPEG_COLOUR_SPACES[kind]
    # strict: what libjpeg only warns about, such as missing data, raises. It takes the smallest scale with these sides.
    pixels: Pixels = simplejpeg.decode_jpeg(data, colours, strict=True, min_height=rows, min_width=columns)
    return pixels.reshape(rows, columns, channels), None if scale == 1 else (height, width)


def _decode_webp(max_pixels: int, data: bytes) -> Pixels | None:
    size = int.from_bytes(data[16:20], "little")
    if size + size % 2 + 20 != len(data) or data[23:26] != _WEBP_KEY_FRAME:
        return None
    width, height = (int.from_bytes(data[at : at + 2], "little") & _WEBP_SIDE for at in (26, 28))
    if width * height > max_pixels:
        return None
    pixels: Pixels = imagecodecs.webp_decode(data)
    return pixels if pixels.shape == (height, width, 3) else None


def _has_length(data: bytes, marker: bytes, minimum: int) -> bool:
    start = data.find(marker)
    return start < 2 or int.from_bytes(data[start - 2 : start]) >= minimum  # noqa: PLR2004 - the length precedes it
