"""Find out what is out of date: a unit runs again when its settings or its inputs change.

A unit is a rule, a split or a baseline run. Its fingerprint is a digest of its settings and inputs. Fingerprints form a
Merkle tree: shards, clusters of a rule, split, run. They are stored in the metadata of commits; a build keeps no other
state.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from pipeline.addresses import identity
from pipeline.errors import LakeError
from pipeline.hashing import digest_of
from pipeline.lake.delta_log import Metadata
from pipeline.lake.snapshot import MISSING, Snapshot
from pipeline.lake.transaction import Transaction
from pipeline.shard import sum_of_fingerprints

# The columns that identify a shard.
SHARD_KEY = ["dataset", "split", "shard"]
# A build commits these tables before the shards table.
COMMITTED_BEFORE_SHARDS = ("images", "originals", "index", "rejects")
# Those of them that a lake may not use. A build commits one together with the others once it has a file.
_OPTIONAL = ("originals",)
# The key of a unit's metadata that lists its damaged files, until the unit is built again.
DAMAGED = "damaged"

# Increase a number when the stage would make other rows from the same input: then every lake builds them again.
_STAGE_VERSIONS = {"attributes": 1, "dedup": 2, "issues": 1, "splits": 2, "baselines": 4, "predictions": 1}


class Todo(NamedTuple):
    """A unit of work that a build does, and the reason."""

    stage: str
    unit: str
    reason: str


_DIGESTED = ("dataset", "split", "shard", "fingerprint", "decoder", "rows", "rejects")


def shards_digest(shards: pl.DataFrame) -> str:
    """Return the digest of rows of the shards table: everything that their images were made from, shard by shard."""
    return digest_of(shards.select(_DIGESTED).sort(SHARD_KEY).rows())


def inputs_digest(shards: pl.DataFrame) -> str:
    """Return the digest of rows of the shards table, whatever shards the files of a source are in.

    It is equal for a lake that grew and one that was built from nothing. Rows of lakes before 0.6 count shard by shard.
    """
    rows = []
    # The key of a shard is that of its source, then "-" and a name.
    of_source = pl.col("shard").str.replace("-[^-]*$", "")
    for (_, _, source, _), group in shards.group_by("dataset", "split", of_source, "decoder"):
        together = sum_of_fingerprints(group["fingerprint"])
        if together is not None:
            columns = {"shard": pl.lit(source), "fingerprint": pl.lit(together)}
            group = group.head(1).with_columns(  # noqa: PLW2901 - a sum in place of its terms
                **columns, rows=pl.lit(group["rows"].sum()), rejects=pl.lit(group["rejects"].sum())
            )
        rows += group.select(_DIGESTED).rows()
    return digest_of(sorted(rows))


def stored_shards(snapshot: Snapshot) -> pl.DataFrame:
    """Return the shards table, with uris as this version stores them: version 0.5 stored secrets of addresses too."""
    shards = snapshot.scan("shards").collect()
    return shards.with_columns(pl.col("uri").replace({uri: identity(uri) for uri in shards["uri"].unique()}))


def shards_state(snapshot: Snapshot) -> str:
    """Return the digest of everything that the images of a lake were made from; see `inputs_digest`."""
    return inputs_digest(snapshot.scan("shards").collect())


def key_frame(keys: Iterable[Sequence[str]]) -> pl.DataFrame:
    """Make a table of the columns dataset, split and shard, sorted, without duplicate rows."""
    return pl.DataFrame(sorted(map(tuple, keys)), schema=dict.fromkeys(SHARD_KEY, pl.String), orient="row").unique(
        maintain_order=True
    )


def input_versions(snapshot: Snapshot, *tables: str) -> dict[str, int]:
    """Return the versions of those tables that exist, for the metadata of a commit that was made from them."""
    versions = {table: snapshot.version(table) for table in tables}
    return {table: version for table, version in versions.items() if version != MISSING}


def unit_digest(stage: str, settings: Any, inputs: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Return the fingerprint of a unit: a digest of the version of its stage, its settings and its inputs."""
    return digest_of([stage, _STAGE_VERSIONS[stage], settings, inputs])


