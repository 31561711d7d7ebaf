"""Read the log of a Delta table as Delta writes it: one JSON file for each commit, one action in each line.

The deltalake library reads files and versions. This module reads what the library does not return: the metadata of
each commit, every file that any commit ever added, and whether commits are missing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pipeline import storage
from pipeline.errors import LakeError, one_line

# The key of imagelake's metadata in a commit, and of a token that no other commit has.
METADATA_KEY, TOKEN_KEY = "imagelake", "imagelake.commit"

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

    def versions(self) -> list[int]:
        """List the versions of which the log has a commit, ascending; empty without a table."""
        return sorted(int(found[1]) for name in storage.list_files(self.folder) if (found := _COMMIT.fullmatch(name)))

    def has_changes(self) -> bool:
        """Return whether the table was committed to after it was created."""
        return len(self.versions()) > 1

    def missing_versions(self) -> list[int]:
        """List versions whose commits are missing. The log of a table that was made again starts at a checkpoint."""
        versions = self.versions()
        if not versions:
            return []
        starts_here = storage.exists(f"{self.folder}/{versions[0]:020}.checkpoint.parquet")
        first = versions[0] if starts_here else 0
        return sorted(set(range(first, versions[-1] + 1)) - set(versions))

    def commit_info(self, version: int) -> dict[str, Any]:
        """Read the information about a commit; empty where there is no such commit.

        Raises:
            LakeError: the commit cannot be read.
        """
        file = self.file(version)
        try:
            # Only this line is parsed: a commit of many files has as many others.
            lines = (line for line in storage.read(file).splitlines() if line.startswith(b'{"commitInfo"'))
            found: dict[str, Any] = next((json.loads(line)["commitInfo"] for line in lines), {})
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise LakeError(
                f"{file}: cannot be read ({one_line(error, 300)}). Run: imagelake verify {self.place}"
            ) from error
        return found

    def metadata(self, version: int) -> Metadata:
        """Read what a commit stands for.

        Raises:
            LakeError: the commit cannot be read.
        """
        return Metadata(**json.loads(self.commit_info(version).get(METADATA_KEY, '{"stage": ""}')))

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


def read_actions(content: bytes) -> list[dict[str, Any]]:
    """Parse a commit.

    Raises:
        ValueError: a line is not JSON.
    """
    return [json.loads(line) for line in content.splitlines()]
