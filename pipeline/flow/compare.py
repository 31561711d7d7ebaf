"""Blocks of the index -> pairs: which blocks are compared with which, and by whom: this process, or workers.

What is found comes out in one order, closest first: in how many blocks a lake was cut, nobody can tell from its pairs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.arrays.gather import gather
from pipeline.arrays.locate import locate
from pipeline.dedup.index import entries_of
from pipeline.dedup.joins.stripes import on_one_core
from pipeline.dedup.matching import Block, Ids, ReadPixels, match, order_pairs
from pipeline.dedup.rules import Comparison
from pipeline.engines import Engine
from pipeline.errors import LakeError
from pipeline.lake.parts import Part
from pipeline.lake.reading import scan_files
from pipeline.progress import Progress
from pipeline.rows import from_binary, to_binary

_COLUMNS = ["image_id", "key", "signature", "vector"]
# Pairs in a row group.
_GROUP = 2**18
# Pairs of blocks for every worker: enough that none is idle for long, and few, as each reads its two blocks.
_EACH = 2

# Files of the index table that are read together.
Files = Sequence[Part]


class Change(NamedTuple):
    """What happened to the index of a rule since its pairs were found: files of the index table.

    Attributes:
        added: not compared yet.
        stayed: compared with one another.
        left: whether any other is gone.
    """

    added: Files
    stayed: Files
    left: bool


class Comparing(NamedTuple):
    """What is the same for all blocks of a rule.

    Attributes:
        root: the lake's folder.
        rule: the rule as the recipe spells it.
        comparison: the rule, ready to run.
        images: files of the images table, where candidates' pixels are.
        most: pairs that may be found.
        largest: images that a block may have.
        apart: whether only images of different splits are compared.
    """

    root: str
    rule: str
    comparison: Comparison
    images: Sequence[str]
    most: int
    largest: int
    apart: bool


class Facing(NamedTuple):
    """Two blocks to compare.

    Attributes:
        left: a block.
        right: another; None to compare the left one with itself.
        done: images that are compared with all others once this is done.
    """

    left: Files
    right: Files | None
    done: int


def find_pairs(work: Comparing, change: Change, engine: Engine, progress: Progress) -> Iterator[pa.Table]:
    """Compare new images with one another and with the old ones.

    Args:
        work: what is the same for all blocks.
        change: what is new, and what is old.
        engine: where to run.
        progress: where to show it.

    Yields:
        Rows of the pairs table, closest first over all tables.

    Raises:
        LakeError: there are more pairs than `most`.
    """
    added, stayed, rows = change.added, change.stayed, work.largest
    if engine.pieces > 1:
        rows = min(rows, _rows_a_block(added, stayed, engine.pieces * _EACH))
    facings = list(_facings(_pairings(added, stayed, rows, apart=work.apart), progress))
    if engine.pieces == 1 or len(facings) == 1:
        found = _here(work, facings, progress)
    else:
        found = _by_workers(work, facings, engine, progress)
    table = _bounded(work, found)
    yield from (table.slice(start, _GROUP) for start in range(0, len(table), _GROUP))


def compare_blocks(work: Comparing, facing: Facing) -> pa.Table:
    """Compare two blocks on one core; runs in a worker.

    Returns:
        Rows of the pairs table, closest first.

    Raises:
        LakeError: there are more pairs than `most`.
    """
    with on_one_core():
        left = _read(work.root, facing.left)
        right = None if facing.right is None else _read(work.root, facing.right)
        return _bounded(work, _matched(work, left, right, _reader(work.images)))


def _here(work: Comparing, facings: Iterable[Facing], progress: Progress) -> Iterator[pa.Table]:
    """Compare blocks in this process, which uses every core: each that is on the left is read once."""
    read, held, block = _reader(work.images), None, None
    for facing in facings:
        if held is not facing.left or block is None:
            held, block = facing.left, _read(work.root, facing.left)
        other = None if facing.right is None else _read(work.root, facing.right)
        yield from _matched(work, block, other, read)
        progress.advance(facing.done)


def _by_workers(work: Comparing, facings: Sequence[Facing], engine: Engine, progress: Progress) -> Iterator[pa.Table]:
    with closing(engine.map(partial(compare_blocks, work), facings)) as results:
        for facing, table in zip(facings, results, strict=True):
            yield table
            progress.advance(facing.done)


def _matched(work: Comparing, one: Block, other: Block | None, read: ReadPixels) -> Iterator[pa.Table]:
    """Match two blocks, the smaller one on the left."""
    if other is not None and len(other) < len(one):
        one, other = other, one
    return match(work.comparison, one, other, read)


def _bounded(work: Comparing, tables: Iterable[pa.Table]) -> pa.Table:
    """Put tables together, in order: each is ordered already."""
    found: list[pa.Table] = []
    count = 0
    for table in tables:
        count += len(table)
        if count > work.most:
            raise LakeError(too_many(work.rule))
        found += [table] if len(table) else []
    if len(found) <= 1:
        return found[0] if found else pa.table({})
    return order_pairs(pa.concat_tables(found))


def too_many(rule: str) -> str:
    """Say that a rule finds more pairs than it may."""
    return (
        f"rule '{rule}' finds more pairs than dedup.max_pairs allows: it is too loose for these images, or one picture "
        "is there very often (rule exact tells). Make the rule stricter, or raise dedup.max_pairs in the recipe."
    )


def _rows_a_block(added: Files, stayed: Files, wanted: int) -> int:
    """Tell how large blocks may be, so that there are as many pairs of them as wanted; a file is never cut."""
    new, old = (sum(part.rows for part in parts) for parts in (added, stayed))
    rows = new
    for blocks in range(1, len(added) + 1):
        rows = -(-new // blocks)
        if blocks * (blocks + 1) // 2 + blocks * -(-old // rows) >= wanted:
            break
    return rows


def _pairings(added: Files, stayed: Files, rows: int, *, apart: bool) -> Iterator[tuple[Files, list[Files]]]:
    """Pair every block of new images with itself, with the new ones behind it, and with the old ones.

    Yields:
        A block, and the blocks to compare it with; itself stands first among them, unless only images of different
        splits are compared.
    """
    new, old = (_blocks(parts, rows, apart=apart) for parts in (added, stayed))
    for number, block in enumerate(new):
        others = chain(new[number:], old)
        yield block, [other for other in others if not apart or _split_of(other) != _split_of(block)]


def _facings(pairings: Iterable[tuple[Files, list[Files]]], progress: Progress) -> Iterator[Facing]:
    for block, others in pairings:
        rows = sum(part.rows for part in block)
        for left in range(len(others) - 1, -1, -1):
            other = others[-1 - left]
            yield Facing(block, None if other is block else other, 0 if left else rows)
        if not others:
            progress.advance(rows)


def _blocks(parts: Files, rows: int, *, apart: bool) -> list[list[Part]]:
    """Put files together until a block is full, or, where splits are kept apart, until the split ends."""
    blocks: list[list[Part]] = []
    held = 0
    for part in parts:
        other = apart and blocks and _split_of(blocks[-1]) != _split_of([part])
        if not blocks or held + part.rows > rows or other:
            blocks.append([])
            held = 0
        blocks[-1].append(part)
        held += part.rows
    return blocks


def _split_of(block: Files) -> tuple[str, str]:
    return block[0].partition["dataset"], block[0].partition["split"]


def _read(root: str, parts: Files) -> Block:
    rows = scan_files(root, "index", sorted(part.path for part in parts)).select(_COLUMNS).collect().to_arrow()
    ids = pa.concat_arrays([chunk.cast(pa.large_binary()) for chunk in rows["image_id"].chunks])
    return Block(from_binary(ids, 16), entries_of(rows))


def _reader(names: Sequence[str]) -> Callable[[Ids], np.ndarray]:
    def read(image_ids: Ids) -> np.ndarray:
        wanted = pl.Series("image_id", to_binary(np.ascontiguousarray(image_ids)))
        pixels = gather(locate(list(names), wanted))
        return pixels if pixels.ndim == 4 else pixels[..., None]  # noqa: PLR2004 - gray has no channel axis there

    return read
