"""Pictures of 28x28 as a Parquet file: the output of `yardstick.py` and `pillow_pool.py`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

SIDE = 28
# Hashed before the pixels, as in the lake: height, width, channels.
_SHAPE = np.array([SIDE, SIDE, 1], "<u4").view(np.uint8)
_SCHEMA = pa.schema(
    [("path", pa.string()), ("label", pa.string()), ("pixels", pa.binary(SIDE * SIDE)), ("content_hash", pa.binary(16))]
)


class Made(NamedTuple):
    """Number of pictures that were written, and the skipped files."""

    images: int
    rejects: list[str]


def blank(count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Allocate pictures: rows to hash, (n, 796), and the pictures inside them, (n, 28, 28)."""
    rows = np.empty((count, len(_SHAPE) + SIDE * SIDE), np.uint8)
    rows[:, : len(_SHAPE)] = _SHAPE
    return rows, rows[:, len(_SHAPE) :].reshape(-1, SIDE, SIDE)


def write_pictures(file: Path, paths: Sequence[str], rows: NDArray[np.uint8], hashes: Sequence[bytes]) -> None:
    """Write one file of zstd Parquet, a row group; rows as `blank` made them, more than paths if some were skipped."""
    count = len(paths)
    pixels = pa.py_buffer(np.ascontiguousarray(rows[:count, len(_SHAPE) :]))
    columns = [
        pa.array(paths, pa.string()),
        pa.array([path.split("/")[-2] for path in paths], pa.string()),
        pa.FixedSizeBinaryArray.from_buffers(_SCHEMA.field("pixels").type, count, [None, pixels]),
        pa.array(hashes, pa.binary(16)),
    ]
    pq.write_table(
        pa.table(columns, schema=_SCHEMA),
        file,
        compression="zstd",
        compression_level=1,
        use_dictionary=["label"],
        write_statistics=False,
    )


def together(made: Iterable[Made]) -> Made:
    """Add up the results of the parts of the work."""
    parts = list(made)
    return Made(sum(part.images for part in parts), sorted(path for part in parts for path in part.rejects))
