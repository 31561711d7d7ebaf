"""Commit to a lake under its lock: the only place where tables change.

A step of a build reads a snapshot and returns the commits to make. A transaction makes them, one Delta commit a table.
Every commit carries, as metadata, the stage that made it, the versions of the tables that it read, and the fingerprint
of every unit (a rule, a split, a run) that the table now holds: all that a later build needs to find what is out of
date.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

import schemas
from pipeline import storage
from pipeline.errors import LakeError, one_line
from pipeline.lake.delta_log import TOKEN_KEY, DeltaLog, Metadata, file_entry
from pipeline.lake.delta_tables import add_new_columns, create_table
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import KeepPartition, Snapshot
from pipeline.lake.writers.lock import hold_lock


def no_files(partition: Mapping[str, str]) -> bool:  # noqa: ARG001 - a selection by partition values
    """Select no file of a table."""
    return False


def all_files(partition: Mapping[str, str]) -> bool:  # noqa: ARG001 - a selection by partition values
    """Select every file of a table."""
    return True


@dataclass(frozen=True)
class Commit:
    """A commit to make: files of one table that are replaced together.

    Attributes:
        table: table name; the table is created if it is missing.
        add: files that were written.
        metadata: what the commit stands for.
        remove: selects the files that go by their partition values.
        keep: paths of files that stay although `remove` selects them.
    """

    table: str
    add: Sequence[Part]
    metadata: Metadata
    remove: KeepPartition = no_files
    keep: Collection[str] = frozenset()


class Transaction:
    """The right to commit to a lake, for as long as its lock is held. Made by `transaction`.

    Args:
        writer: writes the files of the tables.
        check_lock: raises LakeError where the lock is lost.
    """

    def __init__(self, writer: Writer, check_lock: Callable[[], None]) -> None:
        self.writer = writer
        self.place = writer.place
        self._check_lock = check_lock
        self._snapshot = Snapshot(writer.place)

    @property
    def snapshot(self) -> Snapshot:
        """The tables as they stand now. A commit makes another snapshot; this one stays as it is.

        Raises:
            LakeError: the lock is lost.
        """
        self._check_lock()
        return self._snapshot

    def reopen(self) -> None:
        """Forget what was read of the tables, after their logs were replaced."""
        self._snapshot = Snapshot(self.place, left_out=self._snapshot.left_out)

    def leave_out(self, files: Collection[str]) -> None:
        """Leave damaged files out of all scans from here on, given by their places."""
        self._snapshot = self._snapshot.without(files)

    def commit(self, change: Commit) -> None:
        """Replace files of a table.

        Raises:
            LakeError: another writer changed the table since it was read, or the lock is lost; nothing was committed.
            DiskFullError: no space is left; nothing was committed.
            StorageError: the bucket does not answer.
        """
        name = change.table
        with storage.disk_full_errors(self.place):
            gone = [part for part in self.snapshot.files(name, change.remove) if part.path not in change.keep]
            table = self._writable(name)
            now = int(time.time() * 1000)
            actions: list[AddAction | RemoveAction] = [_add(part, now) for part in change.add]
            actions += [_remove(part, now) for part in gone]
            entries = self._snapshot.entries(name)
            files = sum(entries.values()) - sum(entries[part.path] for part in gone)
            files += sum(_entry(name, part, now) for part in change.add)
            try:
                self._make_version(name, table, change.metadata, files, partial(_transact, table, name, actions))
            except DeltaError as error:
                raise LakeError(
                    f"{self.place}/{name}: the commit was refused, as another writer was faster or the table is "
                    f"damaged ({one_line(error, 300)}). Nothing of this build is visible; build again."
                ) from error

    def restore(self, name: str, version: int) -> None:
        """Commit a table's older version as its newest, with the metadata of that version.

        Raises:
            LakeError: a file of that version is gone.
            DiskFullError: no space is left.
            StorageError: the bucket does not answer.
        """
        older = self.snapshot.with_version(name, version)
        files = sum(older.entries(name).values())
        try:
            with storage.disk_full_errors(self.place):
                table = self._writable(name)
                self._make_version(
                    name,
                    table,
                    older.metadata(name),
                    files,
                    lambda properties: table.restore(version, commit_properties=properties),
                )
        except DeltaError as error:
            raise LakeError(
                f"{self.place}/{name}: version {version} cannot be restored ({one_line(error, 300)}). "
                f"Run: imagelake verify {self.place}"
            ) from error

    def ensure_table(self, name: str) -> None:
        """Create a table where it is missing, and add the columns that one of an older imagelake lacks.

        Raises:
            DiskFullError: no space is left.
            LakeError: another writer has created it, and committed to it, since it was found to be missing.
        """
        with storage.disk_full_errors(self.place):
            self._moved(name, self._writable(name))

    def _writable(self, name: str) -> DeltaTable:
        """Take an opened table out of the snapshot, to change it."""
        snapshot = self.snapshot
        # Where an older snapshot needs the table again, it opens it again.
        table = snapshot.take(name)
        if table is None and name != "releases" and snapshot.open("releases") is None:
            # First of all tables: where others exist without it, it is lost.
            self.ensure_table("releases")
            snapshot = self.snapshot
        if table is None:
            table = create_table(self.place, name)
            # A new table has one version. Where it has more, another writer was faster.
            if table.version() != 0:
                raise LakeError(
                    f"{self.place}/{name}: another writer created the table while this build held the lake. Nothing "
                    "of this build is visible; build again."
                )
        add_new_columns(
            self.place, name, table, lambda: self._properties(name, None, sum(snapshot.entries(name).values()))
        )
        self._snapshot = snapshot.with_version(name, table.version())
        return table

    def _make_version(
        self,
        name: str,
        table: DeltaTable,
        metadata: Metadata,
        files: int,
        change: Callable[[CommitProperties], object],
    ) -> None:
        """Make the next version of a table, or none: another writer may have changed what this one is made of.

        Where the reply of a bucket is lost, the commit may have been made. A unique token in each commit identifies it,
        and a retry of the same version can make it only once.

        Raises:
            DeltaError: another writer was faster, or the commit is not possible.
            StorageError: the bucket does not answer.
        """
        location, version = f"{self.place}/{name}", table.version() + 1
        properties = self._properties(name, metadata, files)
        token = (properties.custom_metadata or {})[TOKEN_KEY]

        def attempt() -> None:
            try:
                change(properties)
            except DeltaError:
                in_bucket = storage.is_bucket(self.place)
                if not in_bucket or DeltaLog(self.place, name).commit_info(version).get(TOKEN_KEY) != token:
                    raise

        self._check_lock()
        storage.with_retries(location, attempt)
        storage.with_retries(location, table.update_incremental)
        self._moved(name, table)

    def _properties(self, name: str, metadata: Metadata | None, files: int) -> CommitProperties:
        recorded = DeltaLog(self.place, name).next_commit_info(metadata, files, uuid.uuid4().hex)
        return CommitProperties(custom_metadata=recorded, max_commit_retries=0)

    def _moved(self, name: str, table: DeltaTable) -> None:
        self._snapshot = self._snapshot.with_table(name, table)


@contextmanager
def transaction(writer: Writer, on_wait: Callable[[], None] | None = None) -> Iterator[Transaction]:
    """Hold a lake's lock and commit to its tables. Readers never wait.

    Args:
        writer: writes the files of the tables; see `pipeline.lake.writers.heartbeats.registered`.
        on_wait: called once where another writer holds the lock, which is then waited for; None for not to wait.

    Raises:
        BusyLakeError: another writer holds the lock, and `on_wait` is None.
        LakeError: the place cannot be written to.
        StorageError: the bucket does not answer.
    """
    with hold_lock(writer.place, on_wait) as check_lock:
        yield Transaction(writer, check_lock)


def _transact(
    table: DeltaTable, name: str, actions: Sequence[AddAction | RemoveAction], properties: CommitProperties
) -> None:
    table.create_write_transaction(
        list(actions),
        mode="append",
        schema=table.schema(),
        partition_by=list(schemas.TABLES[name].partition_by),
        commit_properties=properties,
    )


def _entry(table: str, part: Part, now: int) -> int:
    values = [part.partition[key] for key in schemas.TABLES[table].partition_by]
    return file_entry(part.path, part.size, part.rows, now, values)


def _add(part: Part, now: int) -> AddAction:
    stats = json.dumps({"numRecords": part.rows})
    return AddAction(part.path, part.size, dict(part.partition), now, data_change=True, stats=stats)


def _remove(part: Part, now: int) -> RemoveAction:
    return RemoveAction(
        part.path, data_change=True, deletion_timestamp=now, size=part.size, partition_values=dict(part.partition)
    )
