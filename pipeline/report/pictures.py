"""PNG data URIs: small pictures to enlarge, large ones scaled down, a class as one contact sheet."""

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

BOX = 64
THUMBNAIL = 96
GAP = 2


def picture(row: dict[str, Any]) -> dict[str, Any]:
    """Make a picture to show by itself.

    Args:
        row: height, width, channels and pixels of an image.

    Returns:
        src (PNG data URI, at most 96 pixels a side), scale (small pictures are enlarged by a whole number),
        show_width and show_height (in CSS pixels), height and width (of the image itself).
    """
    image = _thumbnail(row, THUMBNAIL)
    return {**_shown(image, _scale(max(image.size))), "height": row["height"], "width": row["width"]}


def contact_sheet(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Lay pictures side by side, each in a cell of equal size, on a transparent ground.

    Args:
        rows: height, width, channels and pixels of each image, in the order to show.

    Returns:
        src, scale, show_width and show_height, as `picture` has them; count of pictures.
    """
    from PIL import Image  # noqa: PLC0415 - importing the package must not load Pillow

    images = [_thumbnail(row, BOX) for row in rows]
    width, height = (max(image.size[axis] for image in images) for axis in (0, 1))
    gray = all(image.mode == "L" for image in images)
    sheet = Image.new("LA" if gray else "RGBA", (len(images) * (width + GAP) - GAP, height))
    for place, image in enumerate(images):
        corner = (place * (width + GAP) + (width - image.size[0]) // 2, (height - image.size[1]) // 2)
        sheet.paste(image.convert(sheet.mode), corner)
    return {**_shown(sheet, _scale(max(width, height))), "count": len(images)}


def _thumbnail(row: dict[str, Any], side: int) -> "Image":
    from PIL import Image  # noqa: PLC0415 - importing the package must not load Pillow

    shape = (row["height"], row["width"], row["channels"])
    pixels = np.frombuffer(row["pixels"], dtype=np.uint8).reshape(shape)
    image = Image.fromarray(pixels[..., 0] if row["channels"] == 1 else pixels)
    if max(image.size) > side:
        image.thumbnail((side, side))
    return image


def _scale(side: int) -> int:
    return max(1, BOX // side)


def _shown(image: "Image", scale: int) -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    src = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return {
        "src": src,
        "scale": scale,
        "show_width": image.size[0] * scale,
        "show_height": image.size[1] * scale,
    }
