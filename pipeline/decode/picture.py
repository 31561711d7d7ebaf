"""Decode one image file with Pillow to canonical pixels, or raise `Rejected` with a reason code.

Conversions:

- gray PNG of 1, 2, 4 or 8 bits: scaled to 0 to 255;
- 16 bits a channel: the high byte;
- palette: its colours; gray from colour: ITU-R 601 luma, `(19595 R + 38470 G + 7471 B + 32768) >> 16`;
- alpha, or a transparent colour or palette entry: composited over the recipe's background;
- EXIF orientation: applied before the size is checked; unreadable EXIF is ignored;
- interlaced: the same pixels as plain; animated: the first frame; CMYK: Pillow's conversion, no colour profile;
- floating point, 32-bit integers, LAB: rejected, because their values of black and white are unknown.

With `on_mismatch = "convert"`, the default, all of these are converted, and resized to the recipe's size by an
antialiased bilinear filter: stretched, cropped or padded, as `fit` says. Without a size, a picture whose longer side is
above `longest` is reduced by the average of areas. A JPEG is decoded at reduced scale first; see
`pipeline.decode.reduced`. With "reject" only gray of 8 bits or less
(mode L) or 8-bit RGB (mode RGB) without alpha is accepted, and only in the recipe's size.

A file that is cut short after its last pixel is an image. One that is cut short before is a reject.

References:
    PNG (Portable Network Graphics) Specification, section 5, "Datastream structure".
"""

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.decode.reduced import first_width, fits_reduced, jpeg_scale, wanted_size
from pipeline.limits import raise_limit
from pipeline.recipe import DecodePart

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Bytes of a chunk beside its content: length, type, checksum.
_OVERHEAD = 12


class PngChunk(NamedTuple):
    """A chunk of a PNG: its type, such as b"IDAT", and the positions of its first byte and behind its last."""

    kind: bytes
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bytes of content."""
        return self.stop - self.start - _OVERHEAD

    def is_intact(self, data: bytes) -> bool:
        """Return whether the checksum of the chunk is right."""
        body = memoryview(data)[self.start + 4 : self.stop - 4]
        return zlib.crc32(body) == int.from_bytes(data[self.stop - 4 : self.stop])


def png_chunks(data: bytes, start: int = len(PNG_SIGNATURE)) -> Iterator[PngChunk]:
    """List the chunks of a PNG that are complete, in their order.

    Args:
        data: a file that begins with `PNG_SIGNATURE`.
        start: position of the first chunk.
    """
    while (stop := start + _OVERHEAD + int.from_bytes(data[start : start + 4])) <= len(data):
        yield PngChunk(data[start + 4 : start + 8], start, stop)
        start = stop


# Left out: TGA (no signature), EPS (starts another program), JPEG 2000 (a file that is cut short decodes to other
# pixels instead of failing).
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_READABLE_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
_SIGNATURES = (PNG_SIGNATURE, b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
# An image file has more bytes than this.
_MIN_FILE_BYTES = 64


class Rejected(Exception):  # noqa: N818 - not an error: bad images are rows
    """A file that does not become an image.

    Attributes:
        reason: reason code, one of `pipeline.shard.REASONS`.
        detail: what exactly is wrong.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Change Pillow's settings, which are global to the process, for decoding, and restore them afterwards.

    A file that is cut short is an error, not an image with black pixels. Pillow's own limit of pixels is off, because
    the recipe's limit is checked with a clearer message. Warnings about metadata are ignored. Several threads may be
    inside at a time: the first changes the settings, and the last restores them.
    """
    with _lock:
        if not _inside:
            _restore.enter_context(_strict_settings())
        _inside.append(None)
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if not _inside:
                _restore.close()


# One entry for each thread that is inside `strict_pillow`, and what to do when the last one leaves.
_inside: list[None] = []
_restore = ExitStack()
_lock = Lock()


@contextmanager
def _strict_settings() -> Iterator[None]:
    saved = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = saved


@cache
def readable_formats() -> tuple[str, ...]:
    """List the formats of `_READABLE_FORMATS` that this build of Pillow supports."""
    Image.init()
    return tuple(form for form in _READABLE_FORMATS if form in Image.OPEN)


@cache
def has_heic_decoder() -> bool:
    """Return whether the library for HEIC is installed; it is then registered with Pillow."""
    try:
        import pillow_heif  # noqa: PLC0415 - only where a HEIC is found
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


def formats_for(data: bytes) -> tuple[str, ...]:
    """Return the formats that Pillow may take a file for."""
    is_heic = data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS
    return (*readable_formats(), "HEIF") if is_heic and has_heic_decoder() else readable_formats()


def _check_png_checksums(data: bytes) -> None:
    """Verify the checksums of the pixels of a PNG, which Pillow ignores: a flipped bit gives another image.

    A missing checksum is not an error here; decoding shows whether pixels are missing.
    """
    if not data.startswith(PNG_SIGNATURE):
        return
    for chunk in png_chunks(data):
        if chunk.kind == b"IDAT" and not chunk.is_intact(data):
            raise Rejected("corrupt", f"the checksum of the pixels at byte {chunk.start} is wrong")


def _unidentified(data: bytes) -> Rejected:
    """Explain why no format accepted the data."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and not has_heic_decoder():
        return Rejected(
            "no_decoder", "a HEIC: install its decoder with pip install 'imagelake[heic]', then build again"
        )
    if not data.startswith(_SIGNATURES) and not any(start.startswith(data) for start in _SIGNATURES):
        return Rejected("not_an_image", f"none of {', '.join(readable_formats())}")
    # It begins like a known format, so it is a damaged image.
    return Rejected(_damage_reason(data), "starts like an image but has no readable header")


