"""Check the log of every table: all commits exist, hold what imagelake writes, and have the bytes that were written.

The digests are those of `pipeline.lake.delta_log`. A commit names the digest of the one before, and a release the
digests of the newest commits of its tables.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import schemas
from pipeline import storage
from pipeline.errors import DamagedLakeError, LakeError
from pipeline.lake.delta_log import (
    CHECKPOINT_KEY,
    FILES_KEY,
    METADATA_KEY,
    PREVIOUS_KEY,
    DeltaLog,
    check_commit_info,
    digest_of_bytes,
    file_entry,
    files_digest,
    read_actions,
)
from pipeline.lake.releases import LOGS
from pipeline.lake.rewrite import required_tables
from pipeline.lake.snapshot import Snapshot
from pipeline.verify.faults import Check, DamagedError, Fault, damage_errors

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet|_last_checkpoint")
_ACTIONS = {"add", "remove", "metaData", "protocol", "commitInfo", "txn", "cdc", "domainMetadata"}
_POINTER_KEYS = {"version", "size", "sizeInBytes", "numOfAddFiles"}
_NOT_WRITTEN = "its bytes are not those that were written"
_ADVICE = (
    "Releases that need this version of the table cannot be read. Put it back from a copy of the lake, or run "
    "`imagelake build LAKE --repair`"
)
_ADVICE_CHECKPOINT = "It only repeats the commits: `imagelake build LAKE --repair` deletes it"


@dataclass
class LogDamage:
    """The damage of one log.

    Attributes:
        log: the log.
        commits: by version of a missing or damaged commit, what is wrong.
        checkpoints: by name of a damaged checkpoint, or of the pointer to the newest one, what is wrong.
        digests: by version, the digest of the commit, where it is recorded elsewhere.
        table: what is wrong with the table that the log makes; empty if it can be opened as its newest commit says.
        files: number of files in the log.
        newest_is_recorded: whether the newest commit records the digest of the table's files; those before 0.6 do not.
    """

    log: DeltaLog
    commits: dict[int, str] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    table: str = ""
    files: int = 0
    newest_is_recorded: bool = False

    @property
    def faults(self) -> list[Fault]:
        """The damage as faults: commits, checkpoints, and the table if these do not explain it."""
        table = self.log.table
        found = [
            Fault("log", f"{text}. {_ADVICE}", table, self.log.file(version))
            for version, text in sorted(self.commits.items())
        ]
        found += [
            Fault("log", f"{text}. {_ADVICE_CHECKPOINT}", table, f"{self.log.folder}/{name}")
            for name, text in sorted(self.checkpoints.items())
        ]
        if self.table:
            found.append(Fault("log", f"{self.table}. {_ADVICE}", table, self.log.folder))
        return found


def check_logs(snapshot: Snapshot) -> Check:
    """Read every commit of every table.

    Args:
        snapshot: of the lake; the check does not depend on its versions.

    Raises:
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    found = list(inspect_logs(snapshot.place))
    faults = [fault for damage in found for fault in damage.faults]
    return Check("every commit of every table is there and whole", sum(damage.files for damage in found), faults)


def inspect_logs(place: str, tables: Collection[str] = schemas.TABLES.keys()) -> Iterator[LogDamage]:
    """Find the damage of the logs of tables; see `check_logs`."""
    digests = _released_digests(place)
    for table in (name for name in schemas.TABLES if name in tables):
        yield inspect_log(DeltaLog(place, table), digests.get(table, {}))


def inspect_log(log: DeltaLog, digests: Mapping[int, str]) -> LogDamage:
    """Find the damage of one log.

    Args:
        log: the log.
        digests: by version, digests of commits that a release records.
    """
    try:
        with damage_errors():
            files = list(storage.list_files(log.folder, deep=False))
            missing = log.missing_versions()
    except DamagedError as error:
        return LogDamage(log, table=_table_damage(log) or str(error))
    damage = LogDamage(log, files=len(files), digests=dict(digests))
    damage.commits.update(dict.fromkeys(missing, "is missing"))
    states, checkpoints = _check_commits(damage)
    for name in files:
        if found := _CHECKPOINT.fullmatch(name):
            text = _checkpoint_damage(log, name, found[1], states, checkpoints)
            if text:
                damage.checkpoints[name] = text
    damage.table = _table_damage(log)
    return damage


