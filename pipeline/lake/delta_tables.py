"""Open Delta tables, create them, and add the columns that tables of an older imagelake lack."""

import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

import schemas
from pipeline import storage
from pipeline.errors import LakeError, NewerLakeError, StorageError, one_line
from pipeline.lake.delta_log import DeltaLog
from pipeline.os_errors import advice_for

_SCHEMA_KEY = "imagelake.schema"
_CONFIGURATION = {
    _SCHEMA_KEY: str(schemas.VERSION),
    # A release is read at its versions for as long as it exists, so the log must never be trimmed.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    # Opening a table reads a checkpoint and every commit since: in a bucket each is a request.
    "delta.checkpointInterval": "20",
}
_UNSUPPORTED = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]|%[0-9A-Fa-f]{2}")


def open_table(place: str, name: str, version: int | None = None) -> DeltaTable | None:
    """Open a table.

    Args:
        place: the lake's place.
        name: table name.
        version: the version to open; None for the newest.

    Returns:
        The table; None where there is none.

    Raises:
        NewerLakeError: the table was made by a newer imagelake.
        LakeError: the table is damaged, its version is gone, or the place has an unsupported name.
        StorageError: the bucket does not answer.
    """
    location = f"{place}/{name}"
    _check_place(place)
    try:
        if not storage.is_bucket(place) and not _has_log(Path(location)):
            return None
        table = storage.with_retries(
            location, lambda: DeltaTable(location, version=version, storage_options=storage.delta_options(place))
        )
    except TableNotFoundError:
        return None
    except StorageError:
        raise
    except (DeltaError, OSError) as error:
        if "LogSegment end version" in str(error):
            raise LakeError(
                f"{location}: the newest commit of its log is missing: a release needs version {version}. Repair it "
                f"with: imagelake build {place} --repair"
            ) from error
        raise _cannot_be_opened(place, name, error) from error
    except BaseException as error:
        # A damaged checkpoint makes the library panic. The class cannot be imported from it.
        if type(error).__name__ != "PanicException":
            raise
        raise LakeError(
            f"{location}: the table cannot be opened: its log is damaged. Run: imagelake verify {place}"
        ) from error
    made_by = int(table.metadata().configuration.get(_SCHEMA_KEY, schemas.VERSION))
    if made_by > schemas.VERSION:
        raise NewerLakeError(
            f"{place} was made by a newer imagelake (schema {made_by}; this one reads up to {schemas.VERSION}). "
            "Upgrade imagelake to read it."
        )
    return table


def newest_version(place: str, name: str) -> int | None:
    """Return the newest version of a table, without opening it; None where there is no table.

    Raises:
        LakeError: its log cannot be listed, or the place has an unsupported name.
        StorageError: the bucket does not answer.
    """
    _check_place(place)
    try:
        if not storage.is_bucket(place) and not _has_log(Path(place, name)):
            return None
        return max(DeltaLog(place, name).versions(), default=None)
    except StorageError:
        raise
    except OSError as error:
        raise _cannot_be_opened(place, name, error) from error


def _cannot_be_opened(place: str, name: str, error: Exception) -> LakeError:
    advice = advice_for(error)
    return LakeError(
        f"{place}/{name}: the table cannot be opened ({one_line(error, 300)}). "
        + (f"{advice}." if advice else f"Run: imagelake verify {place}")
    )


def _has_log(folder: Path) -> bool:
    """Return whether a table's folder has a log.

    Raises:
        OSError: something else is in its place, or this user may not look.
    """
    log = folder / "_delta_log"
    try:
        found = log.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(log))
    with suppress(FileNotFoundError):
        # The library opens this file first, and would wait for a pipe forever.
        storage.check_regular(log / "_last_checkpoint")
    return True


def create_table(place: str, name: str, version: int = 0) -> DeltaTable:
    """Create an empty table, or open the one that another writer has created meanwhile.

    Args:
        place: the lake's place.
        name: table name.
        version: its first version. A table that is made again starts after the versions of the lost one.

    Raises:
        DeltaError: the table cannot be created.
        StorageError: the bucket does not answer.
    """
    if version:
        _write_first_version(place, name, version)
    return storage.with_retries(f"{place}/{name}", lambda: _created(place, name))


