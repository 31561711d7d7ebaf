"""Leftovers: files that a build wrote and never committed, because it failed or was killed."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import schemas
from pipeline.errors import LakeError
from pipeline.lake.parts import full_disk_named

_MARK = ".building"
# The names that `parts` gives. Nothing else is touched: what else lies in a lake's folder belongs to somebody.
_PART = re.compile(r"[0-9a-f]{32}\.parquet")
# What Delta writes and then renames: a commit or checkpoint that was never finished.
_UNFINISHED = re.compile(r".*(#\d+|\.tmp)")


@contextmanager
def leaving_none(root: str) -> Iterator[None]:
    """Delete what the work inside wrote and did not commit where it fails, and what a killed build left before it.

    A mark lies in the lake's folder for as long as a build is at work. Only a build that finds the mark of another
    looks through the lake, so that a build with nothing to do costs no more for being careful.

    Holds only under the lake's lock: nobody else writes at the same time.

    Args:
        root: the lake's folder.

    Raises:
        LakeError: a table's log cannot be read.
        DiskFullError: no space is left.
    """
    mark = Path(root) / _MARK
    if mark.exists():
        delete_leftovers(root)
    with full_disk_named(root):
        mark.touch()
    try:
        yield
    except (Exception, KeyboardInterrupt):
        # Where this fails too, the mark stays for the next build, and the first error says more.
        with suppress(OSError, LakeError):
            delete_leftovers(root)
            mark.unlink(missing_ok=True)
        raise
    mark.unlink(missing_ok=True)


def delete_leftovers(root: str) -> list[str]:
    """Delete every file of a table that no version of the table names, and every commit that was never finished.

    A file that any commit has ever added stays, whatever later commits say of it: an older release may read it.

    Args:
        root: the lake's folder, locked.

    Returns:
        Deleted files, relative to the lake's folder, sorted.

    Raises:
        LakeError: a table's log cannot be read; nothing of that table was deleted.
    """
    gone = [path for name in schemas.TABLES for path in (*_unnamed(root, name), *unfinished_commits(root, name))]
    for path in gone:
        path.unlink(missing_ok=True)
    return sorted(path.relative_to(root).as_posix() for path in gone)


def unfinished_commits(root: str, name: str) -> list[Path]:
    """List the files of commits of a table that were never finished: nobody needs them once nobody is writing."""
    return sorted(path for path in _log(root, name).glob("*") if _UNFINISHED.fullmatch(path.name))


def _unnamed(root: str, name: str) -> Iterator[Path]:
    table = Path(root) / name
    folders = (f"{key}=*" for key in schemas.TABLES[name].partition_by)
    written = [path for path in table.glob("/".join([*folders, "*.parquet"])) if _PART.fullmatch(path.name)]
    if written and (named := _named(root, name)) is not None:
        yield from (path for path in written if path.relative_to(table).as_posix() not in named)


def _named(root: str, name: str) -> set[str] | None:
    """List every file that any commit added; None where commits are missing, so that this cannot be told."""
    commits = sorted(_log(root, name).glob("*.json"))
    try:
        # A lake with releases has a commit of every table.
        whole = [int(file.stem) for file in commits] == list(range(len(commits)))
        if not whole or (not commits and _log(root, "releases").exists()):
            return None
        lines = (json.loads(line) for file in commits for line in file.read_text(encoding="utf-8").splitlines())
        # The log spells paths percent-encoded, on top of the encoding that is in the folder's own name.
        return {unquote(line["add"]["path"]) for line in lines if "add" in line}
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        raise LakeError(f"{root}/{name}: its log cannot be read ({said}). Run: imagelake verify {root}") from error


def _log(root: str, name: str) -> Path:
    return Path(root) / name / "_delta_log"
