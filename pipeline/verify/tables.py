"""Check all files of a lake's tables in the workers of an engine, a shard at a time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

import schemas
from pipeline import storage
from pipeline.addresses import identity
from pipeline.builder.index import embedding_of
from pipeline.builder.state import SHARD_KEY
from pipeline.dedup.rules import has_current_keys
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.errors import LakeError, NewerLakeError, NoReleaseError
from pipeline.lake.parquet_writer import Part
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.verify.faults import UNREADABLE_KINDS, Check, DamagedError, Fault, damage_errors
from pipeline.verify.parquet_file import TableFile
from pipeline.verify.pixels import FileGroup, GroupResult, check_files

# Below this total size in bytes, checking takes less time than starting workers.
_SMALL = 2**25
# By whether they are hashed.
_REFERENCES = ("referenced files are there, with their size", "referenced files are there, with their bytes")
# Files of small tables in one task.
_FILES_A_TASK = 64


@dataclass
class TableFiles:
    """The files of a lake's tables.

    Attributes:
        root: the lake's place.
        parts: by table, its files.
        faults: the logs that cannot be read; their tables are not in `parts`.
        keys: what the metadata of the index record of the versions of its keys; None if they record none.
    """

    root: str
    parts: dict[str, Sequence[Part]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    keys: Mapping[str, Any] | None = None


class TablesResult(NamedTuple):
    """The result of checking all files of a lake.

    Attributes:
        checks: whether files are whole, whether values match what they were made from, and, in a lake that references
            its originals, whether the source files are there.
        unreadable: tables with rows that cannot be read.
    """

    checks: tuple[Check, ...]
    unreadable: frozenset[str]

    @property
    def faults(self) -> list[Fault]:
        """The faults of all checks."""
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
                if name in lake.versions and table.released and lake.snapshot.open(name) is None:
                    version = lake.snapshot.version(name)
                    raise LakeError(f"{lake.root}/{name}: version {version} of the table is gone")
                listed.parts[name] = lake.snapshot.files(name)
                if name == "index":
                    listed.keys = lake.snapshot.metadata(name).units.get("keys")
        except DamagedError as error:
            text = str(error.__cause__).partition(" Run:")[0]
            listed.faults.append(Fault("log", text, name, f"{lake.root}/{name}/_delta_log"))
    return listed


def check_tables(tables: TableFiles, engine: Engine, progress: Progress, *, read_references: bool) -> TablesResult:
    """Read every file of a lake, and hash every pixel row again.

    Args:
        tables: the files.
        engine: where to run; small lakes are checked in this process.
        progress: shows the progress.
        read_references: whether referenced files are hashed, too; else only their sizes are compared.

    Raises:
        StorageError: a bucket does not answer.
    """
    parts = [part for of_table in tables.parts.values() for part in of_table]
    used = HERE if sum(part.size for part in parts) < _SMALL else engine
    progress.stage("verify", sum(part.rows for part in tables.parts.get("images", ())))
    done: list[GroupResult] = []
    with closing(used.map(check_files, _groups(tables, read_references=read_references))) as results:
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
    checks = [whole, values]
    if references := sum(item.references for item in done):
        outside = [_with_source(fault, sources) for item in done for fault in item.outside]
        checks.append(Check(_REFERENCES[read_references], references, outside))
    return TablesResult(tuple(checks), frozenset(unreadable))


def _groups(tables: TableFiles, *, read_references: bool) -> Iterator[FileGroup]:
    """Group the files of each shard, and the files of the other tables by number."""
    index: dict[tuple[str, ...], dict[str, Part]] = {}
    for part in tables.parts.get("index", ()):
        index.setdefault(_key(part), {})[part.partition["rule"]] = part
    # Keys that an older version made cannot be made again. The next build replaces them.
    rules = sorted(
        rule
        for rule in {rule for parts in index.values() for rule in parts}
        if embedding_of(rule) is None and has_current_keys(rule, tables.keys)
    )
    originals: dict[tuple[str, ...], list[Part]] = {}
    for part in tables.parts.get("originals", ()):
        originals.setdefault(_key(part), []).append(part)
    for part in tables.parts.get("images", ()):
        yield FileGroup(
            tables.root,
            (part,),
            index.pop(_key(part), {}),
            originals=originals.pop(_key(part), ()),
            rules=rules if "index" in tables.parts else (),
            read_references=read_references,
        )
    for left in originals.values():
        yield FileGroup(tables.root, originals=left)
    for parts in index.values():
        yield FileGroup(tables.root, (), parts)
    others = [
        TableFile(tables.root, name, part)
        for name, of_table in tables.parts.items()
        if name not in ("images", "originals", "index")
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