def set_log_aside(log: DeltaLog, suffix: str, before: int | None = None) -> None:
    """Move the log of a table to `_delta_log.<suffix>`: nothing reads it, and no file of it is deleted.

    Args:
        log: the log.
        suffix: of the new folder.
        before: a version that has a checkpoint; only files of older versions are moved. None for all.
    """
    aside = f"{log.folder}.{suffix}"
    if before is None and not storage.is_bucket(log.place):
        if Path(log.folder).exists():
            Path(log.folder).rename(aside)
        return
    names = [name for name in storage.list_files(log.folder) if before is None or name[:20] < f"{before:020}"]
    if not storage.is_bucket(log.place):
        Path(aside).mkdir(exist_ok=True)
    for name in names:
        write_log_file(f"{aside}/{name}", storage.read(f"{log.folder}/{name}"))
    storage.delete(f"{log.folder}/{name}" for name in names)


def _write_first_version(place: str, name: str, version: int) -> None:
    """Write a log that starts at a version: its commit and, for Delta to begin there, a checkpoint."""
    log = DeltaLog(place, name)
    with tempfile.TemporaryDirectory(prefix="imagelake-") as draft:
        _created(draft, name).create_checkpoint()
        first = DeltaLog(draft, name)
        pointer = json.loads(storage.read(f"{first.folder}/_last_checkpoint"))
        checkpoint = storage.read(f"{first.folder}/{0:020}.checkpoint.parquet")
        commit = storage.read(first.file(0))
    if not storage.is_bucket(place):
        Path(log.folder).mkdir(parents=True)
    # The commit comes last: until then there is no table.
    write_log_file(log.checkpoint(version), checkpoint)
    write_log_file(f"{log.folder}/_last_checkpoint", json.dumps({**pointer, "version": version}).encode())
    write_log_file(log.file(version), commit)


def write_log_file(name: str, content: bytes) -> None:
    """Write a file of a log in one step, and replace the one that is there."""
    if storage.is_bucket(name):
        storage.write(name, content)
        return
    draft = Path(f"{name}.tmp")
    draft.write_bytes(content)
    draft.replace(name)


def add_new_columns(
    place: str, name: str, table: DeltaTable, properties: Callable[[], CommitProperties] = CommitProperties
) -> None:
    """Add the columns that a table of an older imagelake lacks. They are null in the rows that it has.

    Args:
        place: the lake's place.
        name: table name.
        table: the table as opened.
        properties: returns those of the next commit.
    """
    known = {field.name for field in table.schema().fields}
    lacking = [field for field in Schema.from_arrow(schemas.TABLES[name].schema).fields if field.name not in known]

    def add() -> None:
        table.alter.add_columns(lacking, commit_properties=properties())
        table.alter.set_table_properties(
            {_SCHEMA_KEY: str(schemas.VERSION)}, raise_if_not_exists=False, commit_properties=properties()
        )

    if lacking:
        storage.with_retries(f"{place}/{name}", add)


def _created(place: str, name: str) -> DeltaTable:
    declared = schemas.TABLES[name]
    try:
        return DeltaTable.create(
            f"{place}/{name}",
            declared.schema,
            mode="ignore",
            partition_by=list(declared.partition_by),
            name=name,
            description=declared.doc,
            configuration=_CONFIGURATION,
            raise_if_key_not_exists=False,
            storage_options=storage.delta_options(place),
            # A retry by deltalake itself would create the table twice where the first reply was lost.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except DeltaError:
        # Where the reply was lost, the table exists.
        found = open_table(place, name) if storage.is_bucket(place) else None
        if found is None:
            raise
        return found


def _check_place(place: str) -> None:
    """Refuse places that deltalake confuses with others.

    Raises:
        LakeError: naming the character.
    """
    if found := _UNSUPPORTED.search(place):
        raise LakeError(
            f"{place!r}: a lake cannot lie at a place whose name contains {found.group()!r}. Give it another name: "
            "no control characters, no backslashes, no % before two digits, nothing but UTF-8."
        )


def arrow_actions(place: str, name: str, table: DeltaTable) -> pa.Table:
    """List the files of an opened table, one row a file, as deltalake returns them."""
    actions = storage.with_retries(f"{place}/{name}", lambda: table.get_add_actions(flatten=True))
    return pa.RecordBatchReader.from_stream(actions).read_all()
