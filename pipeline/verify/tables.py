"""Check the log of every table, and all files of the tables in the workers of an engine, a shard at a time.

A log is right if all its commits exist, can be read, and hold what imagelake writes.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import polars as pl

import schemas
from pipeline import storage
from pipeline.addresses import identity
from pipeline.builder.index import embedding_of
from pipeline.builder.state import SHARD_KEY
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.errors import LakeError, NewerLakeError, NoReleaseError
from pipeline.lake.delta_log import METADATA_KEY, DeltaLog, read_actions
from pipeline.lake.delta_tables import open_table
from pipeline.lake.parquet_writer import Part
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.verify.faults import UNREADABLE_KINDS, Check, DamagedError, Fault, damage_errors
from pipeline.verify.parquet_file import TableFile
from pipeline.verify.pixels import FileGroup, GroupResult, check_files

# Below this total size in bytes, checking takes less time than starting workers.
_SMALL = 2**25
# Files of small tables in one task.
_FILES_A_TASK = 64


@dataclass
class TableFiles:
    """The files of a lake's tables.

    Attributes:
        root: the lake's place.
        parts: by table, its files.
        faults: the logs that cannot be read; their tables are not in `parts`.
    """

    root: str
    parts: dict[str, Sequence[Part]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


class TablesResult(NamedTuple):
    """The result of checking all files of a lake.

    Attributes:
        checks: whether files are whole, and whether values match what they were made from.
        unreadable: tables with rows that cannot be read.
    """

    checks: tuple[Check, Check]
    unreadable: frozenset[str]

    @property
    def faults(self) -> list[Fault]:
        """The faults of both checks."""
        return [fault for check in self.checks for fault in check.faults]


def newest_lake(root: str, *, log_is_whole: bool) -> Lake:
    """Open the newest release; if the releases cannot be read, the newest version of every table.

    Args:
        root: the lake's place.
        log_is_whole: whether the log of the releases is whole, so that a lake without a release is an error.

    Raises:
        NoReleaseError: the lake has no release.
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    try:
        with damage_errors():
            return Lake(root)
    except DamagedError as error:
        cause = error.__cause__
        if isinstance(cause, NewerLakeError) or (log_is_whole and isinstance(cause, NoReleaseError)):
            raise cause from None
        return Lake.working(Snapshot(root))


def list_tables(lake: Lake) -> TableFiles:
    """List the files of a lake's tables; those of tables that belong to no release, at their newest version.

    Raises:
        StorageError: a bucket does not answer.
    """
    listed = TableFiles(lake.root)
    for name, table in schemas.TABLES.items():
        try:
            with damage_errors():
                if lake.release and table.released and lake.snapshot.open(name) is None:
                    version = lake.snapshot.version(name)
                    raise LakeError(f"{lake.root}/{name}: version {version} of the table is gone")
                listed.parts[name] = lake.snapshot.files(name)
        except DamagedError as error:
            text = str(error.__cause__).partition(" Run:")[0]
            listed.faults.append(Fault("log", text, name, f"{lake.root}/{name}/_delta_log"))
    return listed


def check_tables(tables: TableFiles, engine: Engine, progress: Progress) -> TablesResult:
    """Read every file of a lake, and hash every pixel row again.

    Args:
        tables: the files.
        engine: where to run; small lakes are checked in this process.
        progress: shows the progress.

    Raises:
        StorageError: a bucket does not answer.
    """
    parts = [part for of_table in tables.parts.values() for part in of_table]
    used = HERE if sum(part.size for part in parts) < _SMALL else engine
    progress.stage("verify", sum(part.rows for part in tables.parts.get("images", ())))
    done: list[GroupResult] = []
    with closing(used.map(check_files, _groups(tables))) as results:
        for result in results:
            done.append(result)
            progress.advance(result.images)
    sources = _sources(tables)
    broken = [_with_source(fault, sources) for item in done for fault in item.broken] + tables.faults
    wrong = [_with_source(fault, sources) for item in done for fault in item.wrong]
    unreadable = {fault.table for fault in broken if fault.kind in UNREADABLE_KINDS}
    whole = Check("every file of the release is there and whole", sum(item.files for item in done), broken)
    images = sum(item.images for item in done)
    values = Check("pixels, ids and index keys match their hashes", images, wrong)
    return TablesResult((whole, values), frozenset(unreadable))


def _groups(tables: TableFiles) -> Iterator[FileGroup]:
    """Group the files of each shard, and the files of the other tables by number."""
    index: dict[tuple[str, ...], dict[str, Part]] = {}
    for part in tables.parts.get("index", ()):
        index.setdefault(_key(part), {})[part.partition["rule"]] = part
    rules = sorted({rule for parts in index.values() for rule in parts if embedding_of(rule) is None})
    for part in tables.parts.get("images", ()):
        yield FileGroup(tables.root, (part,), index.pop(_key(part), {}), rules=rules if "index" in tables.parts else ())
    for parts in index.values():
        yield FileGroup(tables.root, (), parts)
    others = [
        TableFile(tables.root, name, part)
        for name, of_table in tables.parts.items()
        if name not in ("images", "index")
        for part in of_table
    ]
    # These files are small: a task for each would take longer than the check.
    for start in range(0, len(others), _FILES_A_TASK):
        yield FileGroup(tables.root, others=others[start : start + _FILES_A_TASK])


