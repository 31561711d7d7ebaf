"""One uri for several files: `data/train-*.parquet`, `sets/**/batch-[0-9].npz`, `s3://bucket/train-*.tar`.

`*` and `?` stand for characters of one name, `[...]` for one of several characters, `**` for any number of folders. A
name that begins with a dot must be asked for with a dot. A file or object that is really called so comes first.

Every file that matches is a source of its own, also where only one does, and its paths begin with its name: they stay
as they are when more files come. A file that goes is like a source taken out of the recipe: its images stay in the lake
until a build with --prune.
"""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import SourcePart
from pipeline.sources.remote import buckets
from pipeline.sources.source import readable_name

_MAGIC = re.compile(r"[*?\[]")
_ANY_FOLDERS = "**"


class Match(NamedTuple):
    """A file that a glob found.

    Attributes:
        part: the recipe's source, with the file's own uri.
        prefix: what goes in front of its paths: its path behind the glob's fixed folder, and "/".
    """

    part: SourcePart
    prefix: str


def is_glob(part: SourcePart, base: Path) -> bool:
    """Tell whether a source names several files; an address does so only in a bucket.

    Args:
        part: a source of the recipe.
        base: the folder that relative paths start from.

    Raises:
        SourceError: the bucket cannot be asked.
    """
    if not _MAGIC.search(part.uri):
        return False
    if buckets.is_bucket(part.uri):
        return not buckets.exists(part.uri)
    return "://" not in part.uri and not (base / part.uri).exists()


def expand(part: SourcePart, base: Path) -> list[Match]:
    """Find the files of a glob.

    Args:
        part: a source of the recipe whose uri is a glob.
        base: the folder that relative paths start from.

    Returns:
        Its files, by name.

    Raises:
        RecipeError: the recipe asks of several files what only one has, or the pattern makes no sense.
        SourceError: nothing matches, or a folder or bucket cannot be listed.
    """
    odd = [key for key in ("bytes", "digest") if getattr(part, key) is not None]
    if odd:
        raise RecipeError(
            f"source {part.uri}: {', '.join(odd)} is of one file, and this names several. Take it out, or name each "
            "file by a [[source]] of its own."
        )
    fixed, pattern = _cut(part)
    if buckets.is_bucket(part.uri):
        found = sorted(
            name for name in buckets.names_below(fixed, deep=len(pattern) > 1) if _fits(name.split("/"), pattern)
        )
    else:
        found = sorted(set(_find(part, base / fixed, pattern)))
    if not found:
        raise SourceError(
            f"{part.dataset}: no file matches {part.uri}. Patterns are for files: a folder of images is named itself. "
            "Check the uri in the recipe."
        )
    odd = [readable_name(name) for name in found if readable_name(name) != name]
    if odd:
        raise SourceError(f"{part.dataset}: {part.uri}: the name {odd[0]} is no UTF-8. Rename the file.")
    start = fixed if not fixed or fixed.endswith("/") else f"{fixed}/"
    return [Match(part.model_copy(update={"uri": f"{start}{name}"}), f"{name}/") for name in found]


def _cut(part: SourcePart) -> tuple[str, list[str]]:
    """Cut a uri into the folder in front of the first pattern, and the names and patterns from there on."""
    names = part.uri.split("/")
    first = next(position for position, name in enumerate(names) if _MAGIC.search(name))
    fixed = "/".join(names[:first]) or ("/" if first else "")
    pattern = [name for name in names[first:] if name not in ("", ".")]
    if ".." in pattern or any(_ANY_FOLDERS in name != _ANY_FOLDERS for name in pattern):
        raise RecipeError(
            f"source {part.uri}: behind the first *, ? or [ there can be no '..', and ** stands alone between slashes."
        )
    if fixed == "s3:/":
        raise RecipeError(f"source {part.uri}: the bucket must be named without *, ? or [.")
    return fixed, [*pattern, "*"] if pattern[-1] == _ANY_FOLDERS else pattern


def _find(part: SourcePart, folder: Path, pattern: Sequence[str], front: str = "") -> Iterator[str]:
    head, rest = pattern[0], pattern[1:]
    entries = _entries(part, folder)
    if head == _ANY_FOLDERS:
        yield from _find(part, folder, rest, front)
        # To follow links could mean to never end.
        entries = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        head, rest = "*", pattern
    for entry in entries:
        if _is_like(entry.name, head):
            if rest and entry.is_dir():
                yield from _find(part, folder / entry.name, rest, f"{front}{entry.name}/")
            elif not rest and not entry.is_dir():
                yield f"{front}{entry.name}"


def _entries(part: SourcePart, folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{part.dataset}: {part.uri}: cannot list {folder} ({reason}). Check the uri.") from error


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    if not names or not pattern:
        return not names and not pattern
    head, rest = pattern[0], pattern[1:]
    if head != _ANY_FOLDERS:
        return _is_like(names[0], head) and _fits(names[1:], rest)
    return _fits(names, rest) or (_is_like(names[0], "*") and _fits(names[1:], pattern))


def _is_like(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
