"""Open a table, make it, widen it. Under the lock a table is opened once: nobody else changes it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

import schemas
from pipeline import storage
from pipeline.errors import LakeError, NewerLakeError
from pipeline.lake.writers.lock import MISSING, kept, seen

_SCHEMA_KEY = "imagelake.schema"
_CONFIGURATION = {
    _SCHEMA_KEY: str(schemas.VERSION),
    # A release is read at its versions for as long as it exists, so the log is never trimmed behind its back.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    # Opening a table reads a checkpoint and every commit since: in a bucket each is a request.
    "delta.checkpointInterval": "20",
}


Result = TypeVar("Result")

# By lake in a bucket, what was asked of versions of its tables.
_known: dict[str, dict[str, Any]] = {}
_MOST_KNOWN = 256
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]|%[0-9A-Fa-f]{2}")


def open_table(root: str, name: str, version: int | None = None) -> DeltaTable | None:
    """Open a table at its newest or a given version; None where there is none.

    Raises:
        NewerLakeError: the table was made by a newer imagelake.
        LakeError: the table is damaged, or its version is gone.
        StorageError: the bucket does not answer.
    """
    mine = kept(root) if version is None else None
    table: DeltaTable | None
    if version is not None:
        return once(root, f"{name} at {version}", lambda: _opened(root, name, version), fixed=True)
    table = mine[name] if mine and name in mine else _opened(root, name, None)
    seen(root, name, MISSING if table is None else table.version())
    if table is not None and mine is not None:
        mine[name] = table
    return table


def once(root: str, what: str, make: Callable[[], Result], *, fixed: bool) -> Result:
    """Ask what cannot change only once: under the lock always, and in a bucket, where asking is dear, what is fixed.

    Args:
        root: the lake's place.
        what: a name for it; of what belongs to a version of a table, with that version.
        make: asks.
        fixed: whether it is the same for ever, and not only under the lock.
    """
    mine = kept(root)
    if mine is None and (not fixed or not storage.is_bucket(root)):
        return make()
    known = _known.setdefault(root, {}) if mine is None else mine
    held: Result | None = known.get(what)
    if held is not None:
        return held
    found = make()
    if len(known) > _MOST_KNOWN:
        known.clear()
    known[what] = found
    return found


def _check_place(root: str) -> None:
    """Refuse places that deltalake cannot tell apart from others, before it does.

    Raises:
        LakeError: naming what is wrong.
    """
    if found := _ODD.search(root):
        raise LakeError(
            f"{root!r}: a lake cannot lie at a place whose name has {found.group()!r} in it. Give it another name: "
            "no control characters, no backslashes, no % before two digits, nothing but UTF-8."
        )


def _opened(root: str, name: str, version: int | None) -> DeltaTable | None:
    location = f"{root}/{name}"
    _check_place(root)
    if not storage.is_bucket(root) and not (Path(location) / "_delta_log").is_dir():
        return None
    try:
        table = storage.ask(
            location, lambda: DeltaTable(location, version=version, storage_options=storage.options(root))
        )
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise LakeError(
            f"{location}: the table cannot be opened ({one_line(error)}). Run: imagelake verify {root}"
        ) from error
    made_by = int(table.metadata().configuration.get(_SCHEMA_KEY, schemas.VERSION))
    if made_by > schemas.VERSION:
        raise NewerLakeError(
            f"{root} was made by a newer imagelake (schema {made_by}; this one knows up to {schemas.VERSION}). "
            "Upgrade imagelake to read it."
        )
    return table


def ensure_table(root: str, name: str) -> DeltaTable:
    """Open a table, making it empty first where it is missing, and adding columns it was made without.

    Raises:
        DiskFullError: no space is left.
        LakeError: another writer made it, and more of it, since it was found to be missing.
    """
    with storage.full_disk_named(root):
        table = open_table(root, name)
        if table is None:
            table = storage.ask(f"{root}/{name}", lambda: _created(root, name))
            # A new table has one version. Where it has more, somebody was faster.
            seen(root, name, table.version(), made=table.version() == 0)
        widened = storage.ask(f"{root}/{name}", lambda: _with_new_columns(table, schemas.TABLES[name].schema))
    seen(root, name, widened.version(), made=True)
    if (mine := kept(root)) is not None:
        mine[name] = widened
    return widened


def _created(root: str, name: str) -> DeltaTable:
    """Make an empty table. Where the answer is lost, it is there all the same, and the next try finds it."""
    declared = schemas.TABLES[name]
    try:
        return DeltaTable.create(
            f"{root}/{name}",
            declared.schema,
            mode="ignore",
            partition_by=list(declared.partition_by),
            name=name,
            description=declared.doc,
            configuration=_CONFIGURATION,
            raise_if_key_not_exists=False,
            storage_options=storage.options(root),
            # Tried again by deltalake itself, a table whose answer was lost would be made twice.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except DeltaError:
        found = _opened(root, name, None) if storage.is_bucket(root) else None
        if found is None:
            raise
        return found


def _with_new_columns(table: DeltaTable, schema: pa.Schema) -> DeltaTable:
    """Add the columns that a table of an older imagelake lacks: they are null in the rows it has."""
    known = {field.name for field in table.schema().fields}
    lacking = [field for field in Schema.from_arrow(schema).fields if field.name not in known]
    if lacking:
        table.alter.add_columns(lacking)
        table.alter.set_table_properties({_SCHEMA_KEY: str(schemas.VERSION)}, raise_if_not_exists=False)
    return table


def forget() -> None:
    """Open tables anew that were opened at a version before: somebody may have deleted a lake and made another."""
    _known.clear()


def one_line(error: Exception) -> str:
    """Say in one line what an error says."""
    return " ".join(str(error).split())[:300]
