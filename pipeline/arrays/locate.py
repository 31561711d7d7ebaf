"""Find where the images of a split lie: which file, which row. Joins ids; opens no pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import LakeError


@dataclass(frozen=True)
class Located:
    """Where wanted images lie.

    Attributes:
        files: Parquet files of the images table.
        file: (n,) position in `files`, for each wanted image in the order asked for.
        row: (n,) row inside that file.
        shape: (height, width, channels) that all of them have.
    """

    files: tuple[str, ...]
    file: NDArray[np.int64]
    row: NDArray[np.int64]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.file)

    def take(self, positions: NDArray[np.int64]) -> "Located":
        """Keep some of the images, in the order given."""
        return Located(self.files, self.file[positions], self.row[positions], self.shape)


def locate(files: Sequence[str], image_ids: pl.Series) -> Located:
    """Find images by id.

    Args:
        files: Parquet files of the images table.
        image_ids: binary, unique, in the order wanted.

    Raises:
        LakeError: an id is in none of the files, or the images are not all of one shape.
    """
    if not files or image_ids.is_empty():
        return Located(tuple(files), np.empty(0, np.int64), np.empty(0, np.int64), (0, 0, 0))
    wanted = pl.LazyFrame({"image_id": image_ids}).with_row_index("position")
    shape = ["height", "width", "channels"]
    found = (
        pl.scan_parquet(
            list(files), include_file_paths="file", row_index_name="at", hive_partitioning=False, glob=False
        )
        .select("image_id", "file", *shape, row=pl.col("at") - pl.col("at").min().over("file"))
        .join(wanted, on="image_id")
        .sort("position")
        .collect()
    )
    if len(found) != len(image_ids):
        raise LakeError(f"{len(image_ids) - len(found)} images of the split are not in the images table. Build again.")
    shapes = found.select(shape).unique()
    if len(shapes) > 1:
        listed = ", ".join("x".join(map(str, row)) for row in shapes.sort(shape).head(5).rows())
        raise LakeError(f"the images have several shapes ({listed}): set decode.size in the recipe to get one array.")
    numbers = pl.DataFrame({"file": list(files), "number": range(len(files))}, schema_overrides={"number": pl.Int64})
    file = found.select("file").join(numbers, on="file", how="left", maintain_order="left")["number"]
    height, width, channels = shapes.row(0)
    return Located(tuple(files), file.to_numpy(), found["row"].cast(pl.Int64).to_numpy(), (height, width, channels))
