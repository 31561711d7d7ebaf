"""Read the log of a Delta table as Delta writes it: one JSON file for each commit, one action in each line.

The deltalake library reads files and versions. This module reads what the library does not return: the metadata of
each commit, every file that any commit ever added, and whether commits are missing.

Delta has no checksum of a log: where a bit of a key has changed, it skips the action. So each commit of imagelake
records digests, in keys of its own: of the files that the table has after it (`FILES_KEY`), of the file of the commit
before (`PREVIOUS_KEY`), and of the values of all its keys (`DIGEST_KEY`). Commits before 0.6 have none.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote

import xxhash

from pipeline import storage
from pipeline.errors import DamagedLakeError, LakeError, one_line

# The key of imagelake's metadata in a commit, and of a token that no other commit has.
METADATA_KEY, TOKEN_KEY = "imagelake", "imagelake.commit"
# Digests; see above. The checkpoint is the one that Delta has made of the commit before.
FILES_KEY, DIGEST_KEY = "imagelake.files", "imagelake.digest"
PREVIOUS_KEY, CHECKPOINT_KEY = "imagelake.previous", "imagelake.checkpoint"
_DIGESTED = (METADATA_KEY, TOKEN_KEY, FILES_KEY, PREVIOUS_KEY, CHECKPOINT_KEY)

_COMMIT = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True)
class Metadata:
    """What a commit stands for.

    Attributes:
        stage: the stage that made it; empty for a commit that only created or widened the table.
        units: by unit (a rule, a split, a run), its fingerprint and the settings to make it again.
        inputs: by table that was read, its version.
    """

    stage: str
    units: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, int] = field(default_factory=dict)


class DeltaLog:
    """The log of a table.

    Attributes:
        place: the lake's place.
        table: table name.
        folder: place of the folder of the log.
    """

    def __init__(self, place: str, table: str) -> None:
        self.place, self.table = place, table
        self.folder = f"{place}/{table}/_delta_log"

    def file(self, version: int) -> str:
        """Return the place of the file of one commit."""
        return f"{self.folder}/{version:020}.json"

    def checkpoint(self, version: int) -> str:
        """Return the place of the checkpoint of one version."""
        return f"{self.folder}/{version:020}.checkpoint.parquet"

    def versions(self) -> list[int]:
        """List the versions of which the log has a commit, ascending; empty without a table."""
        names = storage.list_files(self.folder, deep=False)
        return sorted(int(found[1]) for name in names if (found := _COMMIT.fullmatch(name)))

    def has_changes(self) -> bool:
        """Return whether the table was committed to after it was created."""
        return len(self.versions()) > 1

    def missing_versions(self) -> list[int]:
        """List versions whose commits are missing. The log of a table that was made again starts at a checkpoint."""
        versions = self.versions()
        if not versions:
            return []
        starts_here = storage.exists(self.checkpoint(versions[0]))
        first = versions[0] if starts_here else 0
        return sorted(set(range(first, versions[-1] + 1)) - set(versions))

    def commit_info(self, version: int) -> dict[str, Any]:
        """Read the information about a commit; empty where there is no such commit.

        Raises:
            DamagedLakeError: the commit cannot be read, or its values are not those that were written.
        """
        try:
            content = storage.read(self.file(version))
        except FileNotFoundError:
            return {}
        try:
            # Only this line is parsed: a commit of many files has as many others.
            lines = (line for line in content.splitlines() if line.startswith(b'{"commitInfo"'))
            found: dict[str, Any] = json.loads(next(lines))["commitInfo"]
            check_commit_info(found)
        except (ValueError, StopIteration) as error:
            why = "it is empty or cut off" if isinstance(error, StopIteration) else one_line(error, 300)
            raise DamagedLakeError(
                f"{self.file(version)}: cannot be read ({why}). Run: imagelake verify {self.place}"
            ) from error
        return found

    def metadata(self, version: int) -> Metadata:
        """Read what a commit stands for.

        Raises:
            LakeError: the commit cannot be read.
        """
        return metadata_of(self.commit_info(version))

    def next_commit_info(self, metadata: Metadata | None, files: int, token: str) -> dict[str, str]:
        """Return the keys of imagelake for the next commit.

        Args:
            metadata: what the step that commits records about its inputs; None if it records nothing.
            files: sum of the digests of the files that the table has after the commit; see `file_entry`.
            token: what no other commit has.
        """
        newest = self.versions()[-1]
        made = {TOKEN_KEY: token, FILES_KEY: files_digest([files]), PREVIOUS_KEY: digest_of_file(self.file(newest))}
        if metadata is not None:
            made[METADATA_KEY] = json.dumps(asdict(metadata), sort_keys=True)
        if storage.exists(self.checkpoint(newest)):
            made[CHECKPOINT_KEY] = digest_of_file(self.checkpoint(newest))
        return {**made, DIGEST_KEY: commit_digest(made)}

    def commit_time(self, version: int) -> int:
        """Return when a commit was made, by its writer's clock: milliseconds since 1970; 0 where it is not recorded."""
        return int(self.commit_info(version).get("timestamp", 0))

    def files_ever_added(self) -> set[str] | None:
        """List every file that any commit added, also those that later commits removed.

        Returns:
            Paths relative to the table; None where commits are missing, so that the list would not be complete.

        Raises:
            LakeError: a commit cannot be read.
        """
        versions = self.versions()
        # A lake with a release has a commit of every table.
        if self.missing_versions() or (not versions and DeltaLog(self.place, "releases").has_changes()):
            return None
        try:
            actions = (action for version in versions for action in read_actions(storage.read(self.file(version))))
            # The log percent-encodes paths, on top of the encoding in names of folders.
            return {unquote(action["add"]["path"]) for action in actions if "add" in action}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{self.place}/{self.table}: its log cannot be read ({one_line(error, 300)}). "
                f"Run: imagelake verify {self.place}"
            ) from error