def _key(part: Part) -> tuple[str, ...]:
    return tuple(part.partition[name] for name in SHARD_KEY)


def _sources(tables: TableFiles) -> Mapping[tuple[str, ...], str]:
    """Return, by shard, its source; empty if the shards table cannot be read."""
    names = [f"{tables.root}/shards/{part.path}" for part in tables.parts.get("shards", ())]
    try:
        with damage_errors():
            rows = pl.concat(map(_read_uris, names)).rows() if names else []
    except DamagedError:
        return {}
    return {tuple(key): identity(uri) for *key, uri in rows}


def _read_uris(name: str) -> pl.DataFrame:
    with storage.open_parquet(name) as opened:
        return pl.DataFrame(opened.read(columns=[*SHARD_KEY, "uri"]))


def _with_source(fault: Fault, sources: Mapping[tuple[str, ...], str]) -> Fault:
    if "shard" not in fault.partition:
        return fault
    return fault._replace(source=sources.get(tuple(fault.partition[name] for name in SHARD_KEY), ""))


_CHECKPOINT = re.compile(r"\d{20}\.checkpoint.*\.parquet|_last_checkpoint")
_ACTIONS = {"add", "remove", "metaData", "protocol", "commitInfo", "txn", "cdc", "domainMetadata"}


def check_logs(snapshot: Snapshot) -> Check:
    """Read every commit of every table.

    Args:
        snapshot: of the lake; the check does not depend on its versions.

    Raises:
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    count, faults = 0, list[Fault]()
    for table in schemas.TABLES:
        log = DeltaLog(snapshot.place, table)
        files = list(storage.list_files(log.folder))
        count += len(files)
        faults += _check_files(log, files)
        faults += _check_opens(log)
    return Check("every commit of every table is there and whole", count, faults)


def _check_files(log: DeltaLog, files: list[str]) -> Iterator[Fault]:
    table, versions = log.table, log.versions()
    for version in log.missing_versions():
        yield _fault(table, log.file(version), "is missing")
    for version in versions:
        file = log.file(version)
        try:
            with damage_errors():
                _check_commit(table, storage.read(file))
        except DamagedError as error:
            yield _fault(table, file, str(error))
    for name in files:
        if _CHECKPOINT.fullmatch(name) and not _is_readable(f"{log.folder}/{name}"):
            text = "cannot be read. It only repeats the commits: delete it, and _last_checkpoint beside it"
            yield Fault("log", text, table, f"{log.folder}/{name}")


def _check_opens(log: DeltaLog) -> Iterator[Fault]:
    table = log.table
    try:
        opened = open_table(log.place, table)
    except LakeError as error:
        yield _fault(table, log.folder, str(error).partition(" Run:")[0])
        return
    if opened is None:
        if log.versions():
            yield _fault(table, log.folder, "has commits, but no table can be opened")
        elif DeltaLog(log.place, "releases").has_changes():
            yield _fault(table, log.folder, "the table is missing")
        return
    unknown = {column.name for column in opened.schema().fields} - set(schemas.TABLES[table].schema.names)
    if unknown:
        yield _fault(table, log.folder, f"names columns that the table does not have: {', '.join(sorted(unknown))}")


def _fault(table: str, file: str, text: str) -> Fault:
    advice = (
        "Releases that need this version of the table cannot be read. Put it back from a copy of the lake; without a "
        "copy, `imagelake build --repair` makes a table that cannot be opened again from the sources"
    )
    return Fault("log", f"{text}. {advice}", table, file)


def _check_commit(table: str, content: bytes) -> None:
    """Check that a file is a commit as imagelake writes it.

    Raises:
        ValueError: it is not (or LookupError, TypeError or AttributeError).
    """
    actions = read_actions(content)
    if not actions or not content.endswith((b"}", b"}\n")):
        raise ValueError("it is empty or cut off")
    for action in actions:
        if len(action) != 1 or not _ACTIONS.issuperset(action):
            raise ValueError(f"unknown action: {', '.join(action)[:50]}")
        if "add" in action:
            _check_add(table, action["add"])
        metadata = action.get("commitInfo", {}).get(METADATA_KEY)
        if metadata is not None and not {"stage", "units", "inputs"}.issuperset(json.loads(metadata)):
            raise ValueError("its imagelake metadata is not valid")


def _check_add(table: str, add: Mapping[str, Any]) -> None:
    values = {key: add["partitionValues"][key] for key in schemas.TABLES[table].partition_by}
    folder = "/".join(f"{key}={quote(value, safe='')}" for key, value in values.items())
    if unquote(add["path"]).rpartition("/")[0] != folder:
        raise ValueError(f"the file {add['path']} is not in the partition that the commit records for it")
    if not isinstance(json.loads(add["stats"])["numRecords"], int) or not isinstance(add["size"], int):
        raise TypeError("the number of rows or bytes is not a number")


def _is_readable(file: str) -> bool:
    try:
        with damage_errors():
            if file.endswith(".parquet"):
                with storage.open_parquet(file) as opened:
                    opened.read()
            else:
                json.loads(storage.read(file))
    except DamagedError:
        return False
    return True