def _released_digests(place: str) -> dict[str, dict[int, str]]:
    """Return, by table and version, the digests that the newest release records; empty if it cannot be read."""
    try:
        with damage_errors():
            metadata = Snapshot(place).metadata("releases")
            return {
                table: {version: metadata.units[LOGS][table]}
                for table, version in metadata.inputs.items()
                if table in metadata.units.get(LOGS, {})
            }
    except DamagedError:
        return {}


def _check_commits(damage: LogDamage) -> tuple[dict[int, str], dict[int, str]]:
    """Check every commit of a log.

    Returns:
        By version, the digest of the table's files, and the recorded digest of its checkpoint.
    """
    log = damage.log
    versions = log.versions()
    states: dict[int, str] = {}
    checkpoints: dict[int, str] = {}
    found: dict[int, str] = {}
    state = _FileSum(log.table, _files_at_start(log, versions))
    for version in versions:
        try:
            with damage_errors():
                content = storage.read(log.file(version))
                found[version] = digest_of_bytes(content)
                actions = _checked_actions(log.table, content)
                info = _info(actions)
                check_commit_info(info)
                if PREVIOUS_KEY in info:
                    damage.digests[version - 1] = info[PREVIOUS_KEY]
                if CHECKPOINT_KEY in info:
                    checkpoints[version - 1] = info[CHECKPOINT_KEY]
                states[version] = state.after(actions, info.get(FILES_KEY))
                damage.newest_is_recorded = FILES_KEY in info
        except DamagedError as error:
            damage.commits[version] = str(error)
            state.lost()
    for version, digest in damage.digests.items():
        if found.get(version, digest) != digest:
            damage.commits.setdefault(version, _NOT_WRITTEN)
    return states, checkpoints


def check_next_commit(log: DeltaLog, version: int) -> Callable[[bytes], None]:
    """Return a function that checks what the commit of a version would be; see `_checked_actions` for its errors."""
    before = Snapshot(log.place, {log.table: version - 1}).entries(log.table) if version else {}

    def check(content: bytes) -> None:
        actions = _checked_actions(log.table, content)
        check_commit_info(_info(actions))
        _FileSum(log.table, before).after(actions, _info(actions)[FILES_KEY])

    return check


def _info(actions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})


def _files_at_start(log: DeltaLog, versions: Sequence[int]) -> dict[str, int] | None:
    """Return the entries of a log's files before its first commit; None if they are unknown."""
    if not versions or versions[0] == 0:
        return {}
    try:
        # The log starts at a checkpoint, which has the files of the first commit too.
        return Snapshot(log.place, {log.table: versions[0]}).entries(log.table)
    except LakeError:
        return None


class _FileSum:
    """The digest of the files of a table, commit by commit.

    Args:
        table: table name.
        entries: by path, the entries of the files before the first commit; None if they are unknown.
    """

    def __init__(self, table: str, entries: Mapping[str, int] | None) -> None:
        self._keys = schemas.TABLES[table].partition_by
        self._entries = dict(entries or {})
        # Unknown after a damaged commit, until a commit records it.
        self._sum = None if entries is None else sum(self._entries.values())

    def lost(self) -> None:
        self._sum = None

    def after(self, actions: list[dict[str, Any]], recorded: str | None) -> str:
        changed = 0
        for action in actions:
            if "add" in action:
                add = action["add"]
                values = [add["partitionValues"][key] for key in self._keys]
                path, rows = unquote(add["path"]), json.loads(add["stats"])["numRecords"]
                entry = file_entry(path, add["size"], rows, add["modificationTime"], values)
                changed += entry - self._entries.get(path, 0)
                self._entries[path] = entry
            elif "remove" in action:
                changed -= self._entries.pop(unquote(action["remove"]["path"]), 0)
        if self._sum is None:
            self._sum = None if recorded is None else int(recorded, 16)
            return recorded or ""
        self._sum += changed
        if recorded not in (None, files_digest([self._sum])):
            self._sum = int(recorded, 16)
            raise ValueError("the files that it adds and removes are not those that it records")
        return files_digest([self._sum])


