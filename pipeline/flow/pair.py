"""index -> pairs: compare what is new with itself and with everything else, under every rule that compares.

The pairs table remembers the version of the index it was made from; files of the index are never changed, so the files
that came since are the new images, and those that went are the ones whose pairs go.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

import schemas
from pipeline.arrays.gather import gather
from pipeline.arrays.locate import locate
from pipeline.dedup.index import KEYS_VERSION, entries_of
from pipeline.dedup.matching import Block, Ids, match
from pipeline.dedup.rules import Comparison
from pipeline.errors import LakeError
from pipeline.flow.basis import bound_rule
from pipeline.flow.state import shards_digest, stale, unit_digest
from pipeline.lake.commits import Meta, commit, files, read_meta, versions
from pipeline.lake.parts import Part, open_part
from pipeline.lake.reading import file_names, scan_table
from pipeline.progress import SILENT, Progress
from pipeline.recipe import DedupPart
from pipeline.rows import from_binary, to_binary

# Images held on either side while blocks are compared, and bytes of their vectors.
_BLOCK = 2**18
_BLOCK_BYTES = 2**26
# Appended files of a rule, beyond which they are written as one again.
_FILES = 64
_COLUMNS = ["image_id", "key", "signature", "vector"]


class Change(NamedTuple):
    """What happened to the index of a rule since its pairs were found: files of the index table.

    Attributes:
        added: not compared yet.
        stayed: compared with one another.
        left: whether any other is gone.
    """

    added: Sequence[Part]
    stayed: Sequence[Part]
    left: bool


def pair_units(root: str, compared: Mapping[str, str], between: str) -> dict[str, dict[str, Any]]:
    """By rule that compares, the fingerprint of the pairs that the lake's shards give."""
    state = shards_digest(scan_table(root, "shards", None).collect())
    return {
        rule: {"spec": between, "fingerprint": unit_digest("dedup", [rule, KEYS_VERSION, between, vectors], state)}
        for rule, vectors in compared.items()
    }


def run_pairs(root: str, compared: Mapping[str, str], settings: DedupPart, progress: Progress = SILENT) -> bool:
    """Bring the pairs of every rule that compares up to date, in one commit.

    Cost grows with the new images times all images, not with the square of all; of old images only those pixels are
    read that verification asks for.

    Args:
        root: the lake's folder.
        compared: the rules that are wanted and compare, each with the fingerprint of the user's vectors, if any.
        settings: the recipe's `[dedup]`: what is compared with what, and how many pairs a rule may find.
        progress: where to show it.

    Returns:
        Whether anything was committed.

    Raises:
        LakeError: a rule finds more pairs than that; nothing was committed.
    """
    units = pair_units(root, compared, settings.between)
    held = read_meta(root, "pairs")
    todo = stale("dedup", units, held)
    if not todo:
        return False
    made: list[Part] = []
    rewritten = {item.unit for item in todo if item.unit not in units}
    for rule in (item.unit for item in todo if item.unit in units):
        change = _change(root, rule, held, settings.between)
        old = [part for part in files(root, "pairs") if part.partition["rule"] == rule]
        again = change.left or len(old) >= _FILES
        kept = _surviving(root, rule, change) if again else iter(())
        rewritten |= {rule} if again else set()
        progress.stage(f"compare by {rule}", sum(part.rows for part in change.added))
        found: Iterator[pa.Table] = iter(())
        if change.added:
            pairings = _pairings(change, _rows_at_once(root, change), apart=settings.between == "splits")
            found = _found(root, bound_rule(root, rule, change.added), pairings, progress)
        made += _write(
            root, rule, chain(kept, found), settings.max_pairs - (0 if again else sum(part.rows for part in old))
        )
    meta = Meta("dedup", units, {"index": versions(root)["index"]})
    commit(root, "pairs", made, lambda partition: partition["rule"] in rewritten, meta)
    return True


def _change(root: str, rule: str, held: Meta, between: str) -> Change:
    now = [part for part in files(root, "index") if part.partition["rule"] == rule]
    known = set()
    again = rule in held.units and held.units[rule].get("spec") != between
    if rule in held.units and not again:
        then = files(root, "index", held.inputs["index"])
        known = {part.path for part in then if part.partition["rule"] == rule}
    paths = {part.path for part in now}
    return Change(
        [part for part in now if part.path not in known],
        [part for part in now if part.path in known],
        again or bool(known - paths),
    )


