"""PNG data URIs: small pictures to enlarge, large ones scaled down, a class as one contact sheet.

Exact sums per class, and the few pictures that are shown: no other pixels are read.

The pictures a report shows: which are wanted, what is known of them, and their PNG.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl

from pipeline.report.clusters import ClusterChoice

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


CLASS = ["dataset", "split", "label"]
_SHOWN = ["image_id", "path", "label", "dataset", "split", "height", "width", "channels", "pixels"]


def sum_classes(images: pl.LazyFrame) -> pl.DataFrame:
    """Add up what the images table knows of every image: no pixel is read.

    Sums are integers, so that neither the order of shards nor that of rows can change a digit.

    Args:
        images: the images table.

    Returns:
        Sums per class, sorted, nulls last: dataset, split, label, images (count), values (pixel values),
        total (their sum), squares (sum of their squares).
    """
    size = pl.col("height").cast(pl.Int64) * pl.col("width") * pl.col("channels")
    return (
        images.group_by(CLASS)
        .agg(
            images=pl.len().cast(pl.Int64),
            values=size.sum(),
            total=pl.col("pixel_sum").sum(),
            squares=pl.col("pixel_squares").sum(),
        )
        .sort(CLASS, nulls_last=True)
        .collect()
    )


def read_pictures(images: pl.LazyFrame, wanted: pl.Series) -> pl.DataFrame:
    """Read some images.

    The filter goes down into the Parquet reader: it looks at the ids first, and unpacks the pixels of those rows alone.

    Args:
        images: the images table.
        wanted: image_id of the pictures.

    Returns:
        The rows of `wanted` with path, label, size and pixels.
    """
    ids = wanted.cast(pl.Binary).unique()
    return images.filter(pl.col("image_id").is_in(ids.implode())).select(_SHOWN).collect()


@dataclass
class Album:
    """Pictures by image_id. Ids go in first, so that one pass over the pixels finds them all.

    Attributes:
        wanted: image_id of every picture to read.
        fates: (split_name, image_id) -> kept, dropped_by, dropped_for.
        rows: image_id -> its row, once filled.
    """

    wanted: pl.Series
    fates: dict[tuple[str, bytes], dict[str, Any]]
    rows: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        splits: pl.LazyFrame,
        samples: pl.Series,
        crossing: list[ClusterChoice],
        conflicts: ClusterChoice,
        misses: tuple[Sequence[bytes], Sequence[bytes]] = ((), ()),
    ) -> Self:
        """Collect what is wanted: samples, images of chosen clusters, and what those were dropped for.

        Of misses, first the test images, then the training images beside them.
        """
        missed, nearest = misses
        shown = pl.Series("image_id", [*(one for choice in crossing for one in choice.ids()), *missed], dtype=pl.Binary)
        fates = splits.join(pl.LazyFrame([shown.unique()]), on="image_id", how="semi").collect()
        beside = pl.Series([*conflicts.ids(), *nearest], dtype=pl.Binary)
        wanted = pl.concat([samples.cast(pl.Binary), shown, beside, fates["dropped_for"].cast(pl.Binary).drop_nulls()])
        return cls(
            wanted.unique().alias("image_id"),
            {(row["split_name"], row["image_id"]): row for row in fates.iter_rows(named=True)},
        )

    def fill(self, pictures: pl.DataFrame) -> None:
        """Put in the rows that `read_pictures` returned."""
        self.rows = {row["image_id"]: row for row in pictures.iter_rows(named=True)}

    def sheet(self, ids: list[bytes]) -> dict[str, Any] | None:
        """Lay pictures side by side in one PNG; None without pictures."""
        return contact_sheet([self.rows[one] for one in ids]) if ids else None

    def entries(self, choice: ClusterChoice, rule: str) -> list[dict[str, Any]]:
        """Show a choice's clusters of one rule.

        Args:
            choice: the chosen clusters.
            rule: the rule.

        Returns:
            One dict, or none where the rule has no such cluster: rule, split_name, total, shown; a cluster
            shown has cluster_id, images, sides and more_sides; a side has side, images and pictures.
        """
        if rule not in choice.totals:
            return []
        shown = [
            {**cluster, "sides": [self._side(side, choice.split_name) for side in cluster["sides"]]}
            for cluster in choice.shown[rule]
        ]
        return [{"rule": rule, "split_name": choice.split_name, "total": choice.totals[rule], "shown": shown}]

    def picture(self, image_id: bytes | None, split_name: str | None) -> dict[str, Any] | None:
        """Show one picture, with what sanitizing did to it in a split; None where the lake does not hold it."""
        return None if image_id not in self.rows else self._picture(image_id, split_name)

    def _side(self, side: dict[str, Any], split_name: str | None) -> dict[str, Any]:
        pictures = [self._picture(one, split_name) for one in side["ids"] if one in self.rows]
        return {"side": side["side"], "images": side["images"], "pictures": pictures}

    def _picture(self, image_id: bytes, split_name: str | None) -> dict[str, Any]:
        row = self.rows[image_id]
        fate = self.fates.get((split_name, image_id), {}) if split_name is not None else {}
        reason = self.rows.get(fate.get("dropped_for") or b"", {})
        return {
            "image_id": image_id.hex(),
            "path": row["path"],
            "label": row["label"],
            "source": f"{row['dataset']}/{row['split']}",
            "kept": fate.get("kept"),
            "dropped_by": fate.get("dropped_by"),
            "dropped_for": reason.get("path"),
            **picture(row),
        }
