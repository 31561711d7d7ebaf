"""Check the log of every table: all commits are there, can be read, and hold what imagelake writes."""

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
from pipeline.verify.faults import Check, DamagedError, Fault, damage_named

_CHECKPOINT = re.compile(r"\d{20}\.checkpoint.*\.parquet|_last_checkpoint")
_ACTIONS = {"add", "remove", "metaData", "protocol", "commitInfo", "txn", "cdc", "domainMetadata"}


def logs_are_whole(root: str) -> Check:
    """Read every commit of every table.

    Args:
        root: the lake's place.
    """
    count, faults = 0, list[Fault]()
    for name in schemas.TABLES:
        log = DeltaLog(root, name)
        there = list(storage.below(log.folder))
        count += len(there)
        faults += _faults_of(name, log, there)
        faults += _unopened(root, name, log)
    return Check("every commit of every table is there and whole", count, faults)


def _faults_of(name: str, log: DeltaLog, there: list[str]) -> Iterator[Fault]:
    numbers = log.versions()
    for number in sorted(set(range(numbers[-1] + 1 if numbers else 0)) - set(numbers)):
        yield _fault(name, log.file(number), "is missing")
    for number in numbers:
        file = log.file(number)
        try:
            with damage_named():
                _read_commit(name, storage.read(file))
        except DamagedError as error:
            yield _fault(name, file, str(error))
    for file in there:
        if _CHECKPOINT.fullmatch(file) and not _checkpoint_reads(f"{log.folder}/{file}"):
            advice = "it only repeats what the commits say: delete it, and _last_checkpoint beside it"
            yield Fault("log", f"cannot be read; {advice}", name, f"{log.folder}/{file}")


def _unopened(root: str, name: str, log: DeltaLog) -> Iterator[Fault]:
    try:
        table = open_table(root, name)
    except LakeError as error:
        yield _fault(name, log.folder, str(error).partition(" Run:")[0])
        return
    if table is None:
        if log.versions():
            yield _fault(name, log.folder, "holds commits, and still no table is there")
        return
    known = {column.name for column in table.schema().fields}
    odd = known - set(schemas.TABLES[name].schema.names)
    if odd:
        yield _fault(name, log.folder, f"names columns that the table does not have: {', '.join(sorted(odd))}")


def _fault(name: str, file: str, text: str) -> Fault:
    advice = (
        "Releases whose version of the table needs it cannot be read. Put it back from a copy of the lake; without "
        "one, build into a new folder (lake.root): nothing else in the lake holds its content"
    )
    return Fault("log", f"{text}. {advice}", name, file)


def _read_commit(name: str, content: bytes) -> None:
    """Read a commit as this imagelake writes them.

    Raises:
        ValueError: it is not one.
    """
    lines = read_actions(content)
    if not lines or not content.endswith((b"}", b"}\n")):
        raise ValueError("it is empty or cut")
    for line in lines:
        if len(line) != 1 or not _ACTIONS.issuperset(line):
            raise ValueError(f"what is {', '.join(line)[:50]}?")
        if "add" in line:
            _read_add(name, line["add"])
        metadata = line.get("commitInfo", {}).get(METADATA_KEY)
        if metadata is not None and not {"stage", "units", "inputs"}.issuperset(json.loads(metadata)):
            raise ValueError("its imagelake metadata is not valid")


def _read_add(name: str, add: Mapping[str, Any]) -> None:
    values = {key: add["partitionValues"][key] for key in schemas.TABLES[name].partition_by}
    folder = "/".join(f"{key}={quote(value, safe='')}" for key, value in values.items())
    if unquote(add["path"]).rpartition("/")[0] != folder:
        raise ValueError(f"the file {add['path']} is not in the partition that the commit records for it")
    if not isinstance(json.loads(add["stats"])["numRecords"], int) or not isinstance(add["size"], int):
        raise TypeError("a number is none")


def _checkpoint_reads(file: str) -> bool:
    try:
        with damage_named():
            if file.endswith(".parquet"):
                with storage.open_parquet(file) as opened:
                    opened.read()
            else:
                json.loads(storage.read(file))
    except DamagedError:
        return False
    return True
