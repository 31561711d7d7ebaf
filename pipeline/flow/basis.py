"""index -> bases: fit what rule photo compares by, once for a lake, and keep it for the images to come."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

import schemas
from pipeline.dedup.index import entries_of
from pipeline.dedup.rules import Comparison, Entries, parse_rule, photo
from pipeline.hashing import digest_of
from pipeline.lake.commits import Meta, commit, versions
from pipeline.lake.parts import Part, write_part
from pipeline.lake.reading import scan_files, scan_table
from pipeline.mixing import order_keys
from pipeline.rows import from_binary

# Raise when descriptors are made otherwise from the same basis.
_VERSION = 1
# Images that a basis is fitted to, at most.
_SAMPLE = 20_000


def bound_rule(root: str, rule: str, added: Sequence[Part]) -> Comparison:
    """Make a rule ready to compare, with the lake's basis where it needs one: that of the first build that had it.

    Args:
        root: the lake's folder.
        rule: a rule that compares.
        added: files of the index table, to fit a basis to where the lake has none.
    """
    comparison = parse_rule(rule).comparison
    if comparison is None:
        raise AssertionError(f"rule {rule} compares nothing")
    if not isinstance(comparison, photo.Photo):
        return comparison
    held = scan_table(root, "bases", None).filter(family=photo.FAMILY, version=_VERSION).select("basis").collect()
    return comparison.using(held.item() if len(held) else _fit(root, comparison, added))


def _fit(root: str, comparison: photo.Photo, added: Sequence[Part]) -> bytes:
    sample = _sample(scan_files(root, "index", [part.path for part in added]))
    basis = comparison.fit(sample)
    row = {"family": photo.FAMILY, "version": _VERSION, "images": len(sample.key), "basis": basis}
    part = write_part(root, "bases", {}, pa.Table.from_pylist([row], schema=schemas.TABLES["bases"].schema))
    meta = Meta("dedup", {photo.FAMILY: {"fingerprint": digest_of(basis.hex())}}, {"index": versions(root)["index"]})
    commit(root, "bases", [part] if part else [], lambda _: True, meta)
    return basis


def _sample(rows: pl.LazyFrame) -> Entries:
    """Draw images by their ids alone, so that their order does not matter."""
    ids = rows.select("image_id").collect().to_series().sort()
    keys = order_keys(from_binary(ids.to_arrow().cast(pa.large_binary()), 16), 0, "basis of rule photo")
    drawn = ids.gather(np.argsort(keys, kind="stable")[:_SAMPLE])
    chosen = rows.filter(pl.col("image_id").is_in(drawn.implode())).collect(engine="streaming").sort("image_id")
    return entries_of(chosen.select("key", "signature", "vector").to_arrow())
