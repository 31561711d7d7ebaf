"""Orphan files: files of tables that a failed or killed writer wrote and never committed."""

import re
from collections.abc import Collection, Iterator

import schemas
from pipeline import storage
from pipeline.lake.delta_log import DeltaLog
from pipeline.lake.parquet_writer import WRITER_LETTERS

# The names that `Writer` gives. No other file is touched: it does not belong to the lake.
_PART = r"([0-9a-f]{32})\.parquet"
# Delta writes a commit or checkpoint under such a name and then renames it.
_UNFINISHED = re.compile(r".*(#\d+|\.tmp)")


def delete_orphan_files(place: str, writers: Collection[str] | None = None, *, locked: bool = True) -> list[str]:
    """Delete files of tables that no commit has ever named.

    A file that any commit has added stays, whatever later commits say of it: an older release may read it.

    Args:
        place: the lake's place.
        writers: names of the writers whose files are deleted; None for all.
        locked: whether the caller holds the lock: then unfinished commits are deleted too.

    Returns:
        Deleted files, relative to the lake's place, sorted.

    Raises:
        LakeError: a table's log cannot be read; nothing of that table was deleted.
    """
    gone = []
    for table in schemas.TABLES:
        gone += [f"{table}/{path}" for path in _orphans(place, table, writers)]
        gone += unfinished_commits(place, table) if locked else []
    storage.delete(f"{place}/{path}" for path in gone)
    return sorted(gone)


def unfinished_commits(place: str, table: str) -> list[str]:
    """List the files of commits that were never finished, relative to the lake's place. No reader needs them."""
    if storage.is_bucket(place):
        return []
    names = storage.list_files(DeltaLog(place, table).folder)
    return [f"{table}/_delta_log/{name}" for name in names if _UNFINISHED.fullmatch(name)]


def _orphans(place: str, table: str, writers: Collection[str] | None) -> Iterator[str]:
    pattern = re.compile("/".join([*(f"{key}=[^/]*" for key in schemas.TABLES[table].partition_by), _PART]))
    found = [(path, name) for path in storage.list_files(f"{place}/{table}") if (name := pattern.fullmatch(path))]
    written = [path for path, name in found if writers is None or name[1][:WRITER_LETTERS] in writers]
    if written and (committed := DeltaLog(place, table).files_ever_added()) is not None:
        yield from (path for path in written if path not in committed)
