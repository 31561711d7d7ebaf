"""Make files part of a table: one Delta transaction, the only moment at which the table changes.

Every commit carries, as custom metadata, which stage made it, from which versions of which tables, and the
fingerprint of every unit (a rule, a split, a run) that the table now holds. That is all a later build needs to know
what is up to date.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

import schemas
from pipeline import storage
from pipeline.errors import LakeError
from pipeline.lake.parquet_writer import Part
from pipeline.lake.tables import ensure_table, once, one_line, open_table
from pipeline.lake.writers.lock import seen

# In a commit's metadata: a word that no other commit has.
_MARK = "imagelake.commit"


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


def versions(root: str) -> dict[str, int]:
    """Newest version of every table that exists."""
    found = {name: open_table(root, name) for name in schemas.TABLES}
    return {name: table.version() for name, table in found.items() if table is not None}


def files(root: str, name: str, version: int | None = None) -> list[Part]:
    """List the files of a table; empty where there is no table.

    Ordered by partition; of one partition those that were committed first come first.
    """
    table = open_table(root, name, version)
    if table is None:
        return []
    fixed = version is not None
    return once(root, f"files of {name} at {table.version()}", lambda: _listed(root, name, table), fixed=fixed)


def _listed(root: str, name: str, table: DeltaTable) -> list[Part]:
    actions = pa.table(storage.ask(f"{root}/{name}", lambda: table.get_add_actions(flatten=True)))
    keys = schemas.TABLES[name].partition_by
    rows = sorted(actions.to_pylist(), key=_place_and_time)
    return [
        Part(unquote(row["path"]), row["size_bytes"], row["num_records"], {k: row[f"partition.{k}"] for k in keys})
        for row in rows
    ]


def _place_and_time(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return unquote(row["path"]).rpartition("/")[0], row["modification_time"], row["path"]


def read_meta(root: str, name: str, version: int | None = None) -> Meta:
    """Read what the newest or a given commit of a table stands for; empty where there is none."""
    table = open_table(root, name, version)
    return Meta("") if table is None else _meta(root, name, table.version())


def metas(root: str, name: str) -> Iterator[tuple[int, Meta]]:
    """Read what every commit of a table stands for, newest first; nothing where there is no table."""
    table = open_table(root, name)
    newest = -1 if table is None else table.version()
    for version in range(newest, -1, -1):
        yield version, _meta(root, name, version)


def _meta(root: str, name: str, version: int) -> Meta:
    told = f"what was told with {name} at {version}"
    return once(root, told, lambda: Meta(**_read_told(root, name, version)), fixed=True)


def _read_told(root: str, name: str, version: int) -> dict[str, Any]:
    """Read what was told with a commit; of one that only made the table or widened it, nothing but an empty stage."""
    told: dict[str, Any] = json.loads(_commit_info(root, name, version).get("imagelake", '{"stage": ""}'))
    return told


def commit_time(root: str, name: str, version: int) -> int:
    """Tell when a commit was made, by the clock of who made it: milliseconds since 1970; 0 where it does not say."""
    return int(_commit_info(root, name, version).get("timestamp", 0))


def _commit_info(root: str, name: str, version: int) -> dict[str, Any]:
    file = f"{root}/{name}/_delta_log/{version:020}.json"
    try:
        lines = storage.read(file).splitlines()
        told = [json.loads(line)["commitInfo"] for line in lines if line.startswith(b'{"commitInfo"')]
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LakeError(f"{file}: cannot be read ({one_line(error)}). Run: imagelake verify {root}") from error
    return told[0] if told else {}


def restore(root: str, name: str, version: int) -> None:
    """Commit a table's older version as its newest, with all that it stood for.

    Raises:
        LakeError: a file of that version is gone.
        DiskFullError: no space is left.
        StorageError: the bucket does not answer.
    """
    table = ensure_table(root, name)
    told = asdict(read_meta(root, name, version))
    try:
        with storage.full_disk_named(root):
            _make(root, name, table, told, lambda properties: table.restore(version, commit_properties=properties))
    except DeltaError as error:
        raise LakeError(
            f"{root}/{name}: version {version} cannot be restored ({one_line(error)}). Run: imagelake verify {root}"
        ) from error


def commit(  # noqa: PLR0913 - what a commit is made of
    root: str,
    name: str,
    add: Sequence[Part],
    remove: Callable[[Mapping[str, str]], bool],
    meta: Meta,
    *,
    keep: Collection[str] = (),
) -> int:
    """Replace files of a table in one transaction.

    Args:
        root: the lake's place.
        name: table name; the table is made if it is missing.
        add: files that `parts` wrote.
        remove: tells from a file's partition values whether it goes.
        meta: what the commit stands for.
        keep: paths of files that stay all the same.

    Returns:
        The table's new version.

    Raises:
        LakeError: another writer changed the same files meanwhile; nothing was committed here.
        DiskFullError: no space is left; nothing was committed.
    """
    with storage.full_disk_named(root):
        table = ensure_table(root, name)
        now = int(time.time() * 1000)
        old = [part for part in files(root, name) if remove(part.partition) and part.path not in keep]
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
        try:
            _make(root, name, table, asdict(meta), partial(_transact, table, name, actions))
        except DeltaError as error:
            raise LakeError(f"{root}/{name}: the commit was refused ({one_line(error)}). Build again.") from error
    return table.version()


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


def _make(
    root: str, name: str, table: DeltaTable, told: Mapping[str, Any], change: Callable[[CommitProperties], object]
) -> None:
    """Make the next version of a table, or none: whoever was faster may have changed what this one is made of.

    Where the answer of a bucket is lost, the commit may have been made all the same. It carries a word that no other
    commit has: that tells, and trying the same version again can make it only once.

    Raises:
        DeltaError: somebody was faster, or the commit is not possible.
        StorageError: the bucket does not answer.
    """
    place, version, mark = f"{root}/{name}", table.version() + 1, uuid.uuid4().hex
    properties = CommitProperties(
        custom_metadata={"imagelake": json.dumps(told, sort_keys=True), _MARK: mark}, max_commit_retries=0
    )

    def attempt() -> None:
        try:
            change(properties)
        except DeltaError:
            if not storage.is_bucket(root) or _commit_info(root, name, version).get(_MARK) != mark:
                raise

    storage.ask(place, attempt)
    storage.ask(place, table.update_incremental)
    seen(root, name, table.version(), made=True)


def _add(part: Part, now: int) -> AddAction:
    # Delta's log spells paths percent-encoded, on top of the encoding that is in the folder's own name.
    stats = json.dumps({"numRecords": part.rows})
    return AddAction(part.path, part.size, dict(part.partition), now, data_change=True, stats=stats)
