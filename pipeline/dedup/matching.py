"""Find the pairs between two blocks of images: collect candidates, verify them by their pixels, order the result."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_columns import from_binary, from_numbers, to_binary, to_numbers
from pipeline.dedup.joins.streaming import combine_small
from pipeline.dedup.rules import Comparison, Entries, Verified

Ids = NDArray[np.uint8]
Positions = NDArray[np.int64]

# Reads the pixels of images of one shape, by id and in the order of the ids: (n, height, width, channels) uint8.
ReadPixels = Callable[[Ids], NDArray[np.uint8]]

# Positions in the left and in the right block, and scores.
ScoredPairs = tuple[Positions, Positions, NDArray[np.float32]]

# Number of candidates collected before their pixels are read, and bytes of pixels held to verify them.
_CANDIDATES = 2**21
_PIXEL_BYTES = 2**28
# Minimum number of pairs in a table, except the last one.
_TABLE_PAIRS = 2**18
_ID_COLUMNS = ("left_id", "right_id")


@dataclass(frozen=True)
class Block:
    """Images of the index under one rule.

    Attributes:
        image_ids: (n, 16) uint8, each once.
        entries: index entries of the images, in the same order.
    """

    image_ids: Ids
    entries: Entries

    def __len__(self) -> int:
        return len(self.image_ids)


def match(rule: Comparison, left: Block, right: Block | None, read_pixels: ReadPixels) -> Iterator[pa.Table]:
    """Find all pairs between two blocks, or inside one.

    Args:
        rule: the rule.
        left: a block of images.
        right: a block of other images; None to pair the left block with itself.
        read_pixels: reads the pixels of candidates; it is called for candidates only.

    Yields:
        left_id, right_id (binary, left_id < right_id) and score (float32), each pair once. Each table is ordered by
        score, highest first, then by ids. Besides the blocks, memory is bounded for any number of pairs.
    """
    other = left if right is None else right
    for i, j, scores in scored_pairs(rule, left, right, read_pixels):
        yield _pairs_table(left.image_ids[i], other.image_ids[j], scores)


def scored_pairs(rule: Comparison, left: Block, right: Block | None, read_pixels: ReadPixels) -> Iterator[ScoredPairs]:
    """Find all pairs between two blocks, or inside one, by their positions.

    Args:
        rule: as in `match`.
        left: as in `match`.
        right: as in `match`.
        read_pixels: as in `match`.

    Yields:
        Positions in the left and in the right block (int64), and scores (float32): each pair once, in any order, some
        hundred thousand pairs at a time.
    """
    return combine_small(_found_pairs(rule, left, right, read_pixels), _TABLE_PAIRS)


def _order_pairs(pairs: pa.Table) -> pa.Table:
    """Order rows of the pairs table by score, highest first, then by ids."""
    # Ids are sorted as numbers, in a quarter of the time that they take as bytes.
    left, right = (from_binary(_one_chunk(pairs[name]), 16).view(">u8").astype(np.uint64) for name in _ID_COLUMNS)
    columns = [-from_numbers(pairs["score"]), left[:, 0], left[:, 1], right[:, 0], right[:, 1]]
    keys = pl.DataFrame({str(number): column for number, column in enumerate(columns)})
    return pairs.take(keys.select(pl.arg_sort_by(keys.columns)).to_series().to_arrow())


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _found_pairs(rule: Comparison, left: Block, right: Block | None, read_pixels: ReadPixels) -> Iterator[ScoredPairs]:
    """Score candidates. Those that need pixels are collected until there are enough to read pixels for."""
    other = left if right is None else right
    waiting: list[tuple[Positions, Positions]] = []
    for candidates in rule.candidates(left.entries, None if right is None else right.entries):
        if candidates.score is not None:
            yield candidates.left, candidates.right, candidates.score
            continue
        waiting.append((candidates.left, candidates.right))
        if sum(len(i) for i, _ in waiting) >= _CANDIDATES:
            yield from _verify(rule, left, other, waiting, read_pixels)
            waiting = []
    if waiting:
        yield from _verify(rule, left, other, waiting, read_pixels)


def _verify(
    rule: Comparison, left: Block, right: Block, candidates: list[tuple[Positions, Positions]], read_pixels: ReadPixels
) -> Iterator[ScoredPairs]:
    """Score candidates by their pixels and keep those that reach the rule's threshold."""
    if not isinstance(rule, Verified):
        raise TypeError(f"{rule} gives candidates without a score and cannot verify them")
    i, j = np.concatenate([a for a, _ in candidates]), np.concatenate([b for _, b in candidates])
    # The images of a candidate have equal keys, and images with equal keys have equal shapes.
    keys = left.entries.key[i]
    for key in np.unique(left.entries.key):
        same_key = np.flatnonzero(keys == key)
        if not len(same_key):
            continue
        image_bytes = read_pixels(left.image_ids[i[same_key[:1]]]).nbytes
        for a, b in _within_memory(i[same_key], j[same_key], max(4, _PIXEL_BYTES // max(1, image_bytes))):
            scores = _score(rule, (left, a), (right, b), read_pixels)
            reached = scores >= np.float32(rule.least)
            yield a[reached], b[reached], scores[reached]


def _within_memory(i: Positions, j: Positions, max_images: int) -> Iterator[tuple[Positions, Positions]]:
    """Cut candidates into parts that refer to few different images each."""
    for rows in _parts(i, max_images // 2):
        for columns in _parts(j[rows], max_images // 2):
            part = rows[columns]
            yield i[part], j[part]


def _parts(images: Positions, max_images: int) -> Iterator[Positions]:
    """Cut the indices of `images` into parts with at most so many different images each."""
    number, count = _renumber(images)
    if count <= max_images:
        yield np.arange(len(images))
        return
    order = np.argsort(number, kind="stable")
    yield from np.split(order, np.searchsorted(number[order], np.arange(max_images, count, max_images)))


def _score(
    rule: Verified, one: tuple[Block, Positions], two: tuple[Block, Positions], read_pixels: ReadPixels
) -> NDArray[np.float32]:
    """Score pairs of images, each given by block and position; the pixels of each image are read once."""
    (left, i), (right, j) = one, two
    if left is right:
        both = np.concatenate([i, j])
        number, _ = _renumber(both)
        ids = left.image_ids[_distinct(both)]
        return rule.verify(read_pixels(ids), number[: len(i)], number[len(i) :])
    a, count = _renumber(i)
    b, _ = _renumber(j)
    ids = np.concatenate([left.image_ids[_distinct(i)], right.image_ids[_distinct(j)]])
    return rule.verify(read_pixels(ids), a, b + count)


def _distinct(images: Positions) -> Positions:
    """List the distinct positions, ascending, faster than by sorting."""
    present = np.zeros(int(images.max(initial=-1)) + 1, dtype=bool)
    present[images] = True
    return np.flatnonzero(present)


def _renumber(images: Positions) -> tuple[Positions, int]:
    """Number the distinct images from 0 by position: the number of each row, and the count of distinct images."""
    distinct = _distinct(images)
    number = np.empty(int(images.max(initial=-1)) + 1, dtype=np.int64)
    number[distinct] = np.arange(len(distinct))
    return number[images], len(distinct)


def _pairs_table(left: Ids, right: Ids, scores: NDArray[np.float32]) -> pa.Table:
    """Write pairs as rows of the pairs table, the smaller id first."""
    a, b = (np.ascontiguousarray(ids).view(">u8") for ids in (left, right))
    swapped = (a[:, 0] > b[:, 0]) | ((a[:, 0] == b[:, 0]) & (a[:, 1] > b[:, 1]))
    low, high = np.where(swapped[:, None], right, left), np.where(swapped[:, None], left, right)
    columns = [to_binary(low), to_binary(high), to_numbers(scores)]
    return _order_pairs(pa.Table.from_arrays(columns, schema=schemas.TABLES["pairs"].file_schema))
