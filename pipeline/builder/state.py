"""What a lake holds, as digests: a stage runs again when the digest of what it reads or of its settings changes.

The digests hang together like a Merkle tree: shards -> clusters of a rule -> split -> run. Nothing else is remembered.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.errors import LakeError
from pipeline.hashing import digest_of
from pipeline.lake.commits import Meta, metas, read_meta, restore, versions

SHARD_KEY = ["dataset", "split", "shard"]
AHEAD_OF_SHARDS = ("images", "index", "rejects")

# In what a table tells of a unit: paths of its files that were damaged, until it is made again.
DAMAGED = "damaged"

# Raise when a stage would make other rows from the same input: every lake then makes them anew.
_STAGE_VERSIONS = {"dedup": 2, "splits": 2, "baselines": 3}


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

    A build commits images, index, rejects and, last, shards, all with one digest. Where a build died in between, the
    tables that are ahead are restored to their newest version with the digest of the newest shards commit: its files
    are still there, as vacuum keeps them.

    Raises:
        LakeError: there is no such version.
    """
    digest = _digest_in(read_meta(root, "shards"))
    for name in AHEAD_OF_SHARDS:
        if _digest_in(read_meta(root, name)) != digest:
            restore(root, name, _version_with(root, name, digest))


def versions_of_shards(root: str) -> dict[str, int]:
    """By table, the version that belongs to the shards table as it stands: vacuum must keep it."""
    digest = _digest_in(read_meta(root, "shards"))
    return {name: _version_with(root, name, digest) for name in AHEAD_OF_SHARDS if versions(root).get(name)}


def _digest_in(meta: Meta) -> str:
    return str(meta.units.get("shards", {}).get("fingerprint", ""))


def _version_with(root: str, name: str, digest: str) -> int:
    for number, meta in metas(root, name):
        if _digest_in(meta) == digest:
            return number
    raise LakeError(
        f"{root}/{name}: no version belongs to the newest shards table. Build into a new folder, and report this."
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
        elif DAMAGED in held[unit]:
            todo.append(Todo(stage, unit, "its files are damaged"))
        elif held[unit]["fingerprint"] != made["fingerprint"]:
            same = held[unit].get("spec") == made.get("spec")
            todo.append(Todo(stage, unit, "what it reads changed" if same else "its settings changed"))
    return todo + [Todo(stage, unit, "no longer asked for") for unit in held if unit not in wanted]
