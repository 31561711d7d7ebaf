"""parquet: plain Parquet files with the raw pixels, for Polars, DuckDB, Spark and the like."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrays.exports.selection import ROW_GROUP_BYTES, Piece, Role, Selection, Work, cuts, pieces

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


def write(folder: Path, selection: Selection, work: Work) -> None:
    """Write, for every role, ROLE-00000.parquet and so on: 512 MiB of pixels a file, 16 MiB a row group, zstd.

    `pixels` are height * width * channels bytes of uint8, row by row, channels last; `label_index` is -1 where an image
    has no label. Any shapes.
    """
    for role in selection.roles:
        ends = file_ends(role, ROW_GROUP_BYTES)
        groups = _row_groups(role, work)
        for number, end in enumerate(ends):
            with pq.ParquetWriter(
                folder / f"{role.name}-{number:05d}.parquet", _SCHEMA, compression="zstd", use_dictionary=["label"]
            ) as file:
                for stop, group in groups:
                    file.write_table(group, row_group_size=len(group))
                    if stop >= end:
                        break


def file_ends(role: Role, group_bytes: int) -> list[int]:
    """Cut a role into files of 512 MiB of pixels, between row groups of `group_bytes`: behind which image each ends."""
    edges = cuts(role.sizes, group_bytes)
    inside = np.add.reduceat(role.sizes, edges[:-1])
    return [int(edges[number]) for number in cuts(inside, FILE_BYTES)[1:]]


def _row_groups(role: Role, work: Work) -> Iterator[tuple[int, pa.Table]]:
    for piece in pieces(role, ROW_GROUP_BYTES):
        work.advance(len(piece.shapes))
        yield piece.stop, _table(role, piece)


def _table(role: Role, piece: Piece) -> pa.Table:
    rows = role.rows[piece.start : piece.stop].select(name for name in _SCHEMA.names if name != "pixels")
    columns = rows.to_arrow().cast(pa.schema([field for field in _SCHEMA if field.name != "pixels"]))
    # int32 offsets: a row group is 16 MiB, or one picture.
    offsets = pa.py_buffer(piece.edges.astype(np.int32))
    pixels = pa.BinaryArray.from_buffers(pa.binary(), len(rows), [None, offsets, pa.py_buffer(piece.pixels)])
    at = _SCHEMA.get_field_index("pixels")
    return columns.add_column(at, _SCHEMA.field(at), pixels)