def _broken(data: bytes, error: Exception) -> Rejected:
    """Explain why an image did not decode."""
    return Rejected(_damage_reason(data, error), " ".join(f"{type(error).__name__}: {error}".split())[:200])


def _damage_reason(data: bytes, error: Exception | None = None) -> str:
    text = str(error).lower()
    is_cut = isinstance(error, EOFError) or "truncated" in text or "unexpected end" in text
    return "truncated" if is_cut or len(data) < _MIN_FILE_BYTES or not _has_end(data) else "corrupt"


def _has_end(data: bytes) -> bool:
    """Return whether a file has the end marker or the length of its format; True for formats without one."""
    if data.startswith(PNG_SIGNATURE):
        return b"IEND" in data
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in data[-16:]
    if data.startswith(b"GIF8"):
        return data.endswith(b";")
    if data.startswith(b"RIFF"):
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return not data.startswith(b"BM") or len(data) >= int.from_bytes(data[2:6], "little")


# Pillow modes that need no conversion, by number of channels.
_EXACT_MODES = {1: ("1", "L"), 3: ("RGB",)}
_CONVERTIBLE_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
GRAY_MODES = ("1", "L", "LA", "La", "I", *_SIXTEEN_BIT_MODES)
# Gray of 2 and 4 bits: its largest value, and the factor that scales it to 255.
_LOW_BIT_GRAY = {"L;2": (3, 85), "L;4": (15, 17)}
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS = tuple(_ORIENTATIONS[number] for number in (5, 6, 7, 8))


