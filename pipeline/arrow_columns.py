"""Convert numpy arrays, lists and rows to Arrow, and binary columns to matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def to_numbers(values: NDArray[np.number]) -> pa.Array:
    """Convert a vector to a column of the same type, without nulls.

    `pa.array` imports pandas where that is installed, which takes half a second in every worker.
    """
    return pl.Series(values).to_arrow()


def from_numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Convert a column of numbers without nulls to a vector; without pandas, as `to_numbers`."""
    return np.from_dlpack(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)


def to_strings(values: Sequence[str | None]) -> pa.StringArray:
    """Convert strings to a column of the type string; without pandas, as `to_numbers`."""
    return pl.Series(values, dtype=pl.String).to_arrow().cast(pa.string())


def to_bytes(values: Sequence[bytes | None]) -> pa.BinaryArray:
    """Convert byte strings of any lengths to a column of the type binary; without pandas, as `to_numbers`."""
    return pl.Series(values, dtype=pl.Binary).to_arrow().cast(pa.binary())


def to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Convert rows to a table of the schema; without pandas, as `to_numbers`."""
    return pl.DataFrame(rows, pl.Schema(schema)).to_arrow().cast(schema)


def to_binary(rows: Bytes) -> pa.BinaryArray:
    """View the rows of a matrix as a binary column.

    Args:
        rows: (n, m) uint8, C-contiguous, at most 2 GiB.

    Returns:
        n values of m bytes each. The column shares the matrix's memory.

    Raises:
        ValueError: the matrix has more bytes than a binary column can address.
    """
    count, width = rows.shape
    limit = np.iinfo(np.int32).max
    if rows.nbytes > limit:
        raise ValueError(f"{rows.nbytes:,} bytes do not fit in one binary column, whose limit is {limit:,} bytes")
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.BinaryArray.from_buffers(pa.binary(), count, buffers)


def from_binary(column: pa.BinaryArray, width: int) -> Bytes:
    """View a binary column, whose values all have one length, as the rows of a matrix.

    Args:
        column: one contiguous chunk of binary (or large_binary) without nulls.
        width: length of every value, in bytes.

    Returns:
        (n, width) uint8, read-only. The matrix shares the column's memory.

    Raises:
        ValueError: a value is missing or has another length.
    """
    large = pa.types.is_large_binary(column.type)
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64 if large else np.int32)[column.offset :][: len(column) + 1]
    if column.null_count or (np.diff(starts) != width).any():
        raise ValueError(f"a value is null or not {width} bytes long")
    if not len(column):
        return np.empty((0, width), dtype=np.uint8)
    values = np.frombuffer(data, dtype=np.uint8)[int(starts[0]) : int(starts[-1])]
    return values.reshape(len(column), width)
