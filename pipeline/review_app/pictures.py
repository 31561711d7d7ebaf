"""Draw images for the pages: as PNG files, and the difference of two."""

import io
from collections.abc import Mapping
from typing import Any

from pipeline.report.pictures import scale_down, to_pillow
from pipeline.report.review import changes_of, draw_difference

# Longest sides in pixels: of a picture that is looked at, of one in a grid, and of a drawn difference.
LARGE, SMALL, _DIFFERENCE = 1024, 160, 512


def encode_png(row: Mapping[str, Any], side: int) -> bytes:
    """Draw an image as a PNG file; large ones are scaled down.

    Args:
        row: height, width, channels and pixels.
        side: the longest side, in pixels.
    """
    file = io.BytesIO()
    scale_down(to_pillow(dict(row)), side).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def difference(left: Mapping[str, Any], right: Mapping[str, Any], rule: str | None) -> dict[str, Any] | None:
    """Draw where two images differ; see `report.review.draw_difference`.

    If the images have different shapes in every way in which the rule turns them, the second is scaled to the first.

    Args:
        left: height, width, channels and pixels of one image.
        right: the same of the other.
        rule: the rule under which they are a pair.
    """
    changes = changes_of(rule or "")
    one, other = _small(left), _small(right)
    if one["channels"] != other["channels"]:
        one, other = _in_mode(one, "RGB"), _in_mode(other, "RGB")
    if (drawn := draw_difference(one, other, changes, _DIFFERENCE)) is not None:
        return drawn
    drawn = draw_difference(one, _in_mode(other, None, (one["width"], one["height"])), changes, _DIFFERENCE)
    if drawn is None:
        return None
    return {**drawn, "changed": " and ".join(filter(None, [drawn["changed"], "scaled to the size of the first"]))}


def _small(row: Mapping[str, Any]) -> dict[str, Any]:
    if max(row["height"], row["width"]) <= _DIFFERENCE:
        return dict(row)
    return _as_row(scale_down(to_pillow(dict(row)), _DIFFERENCE))


def _in_mode(row: Mapping[str, Any], mode: str | None, size: tuple[int, int] | None = None) -> dict[str, Any]:
    image = to_pillow(dict(row))
    image = image if mode is None else image.convert(mode)
    return _as_row(image if size is None else image.resize(size))


def _as_row(image: Any) -> dict[str, Any]:  # noqa: ANN401 - Pillow is imported when it is needed
    width, height = image.size
    return {"height": height, "width": width, "channels": len(image.getbands()), "pixels": image.tobytes()}
