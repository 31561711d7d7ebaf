"""npz and npy: arrays in numpy's format, written to a stream block by block.

npz is one file of arrays for `numpy.load`; npy is plain arrays to memory-map, with an index of their rows.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import DTypeLike, NDArray

from pipeline.arrays.exports.selection import ROW_GROUP_BYTES, ExportContext, Role, Selection, read_chunks

# The earliest date of the zip format: a constant, so that the same release gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)

_INDEX = ("rank", "image_id", "label_index", "label", "path", "dataset", "split", "kept", "content_hash")


def write_npz(folder: Path, selection: Selection, context: ExportContext) -> None:
    """Write SPLIT.npz.

    For every role it has `ROLE_images` (n, height, width[, 3]) uint8, `ROLE_labels` (n,) int64 and `ROLE_ids` (n, 16)
    uint8; and `classes`, text: row i names label i. Label -1 is an image without a label.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    check_shapes(selection.roles)
    with npz_file(folder / f"{selection.split}.npz") as archive:
        for role in selection.roles:
            with member(archive, f"{role.name}_images") as stream:
                write_header(stream, pixels_shape(role), np.uint8)
                write_pixels(stream, role, context.advance)
            for name, array in (("labels", role.labels), ("ids", role.ids)):
                with member(archive, f"{role.name}_{name}") as stream:
                    write_array(stream, array)
        with member(archive, "classes") as stream:
            write_array(stream, class_array(selection))


def write_npy(folder: Path, selection: Selection, context: ExportContext) -> None:
    """Write classes.npy and, for every role, ROLE_images.npy, ROLE_labels.npy, ROLE_ids.npy and ROLE_index.parquet.

    Images are (n, height, width[, 3]) uint8, labels (n,) int64, ids (n, 16) uint8. Row i of each, and of the index, is
    the same image. Classes are text: row i names label i. Label -1 is an image without a label.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    check_shapes(selection.roles)
    with (folder / "classes.npy").open("wb") as stream:
        write_array(stream, class_array(selection))
    for role in selection.roles:
        # Written, not mapped: on a full disk a write raises an error, but a mapped page kills the process.
        with (folder / f"{role.name}_images.npy").open("wb") as stream:
            write_header(stream, pixels_shape(role), np.uint8)
            write_pixels(stream, role, context.advance)
        for name, array in (("labels", role.labels), ("ids", role.ids)):
            with (folder / f"{role.name}_{name}.npy").open("wb") as stream:
                write_array(stream, array)
        index_of(role).write_parquet(folder / f"{role.name}_index.parquet", compression="zstd")


def index_of(role: Role) -> pl.DataFrame:
    """List which image each row of the arrays is."""
    return role.rows.select(_INDEX)


@contextmanager
def npz_file(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open an npz for writing.

    Members are not compressed: compressing pixels takes about ten times as long as writing them, reading is slower by
    as much, and it saves a third of the bytes. The Parquet export is compressed.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        yield archive


@contextmanager
def member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """Open an array of an npz for writing, of any size."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as stream:
        yield stream


def write_array(stream: IO[bytes], array: NDArray[Any]) -> None:
    """Write an array that is in memory, as numpy.save does."""
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def write_header(stream: IO[bytes], shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Write the header that precedes the bytes of an array in C order."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


def write_pixels(
    stream: IO[bytes],
    role: Role,
    advance: Callable[[int], None],
    convert: Callable[[NDArray[np.uint8]], NDArray[Any]] = np.asarray,
) -> None:
    """Write the pixels of a role, one image after the other, without a header.

    Args:
        stream: where to write.
        role: its images have one shape.
        advance: takes the number of images written since its last call.
        convert: turns uint8 values into the values to write.
    """
    for chunk in read_chunks(role, ROW_GROUP_BYTES):
        stream.write(np.ascontiguousarray(convert(chunk.images.values)).view(np.uint8).data)
        advance(len(chunk))


def class_array(selection: Selection) -> NDArray[np.str_]:
    """Make the array of class names: (c,) text; row i names label i."""
    return np.array(selection.classes, dtype=np.str_)


def pixels_shape(role: Role) -> tuple[int, ...]:
    """Return the shape of the array of all pixels: (n, height, width) or (n, height, width, 3).

    Raises:
        LakeError: the images have several shapes.
    """
    return (len(role), *role.one_shape)


def check_shapes(roles: Iterable[Role]) -> None:
    """Check that each role has one shape, before anything is written.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    for role in roles:
        pixels_shape(role)
