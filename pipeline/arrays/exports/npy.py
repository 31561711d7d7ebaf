"""npy: plain arrays that can be mapped into memory, with an index of their rows."""

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.arrays.exports.arrays import (
    check_shapes,
    class_array,
    pixels_shape,
    write_array,
    write_header,
    write_pixels,
)
from pipeline.arrays.exports.selection import Role, Selection, Work

_INDEX = ("rank", "image_id", "label_index", "label", "path", "dataset", "split", "kept", "content_hash")


def write(folder: Path, selection: Selection, work: Work) -> None:
    """Write classes.npy and, for every role, ROLE_images.npy, ROLE_labels.npy, ROLE_ids.npy and ROLE_index.parquet.

    Images are (n, height, width[, 3]) uint8, labels (n,) int64, ids (n, 16) uint8; row i of each, and of the index, is
    the same image. Classes are text: row i names label i; -1 is no label.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    check_shapes(selection.roles)
    with (folder / "classes.npy").open("wb") as stream:
        write_array(stream, class_array(selection))
    for role in selection.roles:
        # Written, not mapped: on a full disk a write fails with an error, a map with a signal that ends the process.
        with (folder / f"{role.name}_images.npy").open("wb") as stream:
            write_header(stream, pixels_shape(role), np.uint8)
            write_pixels(stream, role, work.advance)
        for name, array in (("labels", role.labels), ("ids", role.ids)):
            with (folder / f"{role.name}_{name}.npy").open("wb") as stream:
                write_array(stream, array)
        index_of(role).write_parquet(folder / f"{role.name}_index.parquet", compression="zstd")


def index_of(role: Role) -> pl.DataFrame:
    """Tell of every row of the arrays which image it is."""
    return role.rows.select(_INDEX)