def _pairings(change: Change, most: int, *, apart: bool) -> Iterator[tuple[list[Part], list[list[Part]]]]:
    """Pair every block of new images with itself, with the new ones behind it, and with the old ones.

    Yields:
        A block, and the blocks to compare it with; itself stands first among them, unless only images of different
        splits are compared.
    """
    added, stayed = (_blocks(parts, most, apart=apart) for parts in (change.added, change.stayed))
    for number, block in enumerate(added):
        others = [*added[number:], *stayed]
        yield block, [other for other in others if not apart or _split_of(other) != _split_of(block)]


def _found(
    root: str, comparison: Comparison, pairings: Iterable[tuple[list[Part], list[list[Part]]]], progress: Progress
) -> Iterator[pa.Table]:
    """Compare blocks, the smaller one on the left."""
    read = _reader(root)
    for parts, others in pairings:
        block = _read(root, parts) if others else None
        for other_parts in others:
            if block is None:
                break
            if other_parts is parts:
                yield from match(comparison, block, None, read)
                continue
            other = _read(root, other_parts)
            small, large = (block, other) if len(block) <= len(other) else (other, block)
            yield from match(comparison, small, large, read)
        progress.advance(sum(part.rows for part in parts))


def _rows_at_once(root: str, change: Change) -> int:
    """Tell how many images a block may have: fewer where their vectors are long."""
    first = pl.scan_parquet(f"{root}/index/{change.added[0].path}", hive_partitioning=False, glob=False)
    width = first.select(pl.col("vector").bin.size()).head(1).collect().item() or 0
    return min(_BLOCK, _BLOCK_BYTES // max(1, width))


def _blocks(parts: Sequence[Part], most: int, *, apart: bool) -> list[list[Part]]:
    """Put files together until a block is full, or, where splits are kept apart, until the split ends."""
    blocks: list[list[Part]] = []
    rows = 0
    for part in parts:
        other = apart and blocks and _split_of(blocks[-1]) != _split_of([part])
        if not blocks or rows + part.rows > most or other:
            blocks.append([])
            rows = 0
        blocks[-1].append(part)
        rows += part.rows
    return blocks


def _split_of(block: Sequence[Part]) -> tuple[str, str]:
    return block[0].partition["dataset"], block[0].partition["split"]


def _read(root: str, parts: Sequence[Part]) -> Block:
    names = {f"{root}/index/{part.path}" for part in parts}
    rows = pl.scan_parquet(sorted(names), hive_partitioning=False, glob=False).select(_COLUMNS).collect().to_arrow()
    ids = pa.concat_arrays([chunk.cast(pa.large_binary()) for chunk in rows["image_id"].chunks])
    return Block(from_binary(ids, 16), entries_of(rows))


def _reader(root: str) -> Callable[[Ids], np.ndarray]:
    names = file_names(root, "images", None)

    def read(image_ids: Ids) -> np.ndarray:
        wanted = pl.Series("image_id", to_binary(np.ascontiguousarray(image_ids)))
        pixels = gather(locate(names, wanted))
        return pixels if pixels.ndim == 4 else pixels[..., None]  # noqa: PLR2004 - gray has no channel axis there

    return read


def _surviving(root: str, rule: str, change: Change) -> Iterator[pa.Table]:
    """Read the pairs whose two images are still what they were."""
    names = [f"{root}/index/{part.path}" for part in change.stayed]
    if not names:
        return
    ids = pl.scan_parquet(names, hive_partitioning=False, glob=False).select("image_id")
    pairs = scan_table(root, "pairs", None, lambda partition: partition["rule"] == rule).drop("rule")
    both = pairs.join(ids, left_on="left_id", right_on="image_id", how="semi").join(
        ids, left_on="right_id", right_on="image_id", how="semi"
    )
    rows = both.collect().sort("score", "left_id", "right_id", descending=[True, False, False]).to_arrow()
    yield rows.cast(schemas.TABLES["pairs"].file_schema)


def _write(root: str, rule: str, tables: Iterable[pa.Table], most: int) -> list[Part]:
    with open_part(root, "pairs", {"rule": rule}) as writer:
        count = 0
        for table in tables:
            count += len(table)
            if count > most:
                raise LakeError(_too_many(rule))
            if len(table):
                writer.write(table)
        part = writer.close()
    return [] if part is None else [part]


def _too_many(rule: str) -> str:
    return (
        f"rule '{rule}' finds more pairs than dedup.max_pairs allows: it is too loose for these images, or one picture "
        "is there very often (rule exact tells). Make the rule stricter, or raise dedup.max_pairs in the recipe."
    )
