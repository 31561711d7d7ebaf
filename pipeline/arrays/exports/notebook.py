"""notebook: the six arrays of the notMNIST notebooks of Udacity's course, as they are after its first assignment.

The notebooks' pickle is written array by array and block by block. Only the names of opcodes come from `pickle`;
imagelake never loads a pickle.
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
from pipeline.arrays.exports.selection import ExportContext, Role, Selection
from pipeline.pixels import normalise


def write(folder: Path, selection: Selection, context: ExportContext, *, pickle: bool = False) -> None:
    """Write notMNIST.npz: ROLE_dataset and ROLE_labels for train, valid and test, and `classes`.

    Roles that the split does not have are left out. Datasets are (n, height, width) float32, (p - 127.5) / 255; labels
    (n,) int32, -1 for an image without a label; classes text: row i names label i.

    Args:
        folder: where to write.
        selection: what to write.
        context: its `advance` takes the progress.
        pickle: also write notMNIST.pickle: the same arrays without `classes` in a dict, as the notebooks' own file.

    Raises:
        LakeError: the images of a role have several shapes.
    """
    check_shapes(selection.roles)
    with npz_file(folder / "notMNIST.npz") as archive:
        for role in selection.roles:
            with member(archive, f"{role.name}_dataset") as stream:
                write_header(stream, pixels_shape(role), np.float32)
                write_pixels(stream, role, context.advance, normalise)
            with member(archive, f"{role.name}_labels") as stream:
                write_array(stream, role.labels.astype(np.int32))
        with member(archive, "classes") as stream:
            write_array(stream, class_array(selection))
    if pickle:
        with (folder / "notMNIST.pickle").open("wb") as stream:
            write_pickle(stream, selection.roles)


def write_pickle(stream: IO[bytes], roles: Sequence[Role]) -> None:
    """Write a dict of ROLE_dataset (n, height, width[, 3]) float32 and ROLE_labels (n,) int32 in protocol 4.

    The opcodes are those of a pickled numpy array, written directly: `pickle.dump` would need the memory of an array
    twice.
    """
    stream.write(pickle.PROTO + b"\x04" + pickle.EMPTY_DICT + pickle.MARK)
    for role in roles:
        stream.write(_text(f"{role.name}_dataset"))
        shape = pixels_shape(role)
        stream.write(_array_before_bytes(shape, np.dtype("<f4")))
        write_pixels(stream, role, _count_nothing, normalise)
        stream.write(_ARRAY_AFTER_BYTES)
        stream.write(_text(f"{role.name}_labels"))
        stream.write(_array_before_bytes((len(role),), np.dtype("<i4")))
        stream.write(role.labels.astype("<i4").tobytes())
        stream.write(_ARRAY_AFTER_BYTES)
    stream.write(pickle.SETITEMS + pickle.STOP)


def _count_nothing(_: int) -> None:
    """Ignore progress: the images were counted when the npz was written."""


# End the tuple of the array's state and set it.
_ARRAY_AFTER_BYTES = pickle.TUPLE + pickle.BUILD


def _array_before_bytes(shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> bytes:
    """Call numpy's _reconstruct(ndarray, (0,), b"b") and start its state: version, shape, dtype, order, bytes."""
    empty = _global("numpy", "ndarray") + pickle.BININT1 + b"\0" + pickle.TUPLE1 + pickle.SHORT_BINBYTES + b"\1b"
    # numpy 1 and 2 both find it by this name, without a warning.
    array = _global("numpy.core.multiarray", "_reconstruct") + empty + pickle.TUPLE3 + pickle.REDUCE
    sizes = pickle.MARK + b"".join(map(_integer, shape)) + pickle.TUPLE
    kind = _global("numpy", "dtype") + _text(dtype.str) + pickle.TUPLE1 + pickle.REDUCE
    size = int(np.prod(shape)) * dtype.itemsize
    data = pickle.BINBYTES8 + struct.pack("<Q", size)
    return array + pickle.MARK + _integer(1) + sizes + kind + pickle.NEWFALSE + data


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return pickle.SHORT_BINUNICODE + bytes([len(data)]) + data


def _integer(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data
