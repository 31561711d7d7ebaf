"""Rewrite tables whose files are damaged: take files out, and restore the rows of releases from their commits."""

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

import schemas
from pipeline import storage
from pipeline.addresses import redacted, redacted_text
from pipeline.arrow_columns import to_table
from pipeline.lake.delta_log import FILES_KEY, METADATA_KEY, DeltaLog, Metadata
from pipeline.lake.delta_tables import write_log_file
from pipeline.lake.releases import DELETED
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, Transaction, all_files

# Not "release": commits of that stage are counted as releases.
_STAGE = "repair"


def whole_rows(snapshot: Snapshot, table: str, damaged: Collection[str]) -> pl.DataFrame:
    """Read the rows of a table without those in damaged files.

    Args:
        snapshot: of the lake.
        table: table name.
        damaged: paths of files that are not read.
    """
    paths = [part.path for part in snapshot.files(table) if part.path not in damaged]
    if not paths:
        return pl.Schema(schemas.TABLES[table].schema).to_frame()
    return snapshot.scan_files(table, paths).collect()


def replace_rows(
    transaction: Transaction, table: str, rows: pl.DataFrame, units: Mapping[str, Any] | None = None
) -> None:
    """Replace all rows of a table that has no partitions.

    Args:
        transaction: of the lake.
        table: table name.
        rows: the new rows.
        units: units of the new metadata; None for those of the newest commit.
    """
    held = transaction.snapshot.metadata(table)
    added = transaction.writer.write(table, rows.to_arrow().cast(schemas.TABLES[table].schema))
    metadata = Metadata(_STAGE, held.units if units is None else units, held.inputs)
    transaction.commit(Commit(table, added, metadata, all_files))


def drop_files(
    transaction: Transaction, table: str, gone: Collection[str], units: Mapping[str, Any] | None = None
) -> None:
    """Take files out of a table, so that the next build makes them again.

    Args:
        transaction: of the lake.
        table: table name.
        gone: paths of the files.
        units: as in `replace_rows`.
    """
    held = transaction.snapshot.metadata(table)
    metadata = Metadata(_STAGE, held.units if units is None else units, held.inputs)
    keep = {part.path for part in transaction.snapshot.files(table)} - set(gone)
    transaction.commit(Commit(table, (), metadata, all_files, keep))


def restore_releases(transaction: Transaction, damaged: Collection[str], digests: Mapping[int, str]) -> list[int]:
    """Restore the rows of releases that are in damaged files.

    The commit of every release records its table versions and its recipe. The note is lost, and the time becomes that
    of the commit.

    Args:
        transaction: of the lake.
        damaged: paths of the files.
        digests: by release, digest of its recipe; see `recorded_recipes`.

    Returns:
        The releases that were restored.
    """
    snapshot = transaction.snapshot
    rows = whole_rows(snapshot, "releases", damaged)
    deleted = snapshot.metadata("releases").units.get(DELETED, {})
    known = {str(number) for number in rows["release"]} | set(deleted)
    made = [
        {
            "release": number,
            "versions": [{"table": name, "version": of} for name, of in sorted(metadata.inputs.items())],
            "recipe_digest": digests.get(number, ""),
            "created_at": datetime.fromtimestamp(
                snapshot.with_version("releases", version).commit_time("releases") / 1000, UTC
            ),
            "note": "made again by build --repair: what its build did is lost",
        }
        for number, version, metadata in _published(snapshot)
        if str(number) not in known
    ]
    new = pl.DataFrame(to_table(made, schemas.TABLES["releases"].schema))
    replace_rows(transaction, "releases", pl.concat([rows, new]).sort("release"))
    return sorted(new["release"].to_list())


def hide_release_secrets(transaction: Transaction) -> bool:
    """Hide the secrets of addresses that version 0.5 stored in notes, and in the recipes in commits of releases.

    These commits are the only files of a lake that are changed: they would stay for as long as the lake. Delta does not
    read what changes, and commits of 0.5 have no digests.

    Returns:
        Whether there were any.
    """
    snapshot = transaction.snapshot
    log = DeltaLog(snapshot.place, "releases")
    # From the first commit of this version on, nothing has secrets.
    if snapshot.open("releases") is None or FILES_KEY in log.commit_info(snapshot.version("releases")):
        return False
    changed = [
        (log.file(version), hidden)
        for version in log.versions()
        if (hidden := _without_secrets(content := storage.read(log.file(version)))) != content
    ]
    for file, hidden in changed:
        write_log_file(file, hidden)
    transaction.reopen()
    rows = whole_rows(snapshot, "releases", ())
    notes = pl.Series("note", list(map(redacted_text, rows["note"])), pl.String)
    if not notes.equals(rows["note"]):
        replace_rows(transaction, "releases", rows.with_columns(notes))
    return bool(changed) or not notes.equals(rows["note"])


def _without_secrets(content: bytes) -> bytes:
    lines = content.split(b"\n")
    for number, line in enumerate(lines):
        if line.startswith(b'{"commitInfo"'):
            action = json.loads(line)
            info = action["commitInfo"]
            metadata = json.loads(info.get(METADATA_KEY, "null"))
            if (hidden := _redact_values(metadata)) != metadata:
                info[METADATA_KEY] = json.dumps(hidden, sort_keys=True)
                lines[number] = json.dumps(action, separators=(",", ":")).encode()
    return b"\n".join(lines)


def _redact_values(values: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(values, dict):
        return {key: _redact_values(value) for key, value in values.items()}
    if isinstance(values, list):
        return list(map(_redact_values, values))
    return redacted_text(redacted(values)) if isinstance(values, str) else values


def recorded_recipes(snapshot: Snapshot) -> dict[int, Mapping[str, Any]]:
    """Return, by release, what its commit keeps of its recipe."""
    return {
        number: metadata.units["recipe"] for number, _, metadata in _published(snapshot) if "recipe" in metadata.units
    }


def recorded_versions(snapshot: Snapshot) -> dict[int, dict[str, int]]:
    """Return, by release, the table versions that its commit records; also of deleted releases."""
    return {number: dict(metadata.inputs) for number, _, metadata in _published(snapshot)}


def required_tables(snapshot: Snapshot) -> set[str]:
    """Return the tables that a lake must have: none before its first release.

    A table that came after the version which built the newest release is no part of it.
    """
    recorded = recorded_versions(snapshot)
    named = recorded[max(recorded)] if recorded else {}
    return {name for name, table in schemas.TABLES.items() if name in named or (recorded and not table.released)}


def _published(snapshot: Snapshot) -> list[tuple[int, int, Metadata]]:
    """List the commits that published a release: number of the release, version of the commit, its metadata.

    Releases are counted from 1, and the newest is never deleted: the number is that of such commits so far.
    """
    found = [
        (version, metadata)
        for version, metadata in snapshot.history("releases")
        if metadata.stage == "release" and metadata.inputs
    ]
    return [(number, version, metadata) for number, (version, metadata) in enumerate(reversed(found), start=1)]