def _checkpoint_damage(
    log: DeltaLog, name: str, version: str | None, states: Mapping[int, str], checkpoints: Mapping[int, str]
) -> str:
    file = f"{log.folder}/{name}"
    try:
        with damage_errors():
            if version is None:
                _check_pointer(log, json.loads(storage.read(file)))
                return ""
            with storage.open_parquet(file) as opened:
                opened.read()
            content = storage.read(file)
            if checkpoints.get(int(version), found := digest_of_bytes(content)) != found:
                return _NOT_WRITTEN
            # Delta opens this version by its checkpoint.
            entries = Snapshot(log.place, {log.table: int(version)}).entries(log.table)
            if states.get(int(version), found := files_digest(entries.values())) not in ("", found):
                return "it names other files than the commits"
    except DamagedError as error:
        return str(error)
    except DamagedLakeError:
        return "it names other files than the commits"
    return ""


def _check_pointer(log: DeltaLog, pointer: Mapping[str, Any]) -> None:
    """Check the pointer to the newest checkpoint.

    Raises:
        ValueError: it is not right.
    """
    with storage.open_parquet(log.checkpoint(pointer["version"])) as opened:
        rows = opened.metadata.num_rows
        adds = opened.read(columns=["add.path"])["add"].combine_chunks()
    size = len(storage.read(log.checkpoint(pointer["version"])))
    right = {"size": rows, "sizeInBytes": size, "numOfAddFiles": len(adds) - adds.null_count}
    if set(pointer) - _POINTER_KEYS or any(pointer.get(key, value) != value for key, value in right.items()):
        raise ValueError("it does not describe the checkpoint")


def _required_tables(place: str) -> Collection[str]:
    """Return the tables that must exist; all if the log of releases cannot be read.

    The first commit of a lake creates the table of releases, so it must exist where another table does.
    """
    try:
        snapshot = Snapshot(place)
        return {*required_tables(snapshot), *(["releases"] if snapshot.versions else [])}
    except LakeError:
        return schemas.TABLES


def _table_damage(log: DeltaLog) -> str:
    try:
        snapshot = Snapshot(log.place)
        opened = snapshot.open(log.table)
        if opened is None:
            if log.versions():
                return "has commits, but no table can be opened"
            return "the table is missing" if log.table in _required_tables(log.place) else ""
        snapshot.files(log.table)
    except LakeError as error:
        text = str(error).partition(" Run:")[0].partition(" Repair it with")[0]
        return text.removeprefix(f"{log.place}/{log.table}: ").rstrip(".")
    unknown = {column.name for column in opened.schema().fields} - set(schemas.TABLES[log.table].schema.names)
    return f"names columns that the table does not have: {', '.join(sorted(unknown))}" if unknown else ""


def _checked_actions(table: str, content: bytes) -> list[dict[str, Any]]:
    """Parse a commit, and check that it is one as imagelake writes it.

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
    return actions


def _check_add(table: str, add: Mapping[str, Any]) -> None:
    values = {key: add["partitionValues"][key] for key in schemas.TABLES[table].partition_by}
    folder = "/".join(f"{key}={quote(value, safe='')}" for key, value in values.items())
    if unquote(add["path"]).rpartition("/")[0] != folder:
        raise ValueError(f"the file {add['path']} is not in the partition that the commit records for it")
    if not isinstance(json.loads(add["stats"])["numRecords"], int) or not isinstance(add["size"], int):
        raise TypeError("the number of rows or bytes is not a number")
