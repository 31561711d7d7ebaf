"""Functions that take a lake's place: each opens a snapshot, or holds a transaction, for one call.

Functions that commit also accept a transaction, for tests that already hold the lock.
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from pipeline.lake import releases
from pipeline.lake.delta_log import Metadata
from pipeline.lake.duckdb_views import connect
from pipeline.lake.parquet_writer import WRITER_LETTERS, Part, PartWriter, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, Transaction, transaction
from pipeline.lake_handle import Lake


@contextmanager
def shared_connections() -> Iterator[None]:
    """Let queries of the same snapshot share a DuckDB connection: they cannot change it, and opening takes 0.2 s."""
    opened: dict[tuple[str, str], duckdb.DuckDBPyConnection] = {}

    def connect_once(snapshot: Snapshot, *, ids: Literal["bytes", "hex"] = "bytes") -> duckdb.DuckDBPyConnection:
        if (key := (repr(snapshot), ids)) not in opened:
            opened[key] = connect(snapshot, ids=ids)
        return opened[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.lake_handle.connect", connect_once)
        yield


def writer_of(root: str) -> Writer:
    """Make a writer that has no heartbeat."""
    return Writer(root, uuid.uuid4().hex[:WRITER_LETTERS])


Place = str | Transaction


@contextmanager
def writing(root: Place, on_wait: Callable[[], None] | None = None) -> Iterator[Transaction]:
    if isinstance(root, Transaction):
        yield root
        return
    with transaction(writer_of(root), on_wait) as lake:
        yield lake


def without_lock(root: str) -> Transaction:
    """Make a transaction that does not hold the lock, as after another writer took it over."""
    return Transaction(writer_of(root), lambda: None)


def at(root: str, table: str, version: int | None = None) -> Snapshot:
    return Snapshot(root) if version is None else Snapshot(root, {table: version})


def versions(root: str) -> dict[str, int]:
    return Snapshot(root).versions


def files(root: str, table: str, version: int | None = None) -> list[Part]:
    return at(root, table, version).files(table)


def file_names(root: str, table: str, version: int | None = None) -> list[str]:
    return at(root, table, version).file_places(table)


def read_meta(root: str, table: str, version: int | None = None) -> Metadata:
    return at(root, table, version).metadata(table)


def scan_table(root: str, table: str, version: int | None = None) -> pl.LazyFrame:
    return at(root, table, version).scan(table)


@contextmanager
def open_part(root: str, table: str, partition: Mapping[str, str]) -> Iterator[PartWriter]:
    with writer_of(root).open(table, partition) as part:
        yield part


def write_part(root: str, table: str, partition: Mapping[str, str], rows: pa.Table) -> Part | None:
    return next(iter(writer_of(root).write(table, rows, partition)), None)


def commit(
    root: Place, table: str, add: Sequence[Part], remove: Callable[[Mapping[str, str]], bool], metadata: Metadata
) -> int:
    with writing(root) as lake:
        lake.commit(Commit(table, add, metadata, remove))
        return lake.snapshot.version(table)


def restore(root: Place, table: str, version: int) -> None:
    with writing(root) as lake:
        lake.restore(table, version)


def publish(root: Place, digest: str, note: str, recipe: Mapping[str, Any]) -> int:
    with writing(root) as lake:
        return releases.publish(lake, digest, note, recipe)


def give_up(root: Place, numbers: Collection[int]) -> None:
    with writing(root) as lake:
        releases.delete_releases(lake, numbers)


def register_export(root: Place, row: Mapping[str, Any]) -> None:
    with writing(root) as lake:
        releases.register_export(lake, row)


def list_releases(root: str) -> pl.DataFrame:
    return releases.list_releases(Snapshot(root))


def newest(root: str) -> int:
    return releases.newest_release(Snapshot(root))


def find_pins(root: str, kept: Collection[int]) -> dict[int, list[str]]:
    return releases.find_pins(Snapshot(root), kept)


def rows_by_content(root: str, table: str, release: int | None = None) -> pl.DataFrame:
    """Read a table in a fixed order, without what depends on how the lake grew: its shards."""
    rows = Lake(root, release).scan(table).collect()
    if table == "shards":
        # Without the fingerprints, as the sum of those of several shards is none of them.
        return rows.group_by("dataset", "split", "uri", "decoder").agg(pl.sum("rows", "rejects")).sort(pl.all())
    rows = rows.drop("shard", strict=False)
    return rows.sort(rows.columns)
