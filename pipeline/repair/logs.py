"""Repair the logs of tables.

A flipped bit of a commit is found by its digest. A checkpoint only repeats the commits: it is deleted. Where an older
commit cannot be repaired and the table has the files that its newest commit records, the log starts at this commit from
then on. Else the table is lost, and is made again.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import schemas
from pipeline import storage
from pipeline.builder.state import Todo
from pipeline.errors import StorageError
from pipeline.lake.delta_log import DeltaLog, digest_of_bytes
from pipeline.lake.delta_tables import set_log_aside, write_log_file
from pipeline.lake.snapshot import Snapshot
from pipeline.verify.faults import DamagedError, damage_errors
from pipeline.verify.logs import LogDamage, check_next_commit, inspect_log, inspect_logs

# Commits of more bytes are not searched for a flipped bit: the time grows with the square of the size.
_MAX_SEARCHED = 2**16


def repair_logs(place: str) -> tuple[list[Todo], dict[str, str], set[str]]:
    """Repair the logs of a lake. The caller holds its lock.

    Args:
        place: the lake's place.

    Returns:
        What was done; by table that must be made again, why; tables whose older versions are lost.

    Raises:
        NewerLakeError: the lake was made by a newer imagelake.
        StorageError: a bucket does not answer.
    """
    done: list[Todo] = []
    lost: dict[str, str] = {}
    shortened: set[str] = set()
    # The log of the releases comes first, as it records digests of the others.
    for tables in ({"releases"}, set(schemas.TABLES) - {"releases"}):
        for damage in inspect_logs(place, tables):
            if not damage.faults or not damage.log.versions():
                continue
            steps = _repair_log(damage)
            left = inspect_log(damage.log, damage.digests)
            if left.faults and _newest_is_right(left):
                steps.append(f"starts at version {_start_at_newest(left.log)}: older versions are lost")
                shortened.add(left.log.table)
            elif left.faults:
                lost[left.log.table] = "its log is damaged"
            done += [Todo("repair", f"log of {left.log.table}", step) for step in steps]
    return done, lost, shortened


def _repair_log(damage: LogDamage) -> list[str]:
    """Repair what loses no version of a table."""
    log, steps = damage.log, []
    for version in sorted(damage.commits):
        try:
            content = storage.read(log.file(version))
        except StorageError:
            raise
        except OSError:
            # It is missing, or this user may not read it.
            continue
        whole = _without_flipped_bit(content, _recogniser(damage, version))
        if whole is not None:
            write_log_file(log.file(version), whole)
            steps.append(f"one bit of version {version} was wrong")
    if damage.checkpoints and log.versions()[0] == 0 and not log.missing_versions():
        # The pointer names a checkpoint.
        storage.delete(f"{log.folder}/{name}" for name in {*damage.checkpoints, "_last_checkpoint"})
        steps.append("deleted checkpoints that cannot be read: Delta reads the commits instead")
    return steps


def _recogniser(damage: LogDamage, version: int) -> Callable[[bytes], bool]:
    """Return a function that recognises the commit as it was written."""
    if version in damage.digests:
        digest = damage.digests[version]
        return lambda content: digest_of_bytes(content) == digest
    # No commit follows this one. Its own digests cover what is read of it.
    fits = check_next_commit(damage.log, version)

    def recognise(content: bytes) -> bool:
        try:
            with damage_errors():
                fits(content)
        except DamagedError:
            return False
        return True

    return recognise


def _without_flipped_bit(content: bytes, recognise: Callable[[bytes], bool]) -> bytes | None:
    """Find the bit whose change makes a commit what it was; None if there is none."""
    if len(content) > _MAX_SEARCHED:
        return None
    changed = bytearray(content)
    for place in range(len(content)):
        for bit in range(8):
            changed[place] ^= 1 << bit
            if recognise(bytes(changed)):
                return bytes(changed)
            changed[place] ^= 1 << bit
    return None


def _newest_is_right(damage: LogDamage) -> bool:
    newest = damage.log.versions()[-1]
    return not damage.table and newest not in damage.commits and damage.newest_is_recorded


def _start_at_newest(log: DeltaLog) -> int:
    """Let a log start at its newest commit; the older files are kept beside it."""
    newest = log.versions()[-1]
    storage.delete([f"{log.folder}/_last_checkpoint"])
    opened = Snapshot(log.place, {log.table: newest}).open(log.table)
    if opened is not None:
        opened.create_checkpoint()
    set_log_aside(log, f"{datetime.now(UTC):%Y%m%dT%H%M%S}", before=newest)
    return newest
