"""Find what is out of date: a unit runs again when the fingerprint of its settings or of its inputs changes.

Fingerprints form a Merkle tree: shards, clusters of a rule, split, run. They are stored in the metadata of commits;
a build keeps no other state.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.errors import LakeError
from pipeline.hashing import digest_of
from pipeline.lake.delta_log import Metadata
from pipeline.lake.snapshot import MISSING, Snapshot
from pipeline.lake.transaction import Transaction

SHARD_KEY = ["dataset", "split", "shard"]
AHEAD_OF_SHARDS = ("images", "index", "rejects")

# In the metadata of a unit: paths of its damaged files, until it is made again.
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


def undo_half_commits(transaction: Transaction) -> None:
    """Restore images, index and rejects to the versions that belong to the shards table, after a killed build.

    A build commits images, index, rejects and, last, shards, all with one digest. Where a build died in between, the
    tables that are ahead are restored to their newest version with the digest of the newest shards commit: its files
    are still there, as vacuum keeps them.

    Raises:
        LakeError: there is no such version.
    """
    snapshot = transaction.snapshot
    digest = _digest_in(snapshot.metadata("shards"))
    for name in AHEAD_OF_SHARDS:
        if _digest_in(snapshot.metadata(name)) != digest:
            transaction.restore(name, _version_with(snapshot, name, digest))


def versions_of_shards(snapshot: Snapshot) -> dict[str, int]:
    """Return, by table, the version that belongs to the shards table as it stands: vacuum must keep it."""
    digest = _digest_in(snapshot.metadata("shards"))
    there = [name for name in AHEAD_OF_SHARDS if snapshot.version(name) not in (0, MISSING)]
    return {name: _version_with(snapshot, name, digest) for name in there}


def _digest_in(metadata: Metadata) -> str:
    return str(metadata.units.get("shards", {}).get("fingerprint", ""))


def _version_with(snapshot: Snapshot, name: str, digest: str) -> int:
    for version, metadata in snapshot.history(name):
        if _digest_in(metadata) == digest:
            return version
    raise LakeError(
        f"{snapshot.place}/{name}: no version belongs to the newest shards table. Build into a new folder, and report "
        "this."
    )


def key_frame(keys: Iterable[Sequence[str]]) -> pl.DataFrame:
    """Make a frame of dataset, split and shard, each once, ordered."""
    return pl.DataFrame(sorted(map(tuple, keys)), schema=dict.fromkeys(SHARD_KEY, pl.String), orient="row").unique(
        maintain_order=True
    )


def shards_state(snapshot: Snapshot) -> str:
    """Digest what the lake's images were made from, as the shards table stands."""
    return shards_digest(snapshot.scan("shards").collect())


def unit_digest(stage: str, settings: Any, inputs: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Digest a unit of a stage: its code's version, its settings and what it reads."""
    return digest_of([stage, _STAGE_VERSIONS[stage], settings, inputs])


def stale(
    stage: str,
    wanted: Mapping[str, Mapping[str, Any]],
    metadata: Metadata,
    *,
    changed: Mapping[str, str] | None = None,
) -> list[Todo]:
    """Compare the units that a recipe asks for with those that a table holds.

    Args:
        stage: name of the stage.
        wanted: by unit, its `fingerprint` and how it is made.
        metadata: of the table's newest commit.
        changed: by unit, why its input will have changed by the time the stage runs.
    """
    held = metadata.units
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
