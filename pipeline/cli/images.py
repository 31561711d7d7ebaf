"""`imagelake show`: show single images with their labels."""

from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.review.images import first_pictures, write_pngs
from pipeline.search.images import find_images

# Images that are drawn in the terminal, and the longer side of a drawing in pixels; a pixel is two characters wide.
_DRAWN = 5
_SIDE = 32
# From black to white.
_SHADES = np.array(list(" .:-=+*#%@"))


@click.command("show")
@the_lake
@click.argument("items", metavar="PATH-or-ID-or-DIGEST...", nargs=-1, required=True)
@click.option("--dataset", metavar="DATASET", help="Only images of this dataset.")
@click.option("--split", metavar="SPLIT", help="Only images of this split of the sources, such as train.")
@click.option("--png", metavar="DIR", type=click.Path(), help="Write the images to this folder as LABEL-IMAGE_ID.png.")
@of_release("show")
@as_json
def show_command(lake: str, items: tuple[str, ...], *, json_: bool, **options: Any) -> None:  # noqa: ANN401 - the options above
    """Show single images of LAKE with their label, roles and attributes, and a drawing of their pixels.

    An image is named by its path in the source, its image_id or content_hash of 32 hexadecimal digits, or the SHA-256
    digest of its file. A row of a CSV file or an array is named by its number, from 0. If several sources have a path,
    their images are all shown; --dataset and --split choose one. Without --png, the first 5 images are drawn in the
    terminal, at most 32 pixels a side.

    \b
    imagelake show data/demo 931b0c5ab51e8b5ba7b8e3d7a7c5d1f0
    imagelake show digits-lake 0 41999 --split train
    imagelake show digits-lake 0 1 2 --png pictures
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    opened = Lake(lake, options["release"])
    found = find_images(opened, items, dataset=options["dataset"], split=options["split"])
    folder: str | None = options["png"]
    files = write_pngs(opened, found, folder) if folder is not None else None
    if json_:
        rows = found.rows if files is None else found.rows.with_columns(pl.Series("file", files, pl.String))
        show_json({"release": found.release, "images": rows})
        return
    shown = found.rows.select(
        "path",
        "label",
        pl.format("{}/{}", "dataset", "split").alias("source"),
        pl.format("{} x {}", "height", "width").alias("size"),
        pl.Series("roles", ["; ".join(map(_role, roles)) for roles in found.rows["roles"].to_list()], pl.String),
        pl.Series(
            "attributes", ["; ".join(map(_attribute, of)) for of in found.rows["attributes"].to_list()], pl.String
        ),
        "image_id",
    )
    # Most lakes have no attributes.
    show_frame(shown if any(shown["attributes"]) else shown.drop("attributes"))
    if files is not None:
        for file in files:
            print_line(file)
        return
    drawn = first_pictures(opened, found, _DRAWN)
    for picture, path, label in zip(drawn, shown["path"], shown["label"], strict=False):
        print_line("")
        print_line(f"{path}: {'no label' if label is None else label}")
        for line in draw(picture):
            print_line(line)
    if len(found.rows) > len(drawn):
        print_line(f"{len(drawn)} of {len(found.rows):,} images drawn; --png DIR writes all.", err=True)


def draw(picture: NDArray[np.uint8]) -> Iterator[str]:
    """Draw an image with characters, the brighter the denser; a large one is scaled down.

    Args:
        picture: (height, width) gray or (height, width, 3) RGB.

    Yields:
        Lines of characters, two for each pixel.
    """
    from PIL import Image  # noqa: PLC0415 - slow to import

    image = Image.fromarray(picture)
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE))
    gray = np.asarray(image.convert("L")).astype(np.int64)
    shades = _SHADES[gray * len(_SHADES) // 256]
    return ("".join(np.repeat(row, 2)).rstrip() for row in shades)


def _attribute(attribute: dict[str, str]) -> str:
    return f"{attribute['name']}: {attribute['value']}"


def _role(role: dict[str, Any]) -> str:
    if role["kept"]:
        return f"{role['split_name']}: {role['role']}"
    why = f" ({role['reason']})" if role["reason"] else ""
    return f"{role['split_name']}: {role['role']}, dropped by {role['dropped_by'] or 'no named rule'}{why}"
