"""The images that a report shows: read their rows, and draw them as PNG data URIs, singly or as contact sheets."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl

from pipeline.errors import DamagedLakeError
from pipeline.hashing import content_hashes
from pipeline.pixels import SHAPE
from pipeline.report.overlap import ClusterChoice

if TYPE_CHECKING:
    from PIL.Image import Image

# Sides in pixels: small images are enlarged to about the first; larger ones than the second are scaled down.
_ENLARGED_SIDE = 64
_MAX_SIDE = 96
_SHEET_GAP = 2
# Columns of an image that are read beside its pixels.
COLUMNS = ["image_id", "path", "label", "dataset", "split", *SHAPE]
# Pixels in memory at a time while pictures are read and scaled down.
_BLOCK_BYTES = 2**27


def read_pictures(images: pl.LazyFrame, wanted: pl.Series, *, check: bool = False) -> pl.DataFrame:
    """Read some images.

    The filter is pushed down into the Parquet reader, which reads the ids first and unpacks the pixels of these rows
    only.

    Args:
        images: the images table.
        wanted: ids.
        check: compare the pixels with the content_hash of their image.

    Returns:
        The rows of `wanted` with path, label, size and pixels.

    Raises:
        DamagedLakeError: pixels are not those of the content_hash of their image.
    """
    ids = wanted.cast(pl.Binary).unique()
    hashed = ["content_hash"] if check else []
    rows = images.filter(pl.col("image_id").is_in(ids.implode())).select(*COLUMNS, "pixels", *hashed).collect()
    if check:
        _check_pixels(rows)
    return rows.drop(hashed)


def _check_pixels(rows: pl.DataFrame) -> None:
    for *shape, pixels, content_hash, image_id in rows.select(*SHAPE, "pixels", "content_hash", "image_id").rows():
        if len(pixels) != prod(shape) or content_hash != _content_hash(pixels, shape):
            raise DamagedLakeError(
                f"the pixels of the image {image_id.hex()} are not those that were read from its source. List the "
                "damage with `imagelake verify LAKE`, repair it with `imagelake build LAKE --repair`."
            )


def _content_hash(pixels: bytes, shape: Sequence[int]) -> bytes:
    return content_hashes(np.frombuffer(pixels, np.uint8).reshape(1, *shape)).tobytes()


def read_scaled(images: pl.LazyFrame, wanted: pl.Series, *, check: bool = False) -> Iterator[dict[str, Any]]:
    """Read some images block by block, and scale large ones down at once, so that few pixels are in memory.

    Yields:
        The rows of `read_pictures`, in which `image`, a Pillow image of at most 96 pixels a side, replaces `pixels`.
    """
    size = pl.col("height").cast(pl.Int64) * pl.col("width") * pl.col("channels")
    ids = wanted.cast(pl.Binary).unique()
    found = images.filter(pl.col("image_id").is_in(ids.implode())).select("image_id", size=size).collect()
    block = pl.col("size").cum_sum() // _BLOCK_BYTES
    for _, part in found.sort("image_id").group_by(block.alias("block"), maintain_order=True):
        for row in read_pictures(images, part["image_id"], check=check).iter_rows(named=True):
            image = scale_down(to_pillow(row), _MAX_SIDE)
            del row["pixels"]
            yield {**row, "image": image}


def picture(row: dict[str, Any]) -> dict[str, Any]:
    """Draw one image.

    Args:
        row: height, width, and channels and pixels of an image, or `image`.

    Returns:
        src (PNG data URI, at most 96 pixels a side), scale (an integer by which small images are enlarged), show_width
        and show_height (in CSS pixels), height and width (of the image itself).
    """
    image = scale_down(to_pillow(row), _MAX_SIDE)
    return {**encode(image, _scale(max(image.size))), "height": row["height"], "width": row["width"]}


def contact_sheet(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Draw images side by side, in cells of equal size on a transparent background.

    Args:
        rows: height, width, and channels and pixels of each image, or `image`; in the order to show.

    Returns:
        src, scale, show_width and show_height, as in `picture`; count (number of images).
    """
    from PIL import Image  # noqa: PLC0415 - importing the package must not load Pillow

    images = [scale_down(to_pillow(row), _ENLARGED_SIDE) for row in rows]
    width, height = (max(image.size[axis] for image in images) for axis in (0, 1))
    gray = all(image.mode == "L" for image in images)
    sheet = Image.new("LA" if gray else "RGBA", (len(images) * (width + _SHEET_GAP) - _SHEET_GAP, height))
    for number, image in enumerate(images):
        corner = (number * (width + _SHEET_GAP) + (width - image.size[0]) // 2, (height - image.size[1]) // 2)
        sheet.paste(image.convert(sheet.mode), corner)
    return {**encode(sheet, _scale(max(width, height))), "count": len(images)}


def to_pillow(row: dict[str, Any]) -> "Image":
    """Make a Pillow image of a row's height, width, channels and pixels, or copy its `image`."""
    from PIL import Image  # noqa: PLC0415 - importing the package must not load Pillow

    if "image" in row:
        scaled: Image.Image = row["image"].copy()
        return scaled
    shape = (row["height"], row["width"], row["channels"])
    pixels = np.frombuffer(row["pixels"], dtype=np.uint8).reshape(shape)
    return Image.fromarray(pixels[..., 0] if row["channels"] == 1 else pixels)


def scale_down(image: "Image", side: int) -> "Image":
    """Scale an image down so that no side is longer than `side`; smaller images are returned unchanged."""
    if max(image.size) > side:
        image.thumbnail((side, side))
    return image


def encode(image: "Image", scale: int) -> dict[str, Any]:
    """Encode an image as a PNG data URI: src, scale, show_width and show_height (in CSS pixels)."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return {
        "src": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii"),
        "scale": scale,
        "show_width": image.size[0] * scale,
        "show_height": image.size[1] * scale,
    }


def _scale(side: int) -> int:
    return max(1, _ENLARGED_SIDE // side)


@dataclass
class Pictures:
    """Images to show, by image_id. All ids are collected first, so that one read finds all images.

    Attributes:
        wanted: image_ids to read.
        split_rows: by (split_name, image_id), the image's row of the splits table: role, kept, dropped_by, dropped_for.
        rows: by image_id, its row, once read.
    """

    wanted: pl.Series
    split_rows: dict[tuple[str, bytes], dict[str, Any]]
    rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def collect(
        cls,
        splits: pl.LazyFrame,
        samples: pl.Series,
        choices: list[ClusterChoice],
        misses: tuple[Sequence[bytes], Sequence[bytes]] = ((), ()),
    ) -> Self:
        """Collect the ids of all images to show, and of the images for which they were dropped.

        Args:
            splits: the splits table.
            samples: image_ids of the samples of classes and roles.
            choices: clusters to show.
            misses: image_ids of misclassified test images, and of the training images nearest to them.
        """
        missed, nearest = misses
        in_splits = [*(image_id for choice in choices for image_id in choice.ids()), *missed]
        shown = pl.Series("image_id", in_splits, dtype=pl.Binary)
        split_rows = splits.join(pl.LazyFrame([shown.unique()]), on="image_id", how="semi").collect()
        others = pl.Series(nearest, dtype=pl.Binary)
        dropped_for = split_rows["dropped_for"].cast(pl.Binary).drop_nulls()
        wanted = pl.concat([samples.cast(pl.Binary), shown, others, dropped_for])
        return cls(
            wanted.unique().alias("image_id"),
            {(row["split_name"], row["image_id"]): row for row in split_rows.iter_rows(named=True)},
        )

    def fill(self, images: pl.LazyFrame) -> None:
        """Read the wanted images."""
        self.rows = {row["image_id"]: row for row in read_scaled(images, self.wanted)}

    def sheet(self, ids: list[bytes]) -> dict[str, Any] | None:
        """Draw images side by side in one PNG; None without images."""
        return contact_sheet([self.rows[image_id] for image_id in ids]) if ids else None

    def picture(self, image_id: bytes | None, split_name: str | None) -> dict[str, Any] | None:
        """Draw one image, with the result of sanitizing in a split; None if the lake does not have it."""
        if image_id is None or image_id not in self.rows:
            return None
        row = self.rows[image_id]
        split_row = self.split_rows.get((split_name, image_id), {}) if split_name is not None else {}
        dropped_for = self.rows.get(split_row.get("dropped_for") or b"", {})
        return {
            "image_id": image_id.hex(),
            "path": row["path"],
            "label": row["label"],
            "source": f"{row['dataset']}/{row['split']}",
            "role": split_row.get("role"),
            "kept": split_row.get("kept"),
            "dropped_by": split_row.get("dropped_by"),
            "dropped_for": dropped_for.get("path"),
            **picture(row),
        }

    def clusters(self, choice: ClusterChoice, rule: str) -> list[dict[str, Any]]:
        """Draw the chosen clusters of one rule.

        Returns:
            One dict, or none if the rule has no such cluster: rule, split_name, total, shown. A shown cluster has
            cluster_id, images, sides, more_sides and instead (a picture, or None); a side has side, images and
            pictures.
        """
        if rule not in choice.totals:
            return []
        shown = [
            {
                **cluster,
                "sides": [self._side(side, choice.split_name) for side in cluster["sides"]],
                "instead": self.picture(cluster["instead"], choice.split_name),
            }
            for cluster in choice.shown[rule]
        ]
        return [{"rule": rule, "split_name": choice.split_name, "total": choice.totals[rule], "shown": shown}]

    def _side(self, side: dict[str, Any], split_name: str | None) -> dict[str, Any]:
        drawn = [self.picture(image_id, split_name) for image_id in side["ids"]]
        return {"side": side["side"], "images": side["images"], "pictures": [one for one in drawn if one]}
