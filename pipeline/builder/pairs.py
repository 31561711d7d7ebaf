"""index -> pairs: compare what is new with itself and with everything else, under every rule that compares.

The pairs table remembers the version of the index it was made from; files of the index are never changed, so the files
that came since are the new images, and those that went are the ones whose pairs go.

Blocks of the index -> pairs: which blocks are compared with which, and by whom: this process, or workers.

What is found comes out in one order, closest first: in how many blocks a lake was cut, nobody can tell from its pairs.

index -> bases: fit what rule photo compares by, once for a lake, and keep it for the images to come.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

import schemas
from pipeline.arrow_binary import from_binary, to_binary
from pipeline.builder.state import shards_state, stale, unit_digest
from pipeline.dedup.index import KEYS_VERSION, entries_of
from pipeline.dedup.joins.vectors import on_one_core
from pipeline.dedup.matching import Block, Ids, ReadPixels, match, order_pairs
from pipeline.dedup.rules import Comparison, Entries, parse_rule, photo
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.errors import LakeError
from pipeline.hashing import digest_of
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, all_files
from pipeline.pixels import gather, locate
from pipeline.progress import SILENT, Progress
from pipeline.recipe import DedupPart
from pipeline.stable_order import order_keys

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
        snapshot: of the lake.
        rule: the rule as the recipe spells it.
        comparison: the rule, ready to run.
        images: files of the images table, where candidates' pixels are.
        most: pairs that may be found.
        largest: images that a block may have.
        apart: whether only images of different splits are compared.
    """

    snapshot: Snapshot
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
        left = _read(work.snapshot, facing.left)
        right = None if facing.right is None else _read(work.snapshot, facing.right)
        return _bounded(work, _matched(work, left, right, _reader(work.images)))


def _here(work: Comparing, facings: Iterable[Facing], progress: Progress) -> Iterator[pa.Table]:
    """Compare blocks in this process, which uses every core: each that is on the left is read once."""
    read, held, block = _reader(work.images), None, None
    for facing in facings:
        if held is not facing.left or block is None:
            held, block = facing.left, _read(work.snapshot, facing.left)
        other = None if facing.right is None else _read(work.snapshot, facing.right)
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


def _read(snapshot: Snapshot, parts: Files) -> Block:
    rows = snapshot.scan_files("index", sorted(part.path for part in parts)).select(_COLUMNS).collect().to_arrow()
    ids = pa.concat_arrays([chunk.cast(pa.large_binary()) for chunk in rows["image_id"].chunks])
    return Block(from_binary(ids, 16), entries_of(rows))


def _reader(names: Sequence[str]) -> Callable[[Ids], np.ndarray]:
    def read(image_ids: Ids) -> np.ndarray:
        wanted = pl.Series("image_id", to_binary(np.ascontiguousarray(image_ids)))
        pixels = gather(locate(list(names), wanted))
        return pixels if pixels.ndim == 4 else pixels[..., None]  # noqa: PLR2004 - gray has no channel axis there

    return read


# Raise when descriptors are made otherwise from the same basis.
_VERSION = 1
# Images that a basis is fitted to, at most.
_SAMPLE = 20_000


def with_basis(snapshot: Snapshot, writer: Writer, rule: str, added: Sequence[Part]) -> tuple[Comparison, list[Commit]]:
    """Make a rule ready to compare, with the lake's basis where it needs one: that of the first build with the rule.

    Args:
        snapshot: of the lake.
        writer: writes the files.
        rule: a rule that compares.
        added: files of the index table, to fit a basis to where the lake has none.

    Returns:
        The comparison, and the commit of a basis that was fitted.
    """
    comparison = parse_rule(rule).comparison
    if comparison is None:
        raise AssertionError(f"rule {rule} compares nothing")
    if not isinstance(comparison, photo.Photo):
        return comparison, []
    held = snapshot.scan("bases").filter(family=photo.FAMILY, version=_VERSION).select("basis").collect()
    if len(held):
        return comparison.using(held.item()), []
    basis, commit = _fit(snapshot, writer, comparison, added)
    return comparison.using(basis), [commit]


def _fit(snapshot: Snapshot, writer: Writer, comparison: photo.Photo, added: Sequence[Part]) -> tuple[bytes, Commit]:
    sample = _sample(snapshot.scan_files("index", [part.path for part in added]))
    basis = comparison.fit(sample)
    row = {"family": photo.FAMILY, "version": _VERSION, "images": len(sample.key), "basis": basis}
    added_file = writer.write("bases", pa.Table.from_pylist([row], schema=schemas.TABLES["bases"].schema))
    units = {photo.FAMILY: {"fingerprint": digest_of(basis.hex())}}
    metadata = Metadata("dedup", units, {"index": snapshot.version("index")})
    return basis, Commit("bases", added_file, metadata, all_files)


def _sample(rows: pl.LazyFrame) -> Entries:
    """Draw images by their ids alone, so that their order does not matter."""
    ids = rows.select("image_id").collect().to_series().sort()
    keys = order_keys(from_binary(ids.to_arrow().cast(pa.large_binary()), 16), 0, "basis of rule photo")
    drawn = ids.gather(np.argsort(keys, kind="stable")[:_SAMPLE])
    chosen = rows.filter(pl.col("image_id").is_in(drawn.implode())).collect(engine="streaming").sort("image_id")
    return entries_of(chosen.select("key", "signature", "vector").to_arrow())


