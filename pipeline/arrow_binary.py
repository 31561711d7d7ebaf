"""Between Arrow's binary columns and numpy's matrices, without a copy."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def to_binary(rows: Bytes) -> pa.BinaryArray:
    """See the rows of a matrix as a binary column; nothing is copied.

    Args:
        rows: (n, m) uint8, C-contiguous, at most 2 GiB.

    Returns:
        n values of m bytes each, sharing the matrix's memory.
    """
    count, width = rows.shape
    if rows.nbytes > np.iinfo(np.int32).max:
        raise ValueError(f"{rows.nbytes} bytes are more than a binary column holds")
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.BinaryArray.from_buffers(pa.binary(), count, buffers)


def from_binary(column: pa.BinaryArray, width: int) -> Bytes:
    """See a binary column of equally long values as the rows of a matrix; nothing is copied.

    Args:
        column: one contiguous chunk of binary (or large_binary) without nulls.
        width: length of every value.

    Returns:
        (n, width) uint8, read-only, sharing the column's memory.

    Raises:
        ValueError: a value is missing or of another length.
    """
    wide = pa.types.is_large_binary(column.type)
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64 if wide else np.int32)[column.offset :][: len(column) + 1]
    if column.null_count or (np.diff(starts) != width).any():
        raise ValueError(f"a value is null or not {width} bytes long")
    if not len(column):
        return np.empty((0, width), dtype=np.uint8)
    flat = np.frombuffer(data, dtype=np.uint8)[int(starts[0]) : int(starts[-1])]
    return flat.reshape(len(column), width)
