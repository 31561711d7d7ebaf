"""One encoded file to canonical pixels, or to the reason why not.

What each kind of input becomes is decided here, on purpose:

- gray PNG of 1, 2, 4 or 8 bits: scaled to 0 to 255;
- 16 bits a channel: the high byte;
- palette: its colours; gray from colour: ITU-R 601 luma, `(19595 R + 38470 G + 7471 B + 32768) >> 16`;
- alpha, or a transparent palette entry: laid over the recipe's background;
- EXIF orientation: turned as a viewer would show it, before the size is judged;
- interlaced: the same pixels as plain; animated: the first frame; CMYK: Pillow's conversion, no colour profile.

With `on_mismatch = "reject"` only 8-bit-or-less gray (mode L) or 8-bit RGB (mode RGB) without alpha is taken, and only
in the recipe's size. With "resize" everything above is converted, and resized by an antialiased bilinear filter.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from pipeline.recipe import DecodePart

# A file that ends early must not pass for a picture with a black rest.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# The recipe's own limit is checked before a pixel is decoded, with a clearer reason than Pillow's warning.
Image.MAX_IMAGE_PIXELS = None

_EXACT_MODES = {"L": ("1", "L"), "RGB": ("RGB",)}
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class Unfit(Exception):  # noqa: N818 - not an error: bad images are rows
    """A file that does not become an image: `args` are the reason code and what exactly was wrong."""


def decode(data: bytes, spec: DecodePart) -> NDArray[np.uint8]:
    """Decode one file.

    Args:
        data: the encoded file.
        spec: the recipe's `[decode]`.

    Returns:
        (height, width, channels) uint8.

    Raises:
        Unfit: with a reason code: empty, not_an_image, too_large, truncated, corrupt, wrong_mode or wrong_size.
    """
    if not data:
        raise Unfit("empty", "the file has no bytes")
    return _as_array(_load(data, spec), spec)


def convert(pixels: NDArray[np.uint8], spec: DecodePart) -> NDArray[np.uint8]:
    """Bring a picture that arrived as pixels to the recipe's size and mode, as `decode` would.

    Args:
        pixels: (height, width, channels) uint8, channels 1 or 3.
        spec: the recipe's `[decode]`.

    Returns:
        (height, width, channels) uint8.

    Raises:
        Unfit: with reason code too_large, wrong_mode or wrong_size.
    """
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    _judge(image, spec)
    return _as_array(image, spec)


def _as_array(image: Image.Image, spec: DecodePart) -> NDArray[np.uint8]:
    canonical = _canonical(image, spec)
    array = np.asarray(canonical, dtype=np.uint8)
    return array.reshape(canonical.height, canonical.width, spec.channels)


def _load(data: bytes, spec: DecodePart) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise Unfit(*_unidentified(data)) from None
    except Exception as error:  # noqa: BLE001 - format plugins raise whatever their parsers trip over
        raise Unfit("corrupt", _line(error)) from None
    _judge(image, spec)
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:  # noqa: BLE001 - as above
        raise Unfit(_broken(error), _line(error)) from None


def _judge(image: Image.Image, spec: DecodePart) -> None:
    """Turn an image away by its header, before a pixel is decoded."""
    if image.width * image.height > spec.max_pixels:
        detail = f"{image.height}x{image.width} pixels, more than decode.max_pixels = {spec.max_pixels}"
        raise Unfit("too_large", detail)
    # Pillow hands out 16-bit colour as 8-bit; only the tile's raw mode still tells.
    sixteen = image.mode in _SIXTEEN or ";16" in str(getattr(image, "tile", ""))
    if spec.on_mismatch == "reject" and (sixteen or not _exact(image, spec)):
        raise Unfit("wrong_mode", f"{image.mode}{' of 16 bits' if sixteen else ''}, the recipe asks for {spec.mode}")


def _exact(image: Image.Image, spec: DecodePart) -> bool:
    return image.mode in _EXACT_MODES[spec.mode] and "transparency" not in image.info


def _canonical(image: Image.Image, spec: DecodePart) -> Image.Image:
    if image.mode in _SIXTEEN:
        image = _high_byte(image)
    if image.has_transparency_data:
        image = _over_background(image.convert("RGBA"), spec.background)
    if image.mode != spec.mode:
        image = image.convert("RGB").convert(spec.mode) if image.mode != "1" else image.convert(spec.mode)
    if spec.size is not None and (image.height, image.width) != spec.size:
        if spec.on_mismatch == "reject":
            height, width = spec.size
            raise Unfit("wrong_size", f"{image.height}x{image.width}, the recipe asks for {height}x{width}")
        image = image.resize(spec.size[::-1], Image.Resampling.BILINEAR)
    return image


def _high_byte(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def _over_background(image: Image.Image, gray: int) -> Image.Image:
    below = Image.new("RGBA", image.size, (gray, gray, gray, 255))
    return Image.alpha_composite(below, image).convert("RGB")


def _unidentified(data: bytes) -> tuple[str, str]:
    # The start of a known format that Pillow cannot open was an image once.
    if data.startswith(_SIGNATURES):
        return "truncated" if len(data) < _SHORT else "corrupt", "starts like an image but has no readable header"
    return "not_an_image", "no image format that Pillow knows"


def _broken(error: Exception) -> str:
    text = str(error).lower()
    return "truncated" if "truncated" in text or "unexpected end" in text or isinstance(error, EOFError) else "corrupt"


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_SHORT = 64
