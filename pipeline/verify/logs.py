"""Check the log of every table: all commits exist, can be read, and hold what imagelake writes."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

import schemas
from pipeline import storage
from pipeline.errors import LakeError
from pipeline.lake.delta_log import METADATA_KEY, DeltaLog, read_actions
from pipeline.lake.delta_tables import open_table
from pipeline.verify.faults import Check, DamagedError, Fault, damage_errors

_CHECKPOINT = re.compile(r"\d{20}\.checkpoint.*\.parquet|_last_checkpoint")
_ACTIONS = {"add", "remove", "metaData", "protocol", "commitInfo", "txn", "cdc", "domainMetadata"}


def check_logs(place: str) -> Check:
    """Read every commit of every table.

    Args:
        place: the lake's place.

    Raises:
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    count, faults = 0, list[Fault]()
    for table in schemas.TABLES:
        log = DeltaLog(place, table)
        files = list(storage.list_files(log.folder))
        count += len(files)
        faults += _check_files(table, log, files)
        faults += _check_opens(place, table, log)
    return Check("every commit of every table is there and whole", count, faults)


def _check_files(table: str, log: DeltaLog, files: list[str]) -> Iterator[Fault]:
    versions = log.versions()
    for version in sorted(set(range(versions[-1] + 1 if versions else 0)) - set(versions)):
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


def _check_opens(place: str, table: str, log: DeltaLog) -> Iterator[Fault]:
    try:
        opened = open_table(place, table)
    except LakeError as error:
        yield _fault(table, log.folder, str(error).partition(" Run:")[0])
        return
    if opened is None:
        if log.versions():
            yield _fault(table, log.folder, "has commits, but no table can be opened")
        return
    unknown = {column.name for column in opened.schema().fields} - set(schemas.TABLES[table].schema.names)
    if unknown:
        yield _fault(table, log.folder, f"names columns that the table does not have: {', '.join(sorted(unknown))}")


def _fault(table: str, file: str, text: str) -> Fault:
    advice = (
        "Releases that need this version of the table cannot be read. Put it back from a copy of the lake; without a "
        "copy, build into a new folder (lake.root): nothing else in the lake has its content"
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
