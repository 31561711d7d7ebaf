"""Read the index of a rule in blocks, and cache the blocks of small indexes for the next search."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.arrow_columns import to_binary
from pipeline.dedup.matching import Block, Ids
from pipeline.dedup.rules import IMAGE_COLUMNS, entries_of, entries_of_images, photo
from pipeline.lake.parquet_writer import Part
from pipeline.lake.reads import check_tables, check_values
from pipeline.lake.snapshot import Snapshot
from pipeline.pixels import find, gather, id_matrix, locate

# Images in a block at most, and bytes of their vectors.
_BLOCK_IMAGES, _BLOCK_BYTES = 2**18, 2**26
# Size of the cache in bytes: the keys of 8 million images, or the vectors of cosine of 1.6 million.
_KEPT_BYTES = 2**28
_SHARD = ("dataset", "split", "shard")
Positions = NDArray[np.int64]


class IndexBlock(NamedTuple):
    """Images of the index under one rule, and the files that they were read from.

    Attributes:
        block: the images.
        parts: files of the table index, or of images where the lake has no index of the rule.
        starts: (files,) int64: position in the block of the first image of each file.
    """

    block: Block
    parts: Sequence[Part]
    starts: Positions

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.block.image_ids.nbytes + sum(column.nbytes for column in self.block.entries)

    def find(self, image_ids: Ids) -> Positions:
        """Find the positions of images in the block: (n,) int64, in the order of `image_ids`, which are unique."""
        first, wanted = (
            np.ascontiguousarray(ids[:, :8]).view("<u8")[:, 0] for ids in (self.block.image_ids, image_ids)
        )
        near = np.flatnonzero(np.isin(first, wanted))
        return near[find(self.block.image_ids[near], image_ids)]

    def files_of(self, positions: Positions) -> Positions:
        """Return the position in `parts` of the file of each image: (n,) int64."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def read_pixels(self, image_ids: Ids, snapshot: Snapshot) -> NDArray[np.uint8]:
        """Read pixels of images of one shape, in the order of the ids: (n, height, width, channels) uint8."""
        files = [self.parts[number] for number in np.unique(self.files_of(self.find(image_ids))).tolist()]
        places = [f"{snapshot.place}/images/{part.path}" for part in image_files(snapshot, files)]
        pixels = gather(locate(places, pl.Series("image_id", to_binary(np.ascontiguousarray(image_ids)))))
        return pixels if pixels.ndim == 4 else pixels[..., None]  # noqa: PLR2004 - gray has no channel axis there


class KeptIndexes:
    """A cache of indexes for later searches: at most 256 MiB. The least recently used index is removed first."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[IndexBlock]] = {}

    def blocks(self, snapshot: Snapshot, rule: str, *, from_images: bool) -> Iterator[IndexBlock]:
        """Read the index of a rule, block by block; from the cache if it has the index.

        Args:
            snapshot: of the lake; always the same one.
            rule: a rule that the lake stores, or one of `IMAGE_COLUMNS`.
            from_images: read the columns of the table images instead of an index, which the lake does not have.

        Raises:
            DamagedLakeError: a file is missing or damaged.
        """
        kept = self._blocks.pop(rule, None)
        if kept is not None:
            self._blocks[rule] = kept
            yield from kept
            return
        read: list[IndexBlock] | None = []
        for block in _read_blocks(snapshot, rule, from_images=from_images):
            if read is not None:
                read.append(block)
                read = read if _size(read) <= _KEPT_BYTES else None
            yield block
        if read is not None:
            self._blocks[rule] = read
            while sum(map(_size, self._blocks.values())) > _KEPT_BYTES:
                del self._blocks[next(iter(self._blocks))]


def image_files(snapshot: Snapshot, parts: Sequence[Part]) -> list[Part]:
    """List the files of the table images that have the images of some files of the index."""
    shards = {tuple(part.partition[key] for key in _SHARD) for part in parts}
    return snapshot.files("images", lambda partition: tuple(partition[key] for key in _SHARD) in shards)


def _size(blocks: list[IndexBlock]) -> int:
    return sum(block.nbytes for block in blocks)


def _read_blocks(snapshot: Snapshot, rule: str, *, from_images: bool) -> Iterator[IndexBlock]:
    table = "images" if from_images else "index"
    parts = snapshot.files(table, lambda partition: from_images or partition["rule"] == rule)
    if not parts:
        return
    largest = _BLOCK_IMAGES
    if not from_images:
        check_tables(snapshot, "index", keep=lambda partition: partition["rule"] == rule)
        first = snapshot.scan_files(table, [parts[0].path]).select(pl.col("vector").bin.size()).head(1).collect()
        of_photo = photo.BYTES_IN_MEMORY if rule.startswith(f"{photo.FAMILY}:") else 0
        largest = min(largest, _BLOCK_BYTES // max(1, (first.item() or 0) + of_photo))
    waiting: list[Part] = []
    for part in parts:
        if waiting and sum(one.rows for one in waiting) + part.rows > largest:
            yield _read_block(snapshot, rule, waiting, from_images=from_images)
            waiting = []
        waiting.append(part)
    yield _read_block(snapshot, rule, waiting, from_images=from_images)


def _read_block(snapshot: Snapshot, rule: str, parts: Sequence[Part], *, from_images: bool) -> IndexBlock:
    paths = [part.path for part in parts]
    if from_images:
        check_values(snapshot, "images", ["image_id", *IMAGE_COLUMNS[rule]], parts)
        rows = snapshot.scan_files("images", paths).select("image_id", *IMAGE_COLUMNS[rule]).collect()
        entries = entries_of_images(rule, rows.to_arrow())
    else:
        rows = snapshot.scan_files("index", paths).select("image_id", "key", "signature", "vector").collect()
        entries = entries_of(rows.to_arrow())
    counts = np.array([part.rows for part in parts])
    return IndexBlock(Block(id_matrix(rows["image_id"]), entries), parts, np.cumsum(counts) - counts)
