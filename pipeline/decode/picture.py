"""One encoded file to canonical pixels, or to the reason why not.

What each kind of input becomes is decided here, on purpose:

- gray PNG of 1, 2, 4 or 8 bits: scaled to 0 to 255;
- 16 bits a channel: the high byte;
- palette: its colours; gray from colour: ITU-R 601 luma, `(19595 R + 38470 G + 7471 B + 32768) >> 16`;
- alpha, or a transparent colour or palette entry: laid over the recipe's background;
- EXIF orientation: turned as a viewer would show it, before the size is judged; unreadable EXIF turns nothing;
- interlaced: the same pixels as plain; animated: the first frame; CMYK: Pillow's conversion, no colour profile;
- floating point, 32-bit integers, LAB: no range of theirs is black to white, so they are rejected.

With `on_mismatch = "convert"`, the default, everything above is converted, and brought to the recipe's size by an
antialiased bilinear filter: stretched, cropped or padded, as `fit` says. With "reject" only 8-bit-or-less gray (mode L)
or 8-bit RGB (mode RGB) without alpha is taken, and only in the recipe's size.

A file that was cut behind its last pixel is a picture; one that was cut before is a reject.

How Pillow is held to strictness, and how its complaints become reason codes.
"""

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from pipeline.recipe import DecodePart

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


__all__ = ["Unfit", "convert", "decode", "is_gray", "strict_pillow"]

# By channels.
_EXACT_MODES = {1: ("1", "L"), 3: ("RGB",)}
_GRAY_MODES = ("1", "L", "LA", "La")
_CONVERTED = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")
# Gray of few bits: its largest value, and what scales it to 255.
_FEW_BITS = {"L;2": (3, 85), "L;4": (15, 17)}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, spec: DecodePart) -> tuple[NDArray[np.uint8], bool]:
    """Decode one file; call it inside `strict_pillow()`.

    Args:
        data: the encoded file.
        spec: the recipe's `[decode]`, its mode decided.

    Returns:
        (height, width, channels) uint8, and whether the picture is of the other kind: its red, green and blue differ
        where the mode is L, or it has one gray channel where the mode is RGB.

    Raises:
        Unfit: with a reason code: empty, not_an_image, too_large, truncated, corrupt, wrong_mode or wrong_size.
    """
    if not data:
        raise Unfit("empty", "the file has no bytes")
    if len(data) > spec.max_bytes:
        raise Unfit("too_large", f"more than decode.max_bytes = {spec.max_bytes} bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
        _judge(image, spec)
        _mend_key(image)
        check_png(data)
        image.load()
        return _as_array(_turned(image), spec)
    except (Unfit, MemoryError):
        raise
    except UnidentifiedImageError:
        raise unidentified(data) from None
    except Exception as error:  # noqa: BLE001 - format plugins raise whatever their parsers trip over
        raise broken(data, error) from None


def convert(pixels: NDArray[np.uint8], spec: DecodePart) -> tuple[NDArray[np.uint8], bool]:
    """Bring a picture that arrived as pixels to the recipe's size and mode, as `decode` would.

    Args:
        pixels: (height, width, channels) uint8, channels 1 or 3.
        spec: the recipe's `[decode]`, its mode decided.

    Returns:
        As `decode`.

    Raises:
        Unfit: with reason code too_large, wrong_mode or wrong_size.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    _judge(image, spec)
    return _as_array(image, spec)


def is_gray(pixels: NDArray[np.uint8]) -> bool:
    """Tell whether a picture has one channel, or equal red, green and blue everywhere: (height, width, channels)."""
    return pixels.shape[2] == 1 or not ((pixels[..., 0] != pixels[..., 1]) | (pixels[..., 0] != pixels[..., 2])).any()


def _as_array(image: Image.Image, spec: DecodePart) -> tuple[NDArray[np.uint8], bool]:
    if image.mode in (*_SIXTEEN, "I"):
        image = _high_byte(image)
    gray = image.mode in _GRAY_MODES
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
    canonical = _resized(image, spec)
    array = np.asarray(canonical, dtype=np.uint8)
    return array.reshape(canonical.height, canonical.width, spec.channels), converted


def _judge(image: Image.Image, spec: DecodePart) -> None:
    """Turn an image away by its header, before a pixel is decoded."""
    if image.width * image.height > spec.max_pixels:
        detail = f"{image.height}x{image.width} pixels, more than decode.max_pixels = {spec.max_pixels}"
        raise Unfit("too_large", detail)
    # Pillow hands out 16-bit colour as 8-bit; only the tile's raw mode still tells. Mode I is 16-bit gray in PPM alone.
    sixteen = image.mode in _SIXTEEN or ";16" in _raw_mode(image) or (image.mode == "I" and image.format == "PPM")
    keyed = "transparency" in image.info
    if not sixteen and image.mode not in _CONVERTED:
        raise Unfit("wrong_mode", f"{image.mode} has no defined conversion to {spec.mode}")
    if not spec.converts and (sixteen or keyed or image.mode not in _EXACT_MODES[spec.channels]):
        what = f"{image.mode}{' of 16 bits' if sixteen else ''}{' with a transparent colour' if keyed else ''}"
        keys = 'on_mismatch = "convert" in [decode] converts it'
        if image.mode in _EXACT_MODES[4 - spec.channels] and not (sixteen or keyed):
            keys += f', mode = "{"RGB" if spec.mode == "L" else "L"}" takes it as it is'
        raise Unfit("wrong_mode", f"{what}, the recipe asks for {spec.mode}: {keys}")


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _mend_key(image: Image.Image) -> None:
    """Bring PNG's transparent colour to 8 bits like the pixels: Pillow leaves it in the depth of the file."""
    key, raw = image.info.get("transparency"), _raw_mode(image)
    if image.format != "PNG":
        return
    if isinstance(key, tuple) and ";16" in raw:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif isinstance(key, int) and ";16" in raw:
        image.info["transparency"] = key >> 8
    elif isinstance(key, int) and raw in _FEW_BITS:
        largest, scale = _FEW_BITS[raw]
        image.info["transparency"] = (key & largest) * scale


def _turned(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a picture with broken metadata is still that picture
        turn = None
    return image if turn is None else image.transpose(turn)


def _resized(image: Image.Image, spec: DecodePart) -> Image.Image:
    """Bring an image of the recipe's mode to the recipe's size."""
    if spec.size is None or (image.height, image.width) == spec.size:
        return image
    height, width = spec.size
    if not spec.converts:
        raise Unfit(
            "wrong_size",
            f"{image.height}x{image.width}, the recipe asks for {height}x{width}: on_mismatch = "
            '"convert" in [decode] resizes it, no size keeps it as it is',
        )
    bilinear = Image.Resampling.BILINEAR
    if spec.fit == "crop":
        return ImageOps.fit(image, (width, height), bilinear)
    if spec.fit == "pad":
        scale = min(height / image.height, width / image.width)
        # A very long image must not vanish.
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        padded = Image.new(image.mode, (width, height), (spec.background,) * spec.channels)
        padded.paste(image.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return padded
    return image.resize((width, height), bilinear)


def _high_byte(image: Image.Image) -> Image.Image:
    out = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    out.info = image.info
    return out


def _over_background(image: Image.Image, gray: int) -> Image.Image:
    below = Image.new("RGBA", image.size, (gray, gray, gray, 255))
    return Image.alpha_composite(below, image).convert("RGB")
