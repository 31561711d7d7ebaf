"""parquet: plain Parquet files with raw pixels, for Polars, DuckDB, Spark and similar tools."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.arrays.exports.selection import (
    ROW_GROUP_BYTES,
    Chunk,
    ExportContext,
    Role,
    Selection,
    read_chunks,
    run_edges,
)

FILE_BYTES = 2**29

_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.binary(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("label_index", pa.int64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("channels", pa.int16(), nullable=False),
        pa.field("pixels", pa.binary(), nullable=False),
        pa.field("content_hash", pa.binary(), nullable=False),
    ]
)


def write(folder: Path, selection: Selection, context: ExportContext) -> None:
    """Write ROLE-00000.parquet and so on for every role: 512 MiB of pixels per file, 16 MiB per row group, zstd.

    `pixels` are height * width * channels bytes of uint8, row by row, channels last. `label_index` is -1 for an image
    without a label. Images may have any shapes.
    """
    for role in selection.roles:
        ends = file_ends(role.sizes, ROW_GROUP_BYTES)
        groups = _row_groups(role, context)
        for number, end in enumerate(ends):
            with pq.ParquetWriter(
                folder / f"{role.name}-{number:05d}.parquet", _SCHEMA, compression="zstd", use_dictionary=["label"]
            ) as file:
                for stop, group in groups:
                    file.write_table(group, row_group_size=len(group))
                    if stop >= end:
                        break


def file_ends(sizes: NDArray[np.int64], group_bytes: int) -> list[int]:
    """Cut a role into files of 512 MiB, between row groups of `group_bytes`.

    Args:
        sizes: (n,) int64: bytes of each image.
        group_bytes: bytes of a row group.

    Returns:
        For each file, the position in the role after its last image.
    """
    edges = run_edges(sizes, group_bytes)
    group_sizes = np.add.reduceat(sizes, edges[:-1])
    return [int(edges[number]) for number in run_edges(group_sizes, FILE_BYTES)[1:]]


def _row_groups(role: Role, context: ExportContext) -> Iterator[tuple[int, pa.Table]]:
    for chunk in read_chunks(role, ROW_GROUP_BYTES):
        context.advance(len(chunk))
        yield chunk.stop, _table(role, chunk)


def _table(role: Role, chunk: Chunk) -> pa.Table:
    rows = role.rows[chunk.start : chunk.stop].select(name for name in _SCHEMA.names if name != "pixels")
    columns = rows.to_arrow().cast(pa.schema([field for field in _SCHEMA if field.name != "pixels"]))
    # int32 offsets are enough: a row group has 16 MiB, or one picture.
    offsets = pa.py_buffer(chunk.images.edges.astype(np.int32))
    pixels = pa.BinaryArray.from_buffers(pa.binary(), len(rows), [None, offsets, pa.py_buffer(chunk.images.values)])
    at = _SCHEMA.get_field_index("pixels")
    return columns.add_column(at, _SCHEMA.field(at), pixels)
