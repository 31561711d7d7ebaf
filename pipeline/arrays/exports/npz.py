"""npz: one file of arrays, which numpy.load reads."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.arrays.exports.arrays import (
    check_shapes,
    class_array,
    pixels_shape,
    write_array,
    write_header,
    write_pixels,
)
from pipeline.arrays.exports.selection import Selection, Work

# The oldest date that a zip archive knows: the same release gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def write(folder: Path, selection: Selection, work: Work) -> None:
    """Write SPLIT.npz.

    For every role `ROLE_images` (n, height, width[, 3]) uint8, `ROLE_labels` (n,) int64, `ROLE_ids` (n, 16) uint8;
    and `classes`, text: row i names label i; -1 is no label.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    check_shapes(selection.roles)
    with npz_file(folder / f"{selection.split}.npz") as archive:
        for role in selection.roles:
            with member(archive, f"{role.name}_images") as stream:
                write_header(stream, pixels_shape(role), np.uint8)
                write_pixels(stream, role, work.advance)
            for name, array in (("labels", role.labels), ("ids", role.ids)):
                with member(archive, f"{role.name}_{name}") as stream:
                    write_array(stream, array)
        with member(archive, "classes") as stream:
            write_array(stream, class_array(selection))


@contextmanager
def npz_file(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open an npz for writing.

    Members are stored as they are: deflating pixels takes some ten times as long as writing them, and as long again
    at every reading, for a third of the bytes. Who wants small files exports to parquet.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        yield archive


@contextmanager
def member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """Open an array of an npz for writing, whatever its size will be."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as stream:
        yield stream
