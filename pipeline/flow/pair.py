"""index -> pairs: compare what is new with itself and with everything else, under every rule that compares.

The pairs table remembers the version of the index it was made from; files of the index are never changed, so the files
that came since are the new images, and those that went are the ones whose pairs go.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import polars as pl
import pyarrow as pa

import schemas
from pipeline.dedup.index import KEYS_VERSION
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.errors import LakeError
from pipeline.flow.basis import bound_rule
from pipeline.flow.compare import Change, Comparing, find_pairs, too_many
from pipeline.flow.state import shards_digest, stale, unit_digest
from pipeline.lake.commits import Meta, commit, files, read_meta, versions
from pipeline.lake.parts import Part, open_part
from pipeline.lake.reading import file_names, scan_files, scan_table
from pipeline.progress import SILENT, Progress
from pipeline.recipe import DedupPart

# Images held on either side while blocks are compared, and bytes of their vectors.
_BLOCK = 2**18
_BLOCK_BYTES = 2**26
# Appended files of a rule, beyond which they are written as one again.
_FILES = 64


def pair_units(root: str, compared: Mapping[str, str], between: str) -> dict[str, dict[str, Any]]:
    """By rule that compares, the fingerprint of the pairs that the lake's shards give."""
    state = shards_digest(scan_table(root, "shards", None).collect())
    return {
        rule: {"spec": between, "fingerprint": unit_digest("dedup", [rule, KEYS_VERSION, between, vectors], state)}
        for rule, vectors in compared.items()
    }


def run_pairs(
    root: str,
    compared: Mapping[str, str],
    settings: DedupPart,
    progress: Progress = SILENT,
    engine: Engine = HERE,
) -> bool:
    """Bring the pairs of every rule that compares up to date, in one commit.

    Cost grows with the new images times all images, not with the square of all; of old images only those pixels are
    read that verification asks for.

    Args:
        root: the lake's folder.
        compared: the rules that are wanted and compare, each with the fingerprint of the user's vectors, if any.
        settings: the recipe's `[dedup]`: what is compared with what, and how many pairs a rule may find.
        progress: where to show it.
        engine: where to run.

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
        most = settings.max_pairs - (0 if again else sum(part.rows for part in old))
        found: Iterator[pa.Table] = iter(())
        if change.added:
            work = Comparing(
                root,
                rule,
                comparison=bound_rule(root, rule, change.added),
                images=file_names(root, "images", None),
                most=most,
                largest=_rows_at_once(root, change),
                apart=settings.between == "splits",
            )
            found = find_pairs(work, change, engine, progress)
        made += _write(root, rule, chain(kept, found), most)
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


def _rows_at_once(root: str, change: Change) -> int:
    """Tell how many images a block may have: fewer where their vectors are long."""
    first = scan_files(root, "index", [change.added[0].path])
    width = first.select(pl.col("vector").bin.size()).head(1).collect().item() or 0
    return min(_BLOCK, _BLOCK_BYTES // max(1, width))


def _surviving(root: str, rule: str, change: Change) -> Iterator[pa.Table]:
    """Read the pairs whose two images are still what they were."""
    paths = [part.path for part in change.stayed]
    if not paths:
        return
    ids = scan_files(root, "index", paths).select("image_id")
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
                raise LakeError(too_many(rule))
            if len(table):
                writer.write(table)
        part = writer.close()
    return [] if part is None else [part]
