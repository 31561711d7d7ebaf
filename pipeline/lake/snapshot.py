"""A snapshot: the tables of a lake at fixed versions. Everything that reads a lake reads a snapshot."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable

import schemas
from pipeline import storage
from pipeline.errors import DamagedLakeError
from pipeline.lake.delta_log import FILES_KEY, DeltaLog, Metadata, file_entry, files_digest, metadata_of
from pipeline.lake.delta_tables import arrow_actions, newest_version, open_table
from pipeline.lake.parquet_writer import Part
from pipeline.storage.digests import recorded_digest

# The version of a table that does not exist.
MISSING = -1
# A column with the place of each row's file, which the log maps to partition values.
_FILE = "imagelake file"

KeepPartition = Callable[[Mapping[str, str]], bool]


class Snapshot:
    """The tables of a lake at fixed versions.

    A table without a given version is read at the version that is newest when it is first used, and stays at that
    version. What is read of the log is kept, so that a table is opened once. A snapshot can be sent to a worker.

    Args:
        place: the lake's place: a folder, or `s3://bucket/prefix`.
        versions: by table, its version; `MISSING` for a table that is read as empty.
        left_out: places of damaged files that `scan` leaves out, as a repair replaces them.
    """

    def __init__(
        self, place: str, versions: Mapping[str, int] | None = None, left_out: Collection[str] = frozenset()
    ) -> None:
        self.place = place
        self.left_out = frozenset(left_out)
        self._versions = dict(versions or {})
        # What never changes once it was read: by kind, table and version. Shared by snapshots that follow one another.
        self._cache: dict[tuple[str, str, int], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is read again: opened tables cannot be pickled."""
        return {**self.__dict__, "_cache": {}}

    def __repr__(self) -> str:
        return f"Snapshot({self.place!r}, {self._versions})"

    def with_version(self, table: str, version: int) -> Self:
        """Return the same snapshot with one table at another version."""
        return self._changed({**self._versions, table: version}, self.left_out)

    def at(self, versions: Mapping[str, int]) -> Self:
        """Return the tables of the same lake at other versions; one that is not given is at its newest."""
        return self._changed(versions, frozenset())

    def with_newest(self, *tables: str) -> Self:
        """Return the same snapshot with some tables at the versions that are newest when they are next used."""
        versions = {table: version for table, version in self._versions.items() if table not in tables}
        return self._changed(versions, self.left_out)

    def without(self, files: Collection[str]) -> Self:
        """Return the same snapshot whose scans leave out damaged files, given by their places."""
        return self._changed(self._versions, frozenset(files))

    def _changed(self, versions: Mapping[str, int], left_out: Collection[str]) -> Self:
        made = type(self)(self.place, versions, left_out)
        made._cache = self._cache  # noqa: SLF001 - its own
        return made

    @property
    def versions(self) -> dict[str, int]:
        """Versions of all tables that exist, by name."""
        found = {name: self.version(name) for name in schemas.TABLES}
        return {name: version for name, version in found.items() if version != MISSING}

    def version(self, table: str) -> int:
        """Return the version of a table; `MISSING` where it does not exist. The table is not opened.

        Raises:
            LakeError: its log cannot be listed.
            StorageError: the bucket does not answer.
        """
        if table not in self._versions:
            newest = newest_version(self.place, table)
            self._versions[table] = MISSING if newest is None else newest
        return self._versions[table]

    def open(self, table: str) -> DeltaTable | None:
        """Open a table at the snapshot's version; None where it does not exist. The caller must not change it.

        Raises:
            NewerLakeError: the table was made by a newer imagelake.
            DamagedLakeError: the table is missing, but the snapshot has a version of it.
            LakeError: the table is damaged, or its version is gone.
            StorageError: the bucket does not answer.
        """
        version = self.version(table)
        if version == MISSING:
            return None
        opened: DeltaTable | None = self.cached("table", table, lambda: open_table(self.place, table, version))
        if opened is None:
            raise DamagedLakeError(
                f"{self.place}/{table}: the table is missing, though a release has its version {version}. Run: "
                f"imagelake build {self.place} --repair"
            )
        return opened

    def take(self, table: str) -> DeltaTable | None:
        """Open a table for the caller to change it: the snapshot opens it again where it needs it again."""
        opened = self.open(table)
        self._cache.pop(("table", table, self.version(table)), None)
        return opened

    def with_table(self, table: str, opened: DeltaTable) -> Self:
        """Return the same snapshot with one table as it was opened. The caller must not change it any more."""
        self._cache["table", table, opened.version()] = opened
        return self.with_version(table, opened.version())

    def files(self, table: str, keep: KeepPartition | None = None) -> list[Part]:
        """List the files of a table; empty where it does not exist.

        Args:
            table: table name.
            keep: selects files by their partition values; None for all.

        Returns:
            The files ordered by partition; in a partition those that were committed first come first.
        """
        found: dict[int, Part] = self.cached("files", table, lambda: self._list_files(table))
        return [part for part in found.values() if keep is None or keep(part.partition)]

    def entries(self, table: str) -> dict[str, int]:
        """Return, by path of a file, its entry in the digest that the next commit records; see `file_entry`."""
        self.files(table)
        found: dict[int, Part] = self.cached("files", table, dict)
        return {part.path: entry for entry, part in found.items()}

    def file_places(self, table: str, keep: KeepPartition | None = None) -> list[str]:
        """List the places of a table's Parquet files, in the order of `files`."""
        return [f"{self.place}/{table}/{part.path}" for part in self.files(table, keep)]

    def scan(self, table: str, keep: KeepPartition | None = None) -> pl.LazyFrame:
        """Scan a table.

        Args:
            table: table name.
            keep: selects files by their partition values; None for all.

        Returns:
            Every column of the table's schema, rows in the order of `files`; no rows where the table does not exist.
        """
        paths = [part.path for part in self.files(table, keep)]
        if self.left_out:
            paths = [path for path in paths if f"{self.place}/{table}/{path}" not in self.left_out]
        return scan_places(self.place, table, paths)

    def scan_changed(self, table: str, other: "Snapshot") -> pl.LazyFrame:
        """Scan the files of a table that another snapshot of the lake does not have; see `scan`."""
        there = {part.path for part in other.files(table)}
        return self.scan_files(table, [part.path for part in self.files(table) if part.path not in there])

    def scan_files(self, table: str, paths: Sequence[str]) -> pl.LazyFrame:
        """Scan some files of a table, committed or not; see `scan_places`."""
        return scan_places(self.place, table, paths)

    def metadata(self, table: str) -> Metadata:
        """Read what the table's commit stands for; empty where the table does not exist.

        Raises:
            LakeError: the commit cannot be read.
        """
        return Metadata("") if self.version(table) == MISSING else metadata_of(self._commit_info(table))

    def history(self, table: str) -> Iterator[tuple[int, Metadata]]:
        """Read what every commit of a table stands for, newest first, each with its version."""
        for version in range(self.version(table), -1, -1):
            yield version, self.with_version(table, version).metadata(table)

    def commit_time(self, table: str) -> int:
        """Return when the table's commit was made: milliseconds since 1970; 0 where it is not recorded."""
        return DeltaLog(self.place, table).commit_time(self.version(table))

    def cached(self, kind: str, table: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - values of several kinds
        """Return what `make` returned for this version of a table, now or before.

        Args:
            kind: what is kept; another kind is another value.
            table: table name.
            make: reads what depends on the version alone.
        """
        key = (kind, table, self.version(table))
        if self._cache.get(key) is None:
            self._cache[key] = make()
        return self._cache[key]

    def _list_files(self, table: str) -> dict[int, Part]:
        """List the files of a table by their entries, and compare them with the digest that the commit records."""
        opened = self.open(table)
        if opened is None:
            return {}
        keys = schemas.TABLES[table].partition_by
        with storage.damage_errors(f"{self.place}/{table}"):
            rows = arrow_actions(self.place, table, opened).to_pylist()
            found = dict(entry_and_part(row, keys) for row in sorted(rows, key=_partition_and_time))
        info = self._commit_info(table)
        if FILES_KEY not in info and not any(recorded_digest(part.path) for part in found.values()):
            return found  # of a lake before 0.6
        if info.get(FILES_KEY) != files_digest(found):
            raise DamagedLakeError(
                f"{self.place}/{table}: the log is damaged: its files are not those that its newest commit records. "
                f"Repair it with: imagelake build {self.place} --repair"
            )
        return found

    def _commit_info(self, table: str) -> dict[str, Any]:
        version = self.version(table)
        found: dict[str, Any] = self.cached("commit", table, lambda: DeltaLog(self.place, table).commit_info(version))
        return found


def scan_places(place: str, table: str, paths: Sequence[str]) -> pl.LazyFrame:
    """Scan Parquet files of a table; no rows where there are none.

    Args:
        place: the lake's place.
        table: table name.
        paths: relative to the table, as `Part.path`.

    Returns:
        Every column of the table's schema, rows in the order of the files.

    Raises:
        DamagedLakeError: a file is missing, or this user may not read it. In a bucket, only collecting the rows fails.
    """
    declared = schemas.TABLES[table]
    if not paths:
        return pl.Schema(declared.schema).to_frame().lazy()
    keys = declared.partition_by
    # Polars skips files by the names of their folders, but takes every `key=value` above the lake for a partition too.
    by_folders = bool(keys) and not has_partition_names(place)
    by_files = bool(keys) and not by_folders
    files = [f"{place}/{table}/{path}" for path in paths]
    with storage.damage_errors(f"{place}/{table}"):
        scanned = storage.scan_parquet(
            files,
            schema=pl.Schema(declared.file_schema),
            hive_partitioning=by_folders,
            hive_schema=dict.fromkeys(keys, pl.String()) if by_folders else None,
            include_file_paths=_FILE if by_files else None,
            # Files of an older imagelake lack the columns that were added since.
            missing_columns="insert",
        )
    if by_files:
        values = [partition_values(path) for path in paths]
        scanned = scanned.with_columns(
            # Fails if a file is not among those listed.
            pl.col(_FILE).replace_strict(files, [of_file[key] for of_file in values], return_dtype=pl.String).alias(key)
            for key in keys
        )
    return scanned.select(declared.schema.names)


def has_partition_names(place: str) -> bool:
    """Return whether a folder of a place, such as `split=a`, looks like a partition to Polars and DuckDB."""
    return "=" in place


def partition_values(path: str) -> dict[str, str]:
    """Return the partition values of a file, which the names of its folders hold as the log does.

    Args:
        path: relative to the table.
    """
    return {key: unquote(value) for key, _, value in (name.partition("=") for name in path.split("/")[:-1])}


def entry_and_part(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[int, Part]:
    """Return a file of a table and its entry, from a row of `arrow_actions`."""
    values = {key: row[f"partition.{key}"] for key in keys}
    part = Part(unquote(row["path"]), row["size_bytes"], row["num_records"], values)
    return file_entry(part.path, part.size, part.rows, row["modification_time"], list(values.values())), part


def _partition_and_time(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return unquote(row["path"]).rpartition("/")[0], row["modification_time"], row["path"]
