"""index -> pairs: candidates of one block of images against another, and the pairs that verification leaves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_binary import from_binary, to_binary
from pipeline.dedup.rules import Comparison, Entries, Verified

Ids = NDArray[np.uint8]
Places = NDArray[np.int64]

# Reads pixels of images of one shape, by id and in the order asked for: (n, height, width, channels) uint8.
ReadPixels = Callable[[Ids], NDArray[np.uint8]]

# Candidates gathered before their pixels are read, and bytes of pixels held to verify them.
_GATHERED = 2**21
_PIXEL_BYTES = 2**28
# Pairs in a table, at least, but for the last one.
_TABLE = 2**18
_SIDES = ("left_id", "right_id")

# Positions in the left and in the right block, and scores.
Scored = tuple[Places, Places, NDArray[np.float32]]


@dataclass(frozen=True)
class Block:
    """Images of the index under one rule.

    Attributes:
        image_ids: (n, 16) uint8, each once.
        entries: what the index holds of them, in the same order.
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
        right: another, of other images; None to pair the left block with itself.
        read_pixels: reads pixels of candidates; other pixels are not asked for.

    Yields:
        left_id, right_id (binary, left_id < right_id) and score (float32), each pair once; closest first in each table,
        ties by ids. Memory beside the blocks is bounded, whatever is found.
    """
    other = left if right is None else right
    for i, j, scores in _gathered(_scored(rule, left, right, read_pixels)):
        yield _table(left.image_ids[i], other.image_ids[j], scores)


def order_pairs(pairs: pa.Table) -> pa.Table:
    """Order rows of the pairs table: closest first, ties by ids."""
    # As numbers, ids are sorted in a quarter of the time that they take as bytes.
    left, right = (from_binary(_whole(pairs[side]), 16).view(">u8").astype(np.uint64) for side in _SIDES)
    columns = [-_whole(pairs["score"]).to_numpy(), left[:, 0], left[:, 1], right[:, 0], right[:, 1]]
    keys = pl.DataFrame({str(number): column for number, column in enumerate(columns)})
    return pairs.take(keys.select(pl.arg_sort_by(keys.columns)).to_series().to_arrow())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _gathered(found: Iterator[Scored]) -> Iterator[Scored]:
    """Put small finds together: joins hand out what they find as they find it."""
    waiting: list[Scored] = []
    count = 0
    for part in found:
        if len(part[0]):
            waiting.append(part)
            count += len(part[0])
        if count >= _TABLE:
            yield _together(waiting)
            waiting, count = [], 0
    if waiting:
        yield _together(waiting)


def _together(parts: list[Scored]) -> Scored:
    i, j, scores = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return i, j, scores


def _scored(rule: Comparison, left: Block, right: Block | None, read_pixels: ReadPixels) -> Iterator[Scored]:
    """Gather candidates until there are enough of them to be worth a reading of pixels."""
    other = left if right is None else right
    waiting: list[tuple[Places, Places]] = []
    for found in rule.candidates(left.entries, None if right is None else right.entries):
        if found.score is not None:
            yield found.left, found.right, found.score
            continue
        waiting.append((found.left, found.right))
        if sum(len(i) for i, _ in waiting) >= _GATHERED:
            yield from _verified(rule, left, other, waiting, read_pixels)
            waiting = []
    if waiting:
        yield from _verified(rule, left, other, waiting, read_pixels)


def _verified(
    rule: Comparison, left: Block, right: Block, found: list[tuple[Places, Places]], read_pixels: ReadPixels
) -> Iterator[Scored]:
    i, j = np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])
    # Candidates share their key, which tells the shape.
    keys = left.entries.key[i]
    for key in np.unique(left.entries.key):
        alike = np.flatnonzero(keys == key)
        if not len(alike):
            continue
        one_image = read_pixels(left.image_ids[i[alike[:1]]]).nbytes
        for a, b in _within_memory(i[alike], j[alike], max(4, _PIXEL_BYTES // max(1, one_image))):
            scores = _score(rule, (left, a), (right, b), read_pixels)
            reached = scores >= np.float32(rule.least)
            yield a[reached], b[reached], scores[reached]


def _within_memory(i: Places, j: Places, most: int) -> Iterator[tuple[Places, Places]]:
    """Cut candidates so that few images take part in each piece."""
    for rows in _pieces(i, most // 2):
        for columns in _pieces(j[rows], most // 2):
            piece = rows[columns]
            yield i[piece], j[piece]


def _pieces(images: Places, most: int) -> Iterator[Places]:
    """Cut positions into runs of at most so many different images."""
    number, count = _numbered(images)
    if count <= most:
        yield np.arange(len(images))
        return
    order = np.argsort(number, kind="stable")
    yield from np.split(order, np.searchsorted(number[order], np.arange(most, count, most)))


def _score(
    rule: Comparison, one: tuple[Block, Places], two: tuple[Block, Places], read_pixels: ReadPixels
) -> NDArray[np.float32]:
    """Score pairs of images, each given as its block and place: pixels of each are read once."""
    if not isinstance(rule, Verified):
        raise TypeError(f"{rule} gives candidates without a score and cannot verify them")
    (left, i), (right, j) = one, two
    if left is right:
        number, _ = _numbered(np.concatenate([i, j]))
        ids = left.image_ids[_different(np.concatenate([i, j]))]
        return rule.verify(read_pixels(ids), number[: len(i)], number[len(i) :])
    a, count = _numbered(i)
    b, _ = _numbered(j)
    ids = np.concatenate([left.image_ids[_different(i)], right.image_ids[_different(j)]])
    return rule.verify(read_pixels(ids), a, b + count)


def _different(images: Places) -> Places:
    """List the different places, ascending: sorting would take longer."""
    there = np.zeros(int(images.max(initial=-1)) + 1, dtype=bool)
    there[images] = True
    return np.flatnonzero(there)


def _numbered(images: Places) -> tuple[Places, int]:
    """Number images in the order of their places: the number of each, and how many different ones there are."""
    different = _different(images)
    number = np.empty(int(images.max(initial=-1)) + 1, dtype=np.int64)
    number[different] = np.arange(len(different))
    return number[images], len(different)


def _table(left: Ids, right: Ids, scores: NDArray[np.float32]) -> pa.Table:
    a, b = (np.ascontiguousarray(ids).view(">u8") for ids in (left, right))
    swapped = (a[:, 0] > b[:, 0]) | ((a[:, 0] == b[:, 0]) & (a[:, 1] > b[:, 1]))
    low, high = np.where(swapped[:, None], right, left), np.where(swapped[:, None], left, right)
    columns = [to_binary(low), to_binary(high), pa.array(scores)]
    return order_pairs(pa.Table.from_arrays(columns, schema=schemas.TABLES["pairs"].file_schema))
