"""Generated glyphs as a source: workers draw the files of their shard, nothing is read from disk."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.hashing import digest_of
from pipeline.shard import Blobs, Deferred, Encoded, Survey
from pipeline.sources.glyphs import GlyphBlock, GlyphPlan, blocks, plan_glyphs, render
from pipeline.sources.glyphs.plan import labels, paths
from pipeline.sources.source import IMAGES_PER_SHARD, Source, shard_key

DEFAULT_ROWS = 20_000
# Raise when other files are drawn for the same rows and seed.
_VERSION = 1


def recognises(path: Path, head: bytes) -> bool:
    """Return False: glyphs are only chosen by `format`; see `pipeline.sources`."""
    del path, head
    return False


def plan_of(source: Source) -> GlyphPlan:
    """Plan the glyph set of a source: `rows` is the number of files in the train part."""
    return plan_glyphs(source.part.rows or DEFAULT_ROWS, source.part.seed or 0)


def survey(source: Source) -> Survey:
    """Return the fingerprints of all shards, without drawing; see `pipeline.sources`."""
    shards = {shard_key(source, n): _fingerprint(block) for n, block in enumerate(_blocks(source))}
    return Survey(digest_of(shards), shards)


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Yield shards that workers draw; see `pipeline.sources`."""
    plan = plan_of(source)
    for number, block in enumerate(_blocks(source)):
        key = shard_key(source, number)
        if wanted is None or key in wanted:
            index = np.arange(block.start, block.stop)
            contents = Deferred(partial(_draw, block))
            yield Encoded(key, _fingerprint(block), tuple(paths(plan, index)), tuple(labels(plan, index)), contents)


def _blocks(source: Source) -> list[GlyphBlock]:
    return blocks(plan_of(source), source.split, IMAGES_PER_SHARD)


def _draw(block: GlyphBlock) -> Blobs:
    return Blobs(render(block).data)


def _fingerprint(block: GlyphBlock) -> str:
    return digest_of([_VERSION, block.rows, block.seed, block.split, block.start, block.stop])