# Images held on either side while blocks are compared, and bytes of their vectors.
_BLOCK = 2**18
_BLOCK_BYTES = 2**26
# Appended files of a rule, beyond which they are written as one again.
_FILES = 64


def pair_units(snapshot: Snapshot, compared: Mapping[str, str], between: str) -> dict[str, dict[str, Any]]:
    """By rule that compares, the fingerprint of the pairs that the lake's shards give."""
    state = shards_state(snapshot)
    return {
        rule: {"spec": between, "fingerprint": unit_digest("dedup", [rule, KEYS_VERSION, between, vectors], state)}
        for rule, vectors in compared.items()
    }


def compare_images(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    compared: Mapping[str, str],
    settings: DedupPart,
    progress: Progress = SILENT,
    engine: Engine = HERE,
) -> list[Commit]:
    """Bring the pairs of every rule that compares up to date.

    Cost grows with the new images times all images, not with the square of all; of old images only those pixels are
    read that verification asks for.

    Args:
        snapshot: of the lake.
        writer: writes the files.
        compared: the rules that are wanted and compare, each with the fingerprint of the user's vectors, if any.
        settings: the recipe's `[dedup]`: what is compared with what, and how many pairs a rule may find.
        progress: where to show it.
        engine: where to run.

    Returns:
        The commits to make: bases that were fitted, then pairs; empty where nothing is out of date.

    Raises:
        LakeError: a rule finds more pairs than that; nothing was committed.
    """
    units = pair_units(snapshot, compared, settings.between)
    held = snapshot.metadata("pairs")
    todo = stale("dedup", units, held)
    if not todo:
        return []
    made: list[Part] = []
    bases: list[Commit] = []
    rewritten = {item.unit for item in todo if item.unit not in units}
    for rule in (item.unit for item in todo if item.unit in units):
        change = _change(snapshot, rule, held, settings.between)
        old = [part for part in snapshot.files("pairs") if part.partition["rule"] == rule]
        again = change.left or len(old) >= _FILES
        kept = _surviving(snapshot, rule, change) if again else iter(())
        rewritten |= {rule} if again else set()
        progress.stage(f"compare by {rule}", sum(part.rows for part in change.added))
        most = settings.max_pairs - (0 if again else sum(part.rows for part in old))
        found: Iterator[pa.Table] = iter(())
        if change.added:
            comparison, fitted = with_basis(snapshot, writer, rule, change.added)
            bases += fitted
            work = Comparing(
                snapshot,
                rule,
                comparison=comparison,
                images=snapshot.file_places("images"),
                most=most,
                largest=_rows_at_once(snapshot, change),
                apart=settings.between == "splits",
            )
            found = find_pairs(work, change, engine, progress)
        made += _write(writer, rule, chain(kept, found), most)
    metadata = Metadata("dedup", units, {"index": snapshot.version("index")})
    return [*bases, Commit("pairs", made, metadata, lambda partition: partition["rule"] in rewritten)]


def _change(snapshot: Snapshot, rule: str, held: Metadata, between: str) -> Change:
    now = [part for part in snapshot.files("index") if part.partition["rule"] == rule]
    known = set()
    again = rule in held.units and held.units[rule].get("spec") != between
    if rule in held.units and not again:
        then = snapshot.with_version("index", held.inputs["index"]).files("index")
        known = {part.path for part in then if part.partition["rule"] == rule}
    paths = {part.path for part in now}
    return Change(
        [part for part in now if part.path not in known],
        [part for part in now if part.path in known],
        again or bool(known - paths),
    )


def _rows_at_once(snapshot: Snapshot, change: Change) -> int:
    """Tell how many images a block may have: fewer where their vectors are long."""
    first = snapshot.scan_files("index", [change.added[0].path])
    width = first.select(pl.col("vector").bin.size()).head(1).collect().item() or 0
    return min(_BLOCK, _BLOCK_BYTES // max(1, width))


def _surviving(snapshot: Snapshot, rule: str, change: Change) -> Iterator[pa.Table]:
    """Read the pairs whose two images are still what they were."""
    paths = [part.path for part in change.stayed]
    if not paths:
        return
    ids = snapshot.scan_files("index", paths).select("image_id")
    pairs = snapshot.scan("pairs", lambda partition: partition["rule"] == rule).drop("rule")
    both = pairs.join(ids, left_on="left_id", right_on="image_id", how="semi").join(
        ids, left_on="right_id", right_on="image_id", how="semi"
    )
    rows = both.collect().sort("score", "left_id", "right_id", descending=[True, False, False]).to_arrow()
    yield rows.cast(schemas.TABLES["pairs"].file_schema)


def _write(writer: Writer, rule: str, tables: Iterable[pa.Table], most: int) -> list[Part]:
    with writer.open("pairs", {"rule": rule}) as file:
        count = 0
        for table in tables:
            count += len(table)
            if count > most:
                raise LakeError(too_many(rule))
            if len(table):
                file.write(table)
        part = file.close()
    return [] if part is None else [part]
