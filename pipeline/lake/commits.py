"""Make files part of a table: one Delta transaction, the only moment at which the table changes.

Every commit carries, as custom metadata, which stage made it, from which versions of which tables, and the
fingerprint of every unit (a rule, a split, a run) that the table now holds. That is all a later build needs to know
what is up to date.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

import schemas
from pipeline import storage
from pipeline.errors import LakeError, NewerLakeError
from pipeline.lake.lock import seen
from pipeline.lake.parts import Part, full_disk_named

_SCHEMA_KEY = "imagelake.schema"
_MARK = "imagelake.commit"
_CONFIGURATION = {
    _SCHEMA_KEY: str(schemas.VERSION),
    # A release is read at its versions for as long as it exists, so the log is never trimmed behind its back.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}


@dataclass(frozen=True)
class Meta:
    """What a commit stands for.

    Attributes:
        stage: the stage that made it.
        units: by unit (a rule, a split, a run), its fingerprint and how to make it again.
        inputs: versions of the tables that were read.
    """

    stage: str
    units: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, int] = field(default_factory=dict)


def open_table(root: str, name: str, version: int | None = None) -> DeltaTable | None:
    """Open a table at its newest or a given version; None where there is none.

    Raises:
        NewerLakeError: the table was made by a newer imagelake.
        LakeError: the table is damaged, or its version is gone.
    """
    location = f"{root}/{name}"
    if not storage.is_bucket(root) and not (Path(location) / "_delta_log").is_dir():
        return None
    try:
        table = DeltaTable(location, version=version, storage_options=storage.options(root))
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        if silent := storage.silent(location, error):
            raise silent from error
        raise LakeError(
            f"{location}: the table cannot be opened ({_line(error)}). Run: imagelake verify {root}"
        ) from error
    made_by = int(table.metadata().configuration.get(_SCHEMA_KEY, schemas.VERSION))
    if made_by > schemas.VERSION:
        raise NewerLakeError(
            f"{root} was made by a newer imagelake (schema {made_by}; this one knows up to {schemas.VERSION}). "
            "Upgrade imagelake to read it."
        )
    if version is None:
        seen(root, name, table.version())
    return table


def versions(root: str) -> dict[str, int]:
    """Newest version of every table that exists."""
    found = {name: open_table(root, name) for name in schemas.TABLES}
    return {name: table.version() for name, table in found.items() if table is not None}


def files(root: str, name: str, version: int | None = None) -> list[Part]:
    """List the files of a table, ordered by path; empty where there is no table."""
    table = open_table(root, name, version)
    if table is None:
        return []
    actions = pa.table(table.get_add_actions(flatten=True))
    keys = schemas.TABLES[name].partition_by
    return sorted(
        (
            Part(
                unquote(row["path"]),
                row["size_bytes"],
                row["num_records"],
                {k: row[f"partition.{k}"] for k in keys},
            )
            for row in actions.to_pylist()
        ),
        key=lambda part: part.path,
    )


def read_meta(root: str, name: str, version: int | None = None) -> Meta:
    """Read what the newest or a given commit of a table stands for; empty where there is none."""
    table = open_table(root, name, version)
    if table is None:
        return Meta("")
    last = table.history(1)[0]
    return Meta(**json.loads(last["imagelake"])) if "imagelake" in last else Meta("")


def metas(root: str, name: str) -> Iterator[tuple[int, Meta]]:
    """Read what every commit of a table stands for, newest first; nothing where there is no table."""
    table = open_table(root, name)
    for entry in table.history() if table is not None else ():
        yield entry["version"], Meta(**json.loads(entry["imagelake"])) if "imagelake" in entry else Meta("")


def restore(root: str, name: str, version: int) -> None:
    """Commit a table's older version as its newest, with all that it stood for.

    Raises:
        LakeError: a file of that version is gone.
    """
    table = ensure_table(root, name)
    kept = json.dumps(asdict(read_meta(root, name, version)), sort_keys=True)
    try:
        table.restore(version, commit_properties=CommitProperties(custom_metadata={"imagelake": kept}))
        seen(root, name, table.version(), made=True)
    except DeltaError as error:
        raise LakeError(
            f"{root}/{name}: version {version} cannot be restored ({_line(error)}). Run: imagelake verify {root}"
        ) from error


def commit(root: str, name: str, add: Sequence[Part], remove: Callable[[Mapping[str, str]], bool], meta: Meta) -> int:
    """Replace files of a table in one transaction.

    Args:
        root: the lake's place.
        name: table name; the table is made if it is missing.
        add: files that `parts` wrote.
        remove: tells from a file's partition values whether it goes.
        meta: what the commit stands for.

    Returns:
        The table's new version.

    Raises:
        LakeError: another writer changed the same files meanwhile; nothing was committed here.
        DiskFullError: no space is left; nothing was committed.
    """
    with full_disk_named(root):
        table = ensure_table(root, name)
        now = int(time.time() * 1000)
        old = [part for part in files(root, name) if remove(part.partition)]
        actions: list[AddAction | RemoveAction] = [_add(part, now) for part in add]
        actions += [
            RemoveAction(
                part.path,
                data_change=True,
                deletion_timestamp=now,
                size=part.size,
                partition_values=dict(part.partition),
            )
            for part in old
        ]
        _transact(root, name, table, actions, meta)
    table.update_incremental()
    seen(root, name, table.version(), made=True)
    return table.version()


def _transact(root: str, name: str, table: DeltaTable, actions: Sequence[AddAction | RemoveAction], meta: Meta) -> None:
    # A mark that no other commit has: where the answer to a commit is lost, it tells whether it was made.
    mark = uuid.uuid4().hex
    told = {"imagelake": json.dumps(asdict(meta), sort_keys=True), _MARK: mark}
    try:
        table.create_write_transaction(
            list(actions),
            mode="append",
            schema=table.schema(),
            partition_by=list(schemas.TABLES[name].partition_by),
            # On the version that was read, or not at all: whoever was faster may have changed what this one is made of.
            commit_properties=CommitProperties(custom_metadata=told, max_commit_retries=0),
        )
    except (DeltaError, OSError) as error:
        if _was_made(root, name, table.version() + 1, mark):
            return
        if isinstance(error, OSError) and not storage.is_bucket(root):
            raise
        if silent := storage.silent(f"{root}/{name}", error):
            raise silent from error
        raise LakeError(f"{root}/{name}: the commit was refused ({_line(error)}). Build again.") from error


def _was_made(root: str, name: str, version: int, mark: str) -> bool:
    if not storage.is_bucket(root):
        return False
    try:
        lines = storage.read(f"{root}/{name}/_delta_log/{version:020}.json").splitlines()
    except FileNotFoundError:
        return False
    return any(json.loads(line).get("commitInfo", {}).get(_MARK) == mark for line in lines)


def ensure_table(root: str, name: str) -> DeltaTable:
    """Open a table, making it empty first where it is missing, and adding columns it was made without."""
    declared = schemas.TABLES[name]
    table = open_table(root, name)
    if table is not None:
        widened = _with_new_columns(table, declared.schema)
        seen(root, name, widened.version(), made=True)
        return widened
    made = DeltaTable.create(
        f"{root}/{name}",
        declared.schema,
        mode="ignore",
        partition_by=list(declared.partition_by),
        name=name,
        description=declared.doc,
        configuration=_CONFIGURATION,
        raise_if_key_not_exists=False,
        storage_options=storage.options(root),
    )
    seen(root, name, made.version(), made=True)
    return made


def _with_new_columns(table: DeltaTable, schema: pa.Schema) -> DeltaTable:
    """Add the columns that a table of an older imagelake lacks: they are null in the rows it has."""
    known = {field.name for field in table.schema().fields}
    lacking = [field for field in Schema.from_arrow(schema).fields if field.name not in known]
    if lacking:
        table.alter.add_columns(lacking)
        table.alter.set_table_properties({_SCHEMA_KEY: str(schemas.VERSION)}, raise_if_not_exists=False)
    return table


def _add(part: Part, now: int) -> AddAction:
    # Delta's log spells paths percent-encoded, on top of the encoding that is in the folder's own name.
    stats = json.dumps({"numRecords": part.rows})
    return AddAction(part.path, part.size, dict(part.partition), now, data_change=True, stats=stats)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
