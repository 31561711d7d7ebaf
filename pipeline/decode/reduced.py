"""Sizes: to which size a picture is reduced, and at which scale a JPEG is decoded for that.

A JPEG stores blocks of 8 x 8 pixels as cosine transforms (DCT). A decoder can compute each block as 4 x 4, 2 x 2 or one
pixel, which is exact and much faster. Such a picture is decoded at the smallest of the scales 1/8, 1/4, 1/2 and 1 that
leaves at least twice the wanted size on both sides; the step from there to the wanted size is the same as for every
other format.

A picture of height h at scale 1/n has h / n rows, rounded up.

A picture that still has more than 25 million pixels is reduced to the wanted width first, then to the wanted height, so
that it can be done strip by strip.
"""

from collections.abc import Iterator

from pipeline.recipe import DecodePart

# Pixels of a large picture. Those of a camera of 24 megapixels are not large.
LARGE = 25_000_000
# Smallest first.
_SCALES = (8, 4, 2)
# Sides that remain for the last step, as a multiple of the wanted ones.
_MARGIN = 2
# Markers of a JPEG: segments without a length, the frame headers, the two sequential ones, and the start of a scan.
_BARE = frozenset([0x01, *range(0xD0, 0xDA)])
_FRAMES = frozenset([*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)])
_SEQUENTIAL = frozenset([0xC0, 0xC1])
SCAN = 0xDA


def wanted_size(height: int, width: int, spec: DecodePart) -> tuple[int, int]:
    """Return the size that a picture is scaled to, before it is cropped or padded.

    Args:
        height: of the picture as it is shown, with its orientation applied.
        width: likewise.
        spec: the recipe's `[decode]`.

    Returns:
        (height, width), each at least 1. With `fit = "crop"` it is the size of the part that stays.
    """
    if spec.longest is not None and max(height, width) > spec.longest:
        long = max(height, width)
        return _scaled(height, spec.longest, long), _scaled(width, spec.longest, long)
    if spec.size is None or not spec.converts:
        return height, width
    if spec.fit == "pad":
        scale = min(spec.size[0] / height, spec.size[1] / width)
        # Keep at least one pixel of a very long image.
        return max(1, round(height * scale)), max(1, round(width * scale))
    return spec.size


def first_width(height: int, width: int, native: tuple[int, int], spec: DecodePart) -> int | None:
    """Return the width to which a large picture is reduced before its height; None if it is reduced in one step.

    Args:
        height: of the decoded picture.
        width: likewise.
        native: (height, width) of the picture at full scale.
        spec: the recipe's `[decode]`. In lakes that do not record `originals` there is one step.
    """
    is_large = spec.reduces_jpegs and LARGE < height * width <= spec.max_pixels
    if not is_large or not spec.converts or (spec.size is not None and spec.fit == "crop"):
        return None
    first = wanted_size(*native, spec)[1]
    return first if first < width else None


def jpeg_scale(height: int, width: int, spec: DecodePart) -> int:
    """Return n for the scale 1/n, 1, 2, 4 or 8, at which a JPEG is decoded; 1 in lakes that do not record `originals`.

    Args:
        height: of the picture as it is shown.
        width: likewise.
        spec: the recipe's `[decode]`.
    """
    if not spec.reduces_jpegs:
        return 1
    rows, columns = (_MARGIN * side for side in wanted_size(height, width, spec))
    fits = (n for n in _SCALES if -(-height // n) >= rows and -(-width // n) >= columns)
    return next(fits, 1)


def fits_reduced(height: int, width: int, scale: int, data: bytes, spec: DecodePart) -> bool:
    """Return whether a JPEG with more than `max_pixels` pixels is decoded: at a scale at which it has fewer."""
    return scale > 1 and -(-height // scale) * -(-width // scale) <= spec.max_pixels and decodes_in_strips(data)


def decodes_in_strips(data: bytes) -> bool:
    """Return whether a JPEG can be decoded a few rows at a time, so that a reduced scale needs less memory.

    A progressive JPEG, and one with a scan for each colour, must be held in memory at its full size.
    """
    components = 0
    for marker, start in jpeg_segments(data):
        if marker == SCAN:
            return 0 < components == data[start + 4]
        if marker in _FRAMES:
            if marker not in _SEQUENTIAL or start + 9 >= len(data):
                return False
            components = data[start + 9]
    return False


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and the position of each segment of a JPEG, up to its first scan or what is no segment."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:  # noqa: PLR2004 - every marker begins with it
        marker = data[start + 1]
        if marker == 0xFF:  # noqa: PLR2004 - a fill byte
            start += 1
        elif marker in _BARE:
            start += 2
        elif marker == 0:
            return
        else:
            yield marker, start
            if marker == SCAN:
                return
            start += 2 + int.from_bytes(data[start + 2 : start + 4])


def _scaled(side: int, longest: int, long: int) -> int:
    """Multiply by longest / long, and round half up; at least 1."""
    return max(1, (2 * side * longest + long) // (2 * long))