def metadata_of(info: Mapping[str, Any]) -> Metadata:
    """Read what a step recorded from the `commitInfo` of its commit."""
    return Metadata(**json.loads(info.get(METADATA_KEY, '{"stage": ""}')))


def check_commit_info(info: Mapping[str, Any]) -> None:
    """Check the values of a commit against the digest that it records. Commits before 0.6 have none.

    Raises:
        ValueError: they differ.
    """
    if (FILES_KEY in info or DIGEST_KEY in info) and info.get(DIGEST_KEY) != commit_digest(info):
        raise ValueError("its values are not those that were written")


def commit_digest(info: Mapping[str, Any]) -> str:
    """Return the digest of the values of imagelake's keys in a commit, without that of `DIGEST_KEY`."""
    return xxhash.xxh3_128_hexdigest(json.dumps([info.get(key) for key in _DIGESTED]).encode())


def digest_of_file(name: str) -> str:
    """Return the digest of the bytes of a file of a log."""
    return digest_of_bytes(storage.read(name))


def digest_of_bytes(content: bytes) -> str:
    """Return the digest of the bytes of a file of a log: xxh3-128."""
    return xxhash.xxh3_128_hexdigest(content)


def file_entry(path: str, size: int, rows: int, time: int, values: Sequence[str]) -> int:
    """Return the digest of everything that a log records about a file, as a number.

    Args:
        path: relative to the table, without the log's own percent-encoding.
        size: bytes.
        rows: number of rows.
        time: when it was committed, milliseconds since 1970. The order of a partition's files depends on it.
        values: values of the partition columns, in their order.
    """
    return xxhash.xxh3_128_intdigest(json.dumps([path, size, rows, time, *values]).encode())


def files_digest(entries: Iterable[int]) -> str:
    """Return the digest of the files of a table: the sum of their entries, so that a commit is added in one step."""
    return f"{sum(entries) % 2**128:032x}"


def read_actions(content: bytes) -> list[dict[str, Any]]:
    """Parse a commit.

    Raises:
        ValueError: a line is not JSON.
    """
    return [json.loads(line) for line in content.splitlines()]
