"""What a lake holds, as digests: a stage runs again when the digest of what it reads or of its settings changes.

The digests hang together like a Merkle tree: shards -> clusters of a rule -> split -> run. Nothing else is remembered.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.hashing import digest_of
from pipeline.lake.commits import Meta, metas, read_meta, restore
from pipeline.lake.reading import scan_table

SHARD_KEY = ["dataset", "split", "shard"]
AHEAD_OF_SHARDS = ("images", "index", "rejects")

# Raise when a stage would make other rows from the same input: every lake then makes them anew.
_STAGE_VERSIONS = {"dedup": 1, "splits": 1, "baselines": 1}


class Todo(NamedTuple):
    """A unit of work that the next build would do, and why."""

    stage: str
    unit: str
    reason: str


def shards_digest(shards: pl.DataFrame) -> str:
    """Digest what the lake's images were made from."""
    columns = ("dataset", "split", "shard", "fingerprint", "decoder", "rows", "rejects")
    return digest_of(shards.select(columns).sort("dataset", "split", "shard").rows())


def undo_half_commits(root: str) -> None:
    """Bring images, index and rejects back to what the shards table says, where a killed build left them ahead of it.

    A build commits images, index, rejects and, last, shards, and each of the first three carries the digest of the
    shards table that belongs to it. Where a build died in between, the tables that are ahead are restored to their
    newest version with the right digest: its files are still there, as vacuum keeps them.
    """
    digest = shards_digest(scan_table(root, "shards", None).collect())
    for name in AHEAD_OF_SHARDS:
        if read_meta(root, name).units.get("shards", {"fingerprint": digest})["fingerprint"] != digest:
            restore(root, name, _version_of(root, name, digest))


def versions_of_shards(root: str) -> dict[str, int]:
    """By table, the version that belongs to the shards table as it stands: vacuum must keep it."""
    digest = shards_digest(scan_table(root, "shards", None).collect())
    return {name: _version_of(root, name, digest) for name in AHEAD_OF_SHARDS}


def _version_of(root: str, name: str, digest: str) -> int:
    return next(
        (number for number, meta in metas(root, name) if meta.units.get("shards", {}).get("fingerprint") == digest), 0
    )


def key_frame(keys: Iterable[Sequence[str]]) -> pl.DataFrame:
    """Make a frame of dataset, split and shard, each once, ordered."""
    return pl.DataFrame(sorted(map(tuple, keys)), schema=dict.fromkeys(SHARD_KEY, pl.String), orient="row").unique(
        maintain_order=True
    )


def unit_digest(stage: str, settings: Any, inputs: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Digest a unit of a stage: its code's version, its settings and what it reads."""
    return digest_of([stage, _STAGE_VERSIONS[stage], settings, inputs])


def stale(
    stage: str,
    wanted: Mapping[str, Mapping[str, Any]],
    meta: Meta,
    *,
    changed: Mapping[str, str] | None = None,
) -> list[Todo]:
    """Compare the units that a recipe asks for with those that a table holds.

    Args:
        stage: name of the stage.
        wanted: by unit, its `fingerprint` and how it is made.
        meta: the table's newest commit.
        changed: by unit, why its input will have changed by the time the stage runs.
    """
    held = meta.units
    todo = []
    for unit, made in wanted.items():
        if unit not in held:
            todo.append(Todo(stage, unit, "new"))
        elif changed and unit in changed:
            todo.append(Todo(stage, unit, changed[unit]))
        elif held[unit]["fingerprint"] != made["fingerprint"]:
            same = held[unit].get("spec") == made.get("spec")
            todo.append(Todo(stage, unit, "what it reads changed" if same else "its settings changed"))
    return todo + [Todo(stage, unit, "no longer asked for") for unit in held if unit not in wanted]
