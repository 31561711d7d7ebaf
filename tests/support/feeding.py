"""Images for tests of feeds: Parquet files with row groups of any size, and selections of their images."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.arrays.epoch import Batch, Plan
from pipeline.arrays.feed import Feed, Images
from pipeline.pixels import locate

SHAPE = (4, 3, 1)
BYTES = 12


class Pictures(NamedTuple):
    """Images on disk: files of the images table, and their content.

    Attributes:
        files: Parquet files.
        image_ids: (n, 16) uint8.
        pixels: (n, 4, 3) uint8, all different.
    """

    files: list[str]
    image_ids: NDArray[np.uint8]
    pixels: NDArray[np.uint8]


def write_pictures(folder: Path, groups: Sequence[Sequence[int]]) -> Pictures:
    """Write one file for each sequence. Each of its numbers is the size of a row group."""
    count = sum(map(sum, groups))
    ids = np.frombuffer(b"".join(hashlib.md5(bytes([n % 256, n // 256])).digest() for n in range(count)), np.uint8)  # noqa: S324 - ids, no secrets
    ids = ids.reshape(count, 16)
    pixels = np.ascontiguousarray(ids[:, :BYTES]).reshape(count, *SHAPE[:2])
    at = 0
    files = []
    for n, sizes in enumerate(groups):
        files.append(str(folder / f"{n}.parquet"))
        with pq.ParquetWriter(files[-1], _table(ids[:0], pixels[:0]).schema) as writer:
            for size in sizes:
                writer.write_table(_table(ids[at : at + size], pixels[at : at + size]))
                at += size
    return Pictures(files, ids, pixels)


def images_of(pictures: Pictures, chosen: NDArray[np.int64]) -> Images:
    """Make a role of the chosen pictures, in the given order. The label of a picture is its number."""
    ids = pictures.image_ids[chosen]
    about: dict[str, str | int | bool] = {"release": 1, "split": "main", "role": "train", "sanitized": True}
    where = locate(pictures.files, pl.Series(map(bytes, ids), dtype=pl.Binary))
    return Images(about, ids, chosen.astype(np.int64), where)


def feed_of(images: Images, batch_size: int = 8, seed: int = 0, buffer_bytes: int = 2**20, **plan: int) -> Feed:
    """Make a feed. By default the images fit into its buffer."""
    return Feed(images, Plan(batch_size, seed, buffer_bytes, **plan))  # type: ignore[arg-type] # drop_last is a bool


def shown(batches: Iterable[Batch], pictures: Pictures) -> list[int]:
    """List the numbers of the pictures in batches. Checks that each label belongs to its pixels."""
    listed: list[int] = []
    for pixels, labels in batches:
        np.testing.assert_array_equal(pixels, pictures.pixels[labels])
        assert pixels.dtype == np.uint8
        assert labels.dtype == np.int64
        listed += labels.tolist()
    return listed


def once(listed: Iterable[int]) -> bool:
    """Return whether no number is listed twice."""
    return max(Counter(listed).values(), default=1) == 1


def _table(ids: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> pa.Table:
    fixed = {
        name: pa.array([side] * len(ids), pa.int32()) for name, side in zip(("height", "width"), SHAPE, strict=False)
    }
    return pa.table(
        {
            "image_id": pa.array(map(bytes, ids), pa.binary()),
            "pixels": pa.array([picture.tobytes() for picture in pixels], pa.binary()),
            "channels": pa.array([1] * len(ids), pa.int16()),
            **fixed,
        }
    )
