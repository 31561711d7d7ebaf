"""Write arrays in numpy's format to any stream, block by block."""

from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.arrays.exports.pieces import ROW_GROUP_BYTES, pieces
from pipeline.arrays.exports.selection import Role, Selection


def write_array(stream: IO[bytes], array: NDArray[Any]) -> None:
    """Write an array that is in memory, as numpy.save does."""
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def write_header(stream: IO[bytes], shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Write what stands in front of an array's bytes in C order."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


def write_pixels(
    stream: IO[bytes],
    role: Role,
    advance: Callable[[int], None],
    convert: Callable[[NDArray[np.uint8]], NDArray[Any]] = np.asarray,
) -> None:
    """Write the pixels of a role, one after the other, without a header.

    Args:
        stream: where to.
        role: whose; of one shape.
        advance: told how many images were written.
        convert: makes of uint8 values what is written.
    """
    for piece in pieces(role, ROW_GROUP_BYTES):
        stream.write(np.ascontiguousarray(convert(piece.pixels)).view(np.uint8).data)
        advance(len(piece.shapes))


def class_array(selection: Selection) -> NDArray[np.str_]:
    """Make the array of class names: (c,) text; row i names label i."""
    return np.array(selection.classes, dtype=np.str_)


def pixels_shape(role: Role) -> tuple[int, ...]:
    """Shape of the array of all pixels: (n, height, width) or (n, height, width, 3).

    Raises:
        LakeError: the images have several shapes.
    """
    return (len(role), *role.one_shape)


def check_shapes(roles: Iterable[Role]) -> None:
    """Refuse roles of several shapes before anything is written.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    for role in roles:
        pixels_shape(role)
