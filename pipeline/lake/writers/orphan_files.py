"""Leftovers: files that a build wrote and never committed, because it failed or was killed."""

import json
import re
from collections.abc import Collection, Iterator
from urllib.parse import unquote

import schemas
from pipeline import storage
from pipeline.errors import LakeError
from pipeline.lake.parquet_writer import WRITER_LETTERS

# The names that `parts` gives. Nothing else is touched: what else lies in a lake's folder belongs to somebody.
_PART = r"([0-9a-f]{32})\.parquet"
# What Delta writes in a folder and then renames: a commit or checkpoint that was never finished.
_UNFINISHED = re.compile(r".*(#\d+|\.tmp)")


def delete_leftovers(root: str, writers: Collection[str] | None = None, *, locked: bool = True) -> list[str]:
    """Delete files of a table that no version of the table names.

    A file that any commit has ever added stays, whatever later commits say of it: an older release may read it.

    Args:
        root: the lake's place.
        writers: whose files; None for everybody's.
        locked: whether nobody else commits, so that commits that were never finished go too.

    Returns:
        Deleted files, relative to the lake's place, sorted.

    Raises:
        LakeError: a table's log cannot be read; nothing of that table was deleted.
    """
    gone = []
    for name in schemas.TABLES:
        gone += [f"{name}/{path}" for path in _unnamed(root, name, writers)]
        gone += unfinished_commits(root, name) if locked else []
    storage.delete(f"{root}/{path}" for path in gone)
    return sorted(gone)


def unfinished_commits(root: str, name: str) -> list[str]:
    """List the files of commits of a table that were never finished, relative to the lake's place.

    Nobody needs them once nobody is writing.
    """
    if storage.is_bucket(root):
        return []
    log = f"{name}/_delta_log"
    return [f"{log}/{path}" for path in storage.below(f"{root}/{log}") if _UNFINISHED.fullmatch(path)]


def _unnamed(root: str, name: str, writers: Collection[str] | None) -> Iterator[str]:
    ours = re.compile("/".join([*(f"{key}=[^/]*" for key in schemas.TABLES[name].partition_by), _PART]))
    found = [(path, part) for path in storage.below(f"{root}/{name}") if (part := ours.fullmatch(path))]
    written = [path for path, part in found if writers is None or part[1][:WRITER_LETTERS] in writers]
    if written and (named := _named(root, name)) is not None:
        yield from (path for path in written if path not in named)


def _named(root: str, name: str) -> set[str] | None:
    """List every file that any commit added; None where commits are missing, so that this cannot be told."""
    log = f"{root}/{name}/_delta_log"
    commits = sorted(path for path in storage.below(log) if path.endswith(".json"))
    try:
        # A lake with releases has a commit of every table.
        whole = [int(path.removesuffix(".json")) for path in commits] == list(range(len(commits)))
        if not whole or (not commits and any(storage.below(f"{root}/releases/_delta_log"))):
            return None
        lines = (json.loads(line) for path in commits for line in storage.read(f"{log}/{path}").splitlines())
        # The log spells paths percent-encoded, on top of the encoding that is in the folder's own name.
        return {unquote(line["add"]["path"]) for line in lines if "add" in line}
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise LakeError(f"{root}/{name}: its log cannot be read ({said}). Run: imagelake verify {root}") from error
