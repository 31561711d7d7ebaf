"""notebook: the six arrays of the notMNIST notebooks of Udacity's course, as they are after its first assignment.

Write the notebooks' pickle, array by array and block by block; of `pickle` only the names of opcodes are used.

Nothing here, nor elsewhere in imagelake, reads a pickle.
"""

import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.arrays.exports.numpy_files import (
    check_shapes,
    class_array,
    member,
    npz_file,
    pixels_shape,
    write_array,
    write_header,
    write_pixels,
)
from pipeline.arrays.exports.selection import Role, Selection, Work
from pipeline.pixels import normalise


def write_pickle(stream: IO[bytes], roles: Sequence[Role]) -> None:
    """Write a dict of ROLE_dataset (n, height, width[, 3]) float32 and ROLE_labels (n,) int32 in protocol 4.

    The opcodes are those that numpy's own arrays pickle to, written by hand: `pickle.dump` would hold an array twice.
    """
    stream.write(pickle.PROTO + b"\x04" + pickle.EMPTY_DICT + pickle.MARK)
    for role in roles:
        stream.write(_text(f"{role.name}_dataset"))
        shape = pixels_shape(role)
        stream.write(_array_before_bytes(shape, np.dtype("<f4")))
        write_pixels(stream, role, _nobody, normalise)
        stream.write(_ARRAY_AFTER_BYTES)
        stream.write(_text(f"{role.name}_labels"))
        stream.write(_array_before_bytes((len(role),), np.dtype("<i4")))
        stream.write(role.labels.astype("<i4").tobytes())
        stream.write(_ARRAY_AFTER_BYTES)
    stream.write(pickle.SETITEMS + pickle.STOP)


# The state's tuple is closed and given to the array.
_ARRAY_AFTER_BYTES = pickle.TUPLE + pickle.BUILD


def _array_before_bytes(shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> bytes:
    """Call numpy's _reconstruct(ndarray, (0,), b"b") and begin its state: version, shape, dtype, order, bytes."""
    empty = _global("numpy", "ndarray") + pickle.BININT1 + b"\0" + pickle.TUPLE1 + pickle.SHORT_BINBYTES + b"\1b"
    # By this name it is found by numpy 1 and 2 alike, and without a warning.
    made = _global("numpy.core.multiarray", "_reconstruct") + empty + pickle.TUPLE3 + pickle.REDUCE
    sizes = pickle.MARK + b"".join(map(_integer, shape)) + pickle.TUPLE
    kind = _global("numpy", "dtype") + _text(dtype.str) + pickle.TUPLE1 + pickle.REDUCE
    size = int(np.prod(shape)) * dtype.itemsize
    data = pickle.BINBYTES8 + struct.pack("<Q", size)
    return made + pickle.MARK + _integer(1) + sizes + kind + pickle.NEWFALSE + data


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return pickle.SHORT_BINUNICODE + bytes([len(data)]) + data


def _integer(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data


def _nobody(_: int) -> None:
    """Progress was counted when the same pixels were written before."""


def write(folder: Path, selection: Selection, work: Work, *, pickle: bool = False) -> None:
    """Write notMNIST.npz: ROLE_dataset and ROLE_labels for train, valid and test, and `classes`.

    Roles that the split lacks are left out. Datasets are (n, height, width) float32, (p - 127.5) / 255; labels (n,)
    int32, -1 for none; classes text: row i names label i.

    Args:
        folder: where to.
        selection: what.
        work: told of progress.
        pickle: write notMNIST.pickle too: the same arrays without `classes` in a dict, as the notebooks' own file.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    check_shapes(selection.roles)
    with npz_file(folder / "notMNIST.npz") as archive:
        for role in selection.roles:
            with member(archive, f"{role.name}_dataset") as stream:
                write_header(stream, pixels_shape(role), np.float32)
                write_pixels(stream, role, work.advance, normalise)
            with member(archive, f"{role.name}_labels") as stream:
                write_array(stream, role.labels.astype(np.int32))
        with member(archive, "classes") as stream:
            write_array(stream, class_array(selection))
    if pickle:
        with (folder / "notMNIST.pickle").open("wb") as stream:
            write_pickle(stream, selection.roles)