def decode(data: bytes, spec: DecodePart) -> tuple[NDArray[np.uint8], bool]:
    """Decode one file; call it inside `strict_pillow()`.

    Args:
        data: the encoded file.
        spec: the recipe's `[decode]`, with its mode set.

    Returns:
        (height, width, channels) uint8, and whether colour or gray was converted: the mode is L and red, green and blue
        differ, or the mode is RGB and the image has one gray channel.

    Raises:
        Rejected: with reason code empty, not_an_image, too_large, truncated, corrupt, wrong_mode or wrong_size.
    """
    if not data:
        raise Rejected("empty", "the file has no bytes")
    if len(data) > spec.max_bytes:
        raise Rejected("too_large", f"more than decode.max_bytes = {spec.max_bytes} bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=formats_for(data))
        native = image.height, image.width
        # An MPO is a JPEG too, with more pictures behind it.
        if isinstance(image, JpegImageFile):
            native = _reduce_scale(image, data, spec)
        _check_header(image, spec)
        _scale_transparent_colour(image)
        _check_png_checksums(data)
        image.load()
        transposition = _transposition(image)
        if transposition is None:
            return _as_array(image, spec, native)
        if transposition in _SWAPS:
            native = native[1], native[0]
        return _as_array(image.transpose(transposition), spec, native)
    except (Rejected, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except Exception as error:  # noqa: BLE001 - format plugins raise many kinds of errors
        if getattr(error, "errno", None):
            raise_limit(error)  # as when a format plugin cannot be loaded
        raise _broken(data, error) from None


def convert(
    pixels: NDArray[np.uint8], spec: DecodePart, native: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], bool]:
    """Convert an image that is already pixels to the recipe's size and mode, as `decode` does.

    Args:
        pixels: (height, width, channels) uint8, channels 1 or 3.
        spec: the recipe's `[decode]`, with its mode set.
        native: (height, width) of the whole image, if the pixels are those of a reduced scale.

    Returns:
        As `decode`.

    Raises:
        Rejected: with reason code too_large, wrong_mode or wrong_size.
    """
    native = native or pixels.shape[:2]
    width = first_width(pixels.shape[0], pixels.shape[1], native, spec)
    if width is None:
        image = _image_of(pixels)
        _check_header(image, spec)
        return _as_array(image, spec, native)
    # Pillow copies what it resizes; strips are small.
    strips, converted = [], False
    rows = max(1, _STRIP_BYTES // pixels[0].nbytes)
    for top in range(0, len(pixels), rows):
        strip = _image_of(pixels[top : top + rows])
        _check_header(strip, spec)
        strip, was_converted = _in_mode(strip, spec)
        converted |= was_converted
        strips.append(np.asarray(strip.resize((width, strip.height), _resampling(spec))))
    image = _resize(Image.fromarray(np.concatenate(strips)), spec, native)
    return _to_array(image, spec), converted


# Bytes of a strip of a large picture.
_STRIP_BYTES = 2**25


def _image_of(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def is_photograph(head: bytes) -> bool:
    """Return whether a file is a JPEG, WebP, AVIF or HEIC, by its first 32 bytes."""
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    return head.startswith(b"\xff\xd8\xff") or (head[4:8] == b"ftyp" and head[8:12] in (*_AVIF_BRANDS, *_HEIC_BRANDS))


def is_gray(pixels: NDArray[np.uint8]) -> bool:
    """Return whether an image, (height, width, channels), has one channel, or equal red, green and blue everywhere."""
    return pixels.shape[2] == 1 or not ((pixels[..., 0] != pixels[..., 1]) | (pixels[..., 0] != pixels[..., 2])).any()


def _as_array(image: Image.Image, spec: DecodePart, native: tuple[int, int]) -> tuple[NDArray[np.uint8], bool]:
    image, converted = _in_mode(image, spec)
    return _to_array(_resize(image, spec, native), spec), converted


def _to_array(canonical: Image.Image, spec: DecodePart) -> NDArray[np.uint8]:
    return np.asarray(canonical, dtype=np.uint8).reshape(canonical.height, canonical.width, spec.channels)


def _in_mode(image: Image.Image, spec: DecodePart) -> tuple[Image.Image, bool]:
    """Convert an image to the recipe's mode; return also whether colour or gray was converted."""
    if image.mode in (*_SIXTEEN_BIT_MODES, "I"):
        image = _high_byte(image)
    gray = image.mode in GRAY_MODES
    if image.has_transparency_data:
        image = _over_background(image.convert("RGBA"), spec.background)
    converted = gray
    if image.mode != spec.mode:
        image = image.convert("RGB")
        if spec.mode == "L":
            converted = not gray and not is_gray(np.asarray(image))
            image = image.convert("L")
    elif spec.mode == "L":
        converted = False
    return image, converted


def _check_header(image: Image.Image, spec: DecodePart) -> None:
    """Reject an image by its header, before pixels are decoded."""
    if image.width * image.height > spec.max_pixels:
        detail = f"{image.height}x{image.width} pixels, more than decode.max_pixels = {spec.max_pixels}"
        raise Rejected("too_large", detail)
    # Pillow returns 16-bit colour as 8-bit; only the tile's raw mode shows it. Mode I is 16-bit gray only in PPM.
    is_16_bit = (
        image.mode in _SIXTEEN_BIT_MODES or ";16" in _raw_mode(image) or (image.mode == "I" and image.format == "PPM")
    )
    has_transparent_colour = "transparency" in image.info
    if not is_16_bit and image.mode not in _CONVERTIBLE_MODES:
        raise Rejected("wrong_mode", f"{image.mode} has no defined conversion to {spec.mode}")
    if not spec.converts and (is_16_bit or has_transparent_colour or image.mode not in _EXACT_MODES[spec.channels]):
        transparency = " with a transparent colour" if has_transparent_colour else ""
        what = f"{image.mode}{' of 16 bits' if is_16_bit else ''}{transparency}"
        keys = 'on_mismatch = "convert" in [decode] converts it'
        if image.mode in _EXACT_MODES[4 - spec.channels] and not (is_16_bit or has_transparent_colour):
            keys += f', mode = "{"RGB" if spec.mode == "L" else "L"}" takes it as it is'
        raise Rejected("wrong_mode", f"{what}, the recipe asks for {spec.mode}: {keys}")


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _scale_transparent_colour(image: Image.Image) -> None:
    """Scale the transparent colour of a PNG to 8 bits like the pixels: Pillow keeps the depth of the file."""
    key, raw = image.info.get("transparency"), _raw_mode(image)
    if image.format != "PNG":
        return
    if isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif isinstance(key, int) and ";16" in raw:
        image.info["transparency"] = key >> 8
    elif isinstance(key, int) and raw in _LOW_BIT_GRAY:
        largest, scale = _LOW_BIT_GRAY[raw]
        image.info["transparency"] = (key & largest) * scale


def _reduce_scale(image: JpegImageFile, data: bytes, spec: DecodePart) -> tuple[int, int]:
    """Let a JPEG that is not loaded yet be decoded at reduced scale; return its (height, width) before."""
    native = height, width = image.height, image.width
    # The size is wanted of the picture as it is shown, with its sides swapped if it is turned.
    turned = _transposition(image) in _SWAPS
    scale = jpeg_scale(width, height, spec) if turned else jpeg_scale(height, width, spec)
    if scale > 1 and (width * height <= spec.max_pixels or fits_reduced(height, width, scale, data, spec)):
        # Pillow takes the largest scale that leaves this size.
        image.draft(None, (width // scale, height // scale))
    return native


def _transposition(image: Image.Image) -> Image.Transpose | None:
    try:
        return _ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - damaged metadata does not change the pixels
        return None


def _resize(image: Image.Image, spec: DecodePart, native: tuple[int, int]) -> Image.Image:
    """Resize an image to the recipe's size, or its longer side to `longest`."""
    if first := first_width(image.height, image.width, native, spec):
        image = image.resize((first, image.height), _resampling(spec))
    if spec.size is None:
        height, width = wanted_size(*native, spec)
        same = (image.height, image.width) == (height, width)
        return image if same else image.resize((width, height), _resampling(spec))
    if (image.height, image.width) == spec.size:
        return image
    height, width = spec.size
    if not spec.converts:
        raise Rejected(
            "wrong_size",
            f"{image.height}x{image.width}, the recipe asks for {height}x{width}: on_mismatch = "
            '"convert" in [decode] resizes it, no size keeps it as it is',
        )
    bilinear = _resampling(spec)
    if spec.fit == "crop":
        return ImageOps.fit(image, (width, height), bilinear)
    if spec.fit == "pad":
        rows, columns = wanted_size(*native, spec)
        padded = Image.new(image.mode, (width, height), (spec.background,) * spec.channels)
        padded.paste(image.resize((columns, rows), bilinear), ((width - columns) // 2, (height - rows) // 2))
        return padded
    return image.resize((width, height), bilinear)


def _resampling(spec: DecodePart) -> Image.Resampling:
    return Image.Resampling.BOX if spec.size is None else Image.Resampling.BILINEAR


def _high_byte(image: Image.Image) -> Image.Image:
    out = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    out.info = image.info
    return out


def _over_background(image: Image.Image, gray: int) -> Image.Image:
    below = Image.new("RGBA", image.size, (gray, gray, gray, 255))
    return Image.alpha_composite(below, image).convert("RGB")