def find_outdated(
    stage: str, units: Mapping[str, Mapping[str, Any]], metadata: Metadata, *, changed: Mapping[str, str] | None = None
) -> list[Todo]:
    """Compare the units that a build should have with those that a table has.

    Args:
        stage: name of the stage.
        units: by unit, its `fingerprint` and its settings.
        metadata: metadata of the table's newest commit.
        changed: by unit, the reason why its input will change before the stage runs; only for plans.

    Returns:
        One entry for each unit to build or to drop.
    """
    stored = metadata.units
    todo = []
    for name, unit in units.items():
        if name not in stored:
            todo.append(Todo(stage, name, "new"))
        elif changed and name in changed:
            todo.append(Todo(stage, name, changed[name]))
        elif DAMAGED in stored[name]:
            todo.append(Todo(stage, name, "its files are damaged"))
        elif stored[name]["fingerprint"] != unit["fingerprint"]:
            same_settings = stored[name].get("spec") == unit.get("spec")
            todo.append(Todo(stage, name, "its input changed" if same_settings else "its settings changed"))
    return todo + [Todo(stage, name, "no longer in the recipe") for name in stored if name not in units]


def keep_stored(
    units: Mapping[str, dict[str, Any]], metadata: Metadata, names: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Replace units by what the table has of them, so that they are not made again; others stay as they are.

    Args:
        units: by unit, its `fingerprint` and its settings.
        metadata: metadata of the table's newest commit.
        names: the units to replace. One that the table does not have is left out.
    """
    kept = {name: dict(metadata.units.get(name, {})) if name in names else unit for name, unit in units.items()}
    return {name: unit for name, unit in kept.items() if unit}


def undo_half_commits(transaction: Transaction) -> None:
    """Restore images, originals, index and rejects to the versions that match the shards table, after a killed build.

    A build commits images, originals, index, rejects and then shards, all with the same digest. If a build is killed
    between these commits, some tables are ahead of the shards table. Each is restored to its newest version with the
    digest of the newest shards commit. The files of that version still exist, because vacuum keeps them.

    Raises:
        LakeError: there is no such version.
    """
    snapshot = transaction.snapshot
    digest = _committed_digest(snapshot.metadata("shards"))
    for table in COMMITTED_BEFORE_SHARDS:
        if _committed_digest(snapshot.metadata(table)) != digest and is_in_use(snapshot, table):
            transaction.restore(table, _version_with_digest(snapshot, table, digest))


def is_in_use(snapshot: Snapshot, table: str) -> bool:
    """Return whether a table of `COMMITTED_BEFORE_SHARDS` is committed with the others: all but unused originals."""
    return table not in _OPTIONAL or bool(_committed_digest(snapshot.metadata(table)))


def is_behind_shards(snapshot: Snapshot, table: str) -> bool:
    """Whether a table of `COMMITTED_BEFORE_SHARDS` has no version that matches the newest shards table."""
    digest = _committed_digest(snapshot.metadata("shards"))
    return is_in_use(snapshot, table) and not any(_matches(table, one, digest) for _, one in snapshot.history(table))


def versions_of_shards(snapshot: Snapshot) -> dict[str, int]:
    """Return, by table, the version that matches the current shards table. Vacuum must keep these versions.

    Raises:
        LakeError: there is no such version.
    """
    digest = _committed_digest(snapshot.metadata("shards"))
    tables = [table for table in COMMITTED_BEFORE_SHARDS if snapshot.version(table) not in (0, MISSING)]
    return {table: _version_with_digest(snapshot, table, digest) for table in tables if is_in_use(snapshot, table)}


def _committed_digest(metadata: Metadata) -> str:
    return str(metadata.units.get("shards", {}).get("fingerprint", ""))


def _matches(table: str, metadata: Metadata, digest: str) -> bool:
    """Whether a version matches the shards table. Before an optional table was used, it matches every one."""
    found = _committed_digest(metadata)
    return found == digest or (table in _OPTIONAL and not found)


def _version_with_digest(snapshot: Snapshot, table: str, digest: str) -> int:
    for version, metadata in snapshot.history(table):
        if _matches(table, metadata, digest):
            return version
    raise LakeError(
        f"{snapshot.place}/{table}: no version of the table matches the newest shards table: its newest commit is "
        f"missing. Make the table again with: imagelake build {snapshot.place} --repair"
    )
