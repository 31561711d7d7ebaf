"""List the files of a lake's tables, and check them all, by shard, on whatever engine there is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

import schemas
from pipeline import storage
from pipeline.builder.index import name_of
from pipeline.builder.state import SHARD_KEY
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.errors import LakeError, NewerLakeError, NoReleaseError
from pipeline.lake.parquet_writer import Part
from pipeline.lake.snapshot import Snapshot
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.verify.faults import UNREAD, Check, DamagedError, Fault, damage_named
from pipeline.verify.parquet_file import Named
from pipeline.verify.pixels import Checked, Files, check_files

# Files smaller than this together are checked faster than workers start.
_SMALL = 2**25


@dataclass
class Tables:
    """The tables of a lake, as far as their logs can be read.

    Attributes:
        root: the lake's place.
        parts: by table, its files.
        faults: logs that do not tell them.
    """

    root: str
    parts: dict[str, Sequence[Part]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


class Found(NamedTuple):
    """What came of reading all files of a lake.

    Attributes:
        checks: are files whole, and are values what they were made from.
        unread: tables of which not every row can be read.
    """

    checks: tuple[Check, Check]
    unread: frozenset[str]

    @property
    def faults(self) -> list[Fault]:
        """All that is wrong."""
        return [fault for check in self.checks for fault in check.faults]


def newest_lake(root: str, *, sure: bool) -> Lake:
    """Open the newest release; where the releases cannot be read, the tables as they stand.

    Args:
        root: the lake's place.
        sure: whether the log of the releases is whole: where it says that there are none, there are none.

    Raises:
        NoReleaseError: the lake has no release.
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    try:
        with damage_named():
            return Lake(root)
    except DamagedError as error:
        cause = error.__cause__
        if isinstance(cause, NewerLakeError) or (sure and isinstance(cause, NoReleaseError)):
            raise cause from None
        return Lake.working(Snapshot(root))


def list_tables(lake: Lake) -> Tables:
    """List the files of a lake's tables; of those that no release names, as they stand."""
    listed = Tables(lake.root)
    for name, table in schemas.TABLES.items():
        try:
            with damage_named():
                if lake.release and table.released and lake.snapshot.open(name) is None:
                    version = lake.snapshot.version(name)
                    raise LakeError(f"{lake.root}/{name}: version {version} of the table is gone")
                listed.parts[name] = lake.snapshot.files(name)
        except DamagedError as error:
            text = str(error.__cause__).partition(" Run:")[0]
            listed.faults.append(Fault("log", text, name, f"{lake.root}/{name}/_delta_log"))
    return listed


def check_tables(tables: Tables, engine: Engine, progress: Progress) -> Found:
    """Read every file of a lake through, and hash every pixel row again.

    Args:
        tables: which files.
        engine: where to run; what is small is done here.
        progress: where to show it.

    Raises:
        StorageError: a bucket does not answer.
    """
    parts = [part for of_table in tables.parts.values() for part in of_table]
    runs = HERE if sum(part.size for part in parts) < _SMALL else engine
    progress.stage("verify", sum(part.rows for part in tables.parts.get("images", ())))
    done: list[Checked] = []
    with closing(runs.map(check_files, _together(tables))) as results:
        for checked in results:
            done.append(checked)
            progress.advance(checked.images)
    sources = _sources(tables)
    broken = [_from(fault, sources) for item in done for fault in item.broken] + tables.faults
    wrong = [_from(fault, sources) for item in done for fault in item.wrong]
    unread = {fault.table for fault in broken if fault.kind in UNREAD}
    whole = Check("every file of the release is there and whole", sum(item.files for item in done), broken)
    images = sum(item.images for item in done)
    return Found((whole, Check("pixels, ids and index keys match their hashes", images, wrong)), frozenset(unread))


def _together(tables: Tables) -> Iterator[Files]:
    """Put the files of a shard together, and what is of no shard by itself."""
    index: dict[tuple[str, ...], dict[str, Part]] = {}
    for part in tables.parts.get("index", ()):
        index.setdefault(_key(part), {})[part.partition["rule"]] = part
    rules = sorted({rule for held in index.values() for rule in held if name_of(rule) is None})
    for part in tables.parts.get("images", ()):
        yield Files(tables.root, (part,), index.pop(_key(part), {}), rules=rules if "index" in tables.parts else ())
    for held in index.values():
        yield Files(tables.root, (), held)
    others = [
        Named(tables.root, name, part)
        for name, parts in tables.parts.items()
        if name not in ("images", "index")
        for part in parts
    ]
    # Small ones: a task for each would cost more than they do.
    yield from (Files(tables.root, others=others[start : start + 64]) for start in range(0, len(others), 64))


def _key(part: Part) -> tuple[str, ...]:
    return tuple(part.partition[name] for name in SHARD_KEY)


def _sources(tables: Tables) -> Mapping[tuple[str, ...], str]:
    """By shard, its source, where the shards table can be read."""
    names = [f"{tables.root}/shards/{part.path}" for part in tables.parts.get("shards", ())]
    try:
        with damage_named():
            rows = pl.concat(map(_uris, names)).rows() if names else []
    except DamagedError:
        return {}
    return {tuple(key): uri for *key, uri in rows}


def _uris(name: str) -> pl.DataFrame:
    with storage.open_parquet(name) as opened:
        return pl.DataFrame(opened.read(columns=[*SHARD_KEY, "uri"]))


def _from(fault: Fault, sources: Mapping[tuple[str, ...], str]) -> Fault:
    if "shard" not in fault.partition:
        return fault
    return fault._replace(source=sources.get(tuple(fault.partition[name] for name in SHARD_KEY), ""))
