"""Expand patterns, such as `data/train-*.parquet`, `sets/**/batch-[0-9].npz` and `s3://bucket/train-*.tar`.

`*` and `?` match characters of one name, `[...]` one of several characters, `**` any number of folders. A name that
begins with a dot only matches a pattern that begins with a dot. A file or object whose name is the pattern itself comes
first.

Every matching file is a source of its own, even if there is only one, and its paths begin with its name: they do not
change when more files are added. Images of a file that is removed stay in the lake until `imagelake build --prune`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from pipeline import storage
from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import SourcePart
from pipeline.sources.remote.download import bucket_errors
from pipeline.sources.source import readable_name

_MAGIC = re.compile(r"[*?\[]")
_ANY_FOLDERS = "**"


class Match(NamedTuple):
    """A file that matches a pattern.

    Attributes:
        part: the source of the recipe, with the uri of the file.
        prefix: put before its paths: the part of its path from the first pattern on, and "/".
    """

    part: SourcePart
    prefix: str


def is_glob(part: SourcePart, base: Path) -> bool:
    """Return whether the uri of a source is a pattern; patterns in http(s) addresses are not supported.

    Args:
        part: a source of the recipe.
        base: the folder that relative paths start from.

    Raises:
        SourceError: the bucket does not answer, or refuses.
    """
    if not _MAGIC.search(part.uri):
        return False
    if storage.is_bucket(part.uri):
        with bucket_errors(part.uri):
            return not storage.exists(part.uri)
    return "://" not in part.uri and not (base / part.uri).exists()


def expand(part: SourcePart, base: Path) -> list[Match]:
    """Find the files that match a pattern.

    Args:
        part: a source of the recipe whose uri is a pattern.
        base: the folder that relative paths start from.

    Returns:
        The files, ordered by name.

    Raises:
        RecipeError: the source has keys for a single file, or the pattern is not valid.
        SourceError: nothing matches, or a folder or bucket cannot be listed.
    """
    odd = [key for key in ("bytes", "digest") if getattr(part, key) is not None]
    if odd:
        raise RecipeError(
            f"source {part.uri}: {', '.join(odd)} is only valid for one file, and the uri is a pattern. Remove it, or "
            "name each file in its own [[source]]."
        )
    fixed, pattern = _split_pattern(part)
    if storage.is_bucket(part.uri):
        with bucket_errors(part.uri):
            names = list(storage.list_files(fixed, deep=len(pattern) > 1))
        found = [name for name in names if _fits(name.split("/"), pattern)]
    else:
        found = sorted(set(_find(part, base / fixed, pattern)))
    if not found:
        raise SourceError(
            f"{part.dataset}: no file matches {part.uri}. Patterns only match files: name a folder of images without "
            "a pattern. Check the uri in the recipe."
        )
    odd = [readable_name(name) for name in found if readable_name(name) != name]
    if odd:
        raise SourceError(f"{part.dataset}: {part.uri}: the name {odd[0]} is not UTF-8. Rename the file.")
    start = fixed if not fixed or fixed.endswith("/") else f"{fixed}/"
    return [Match(part.model_copy(update={"uri": f"{start}{name}"}), f"{name}/") for name in found]


def _split_pattern(part: SourcePart) -> tuple[str, list[str]]:
    """Split a uri into the folder before the first pattern, and the names and patterns after it."""
    names = part.uri.split("/")
    first = next(position for position, name in enumerate(names) if _MAGIC.search(name))
    fixed = "/".join(names[:first]) or ("/" if first else "")
    pattern = [name for name in names[first:] if name not in ("", ".")]
    if ".." in pattern or any(_ANY_FOLDERS in name != _ANY_FOLDERS for name in pattern):
        raise RecipeError(
            f"source {part.uri}: after the first *, ? or [, '..' is not allowed, and ** must stand alone between "
            "slashes."
        )
    if fixed == "s3:/":
        raise RecipeError(f"source {part.uri}: the bucket must be named without *, ? or [.")
    return fixed, [*pattern, "*"] if pattern[-1] == _ANY_FOLDERS else pattern


def _find(part: SourcePart, folder: Path, pattern: Sequence[str], front: str = "") -> Iterator[str]:
    head, rest = pattern[0], pattern[1:]
    entries = _entries(part, folder)
    if head == _ANY_FOLDERS:
        yield from _find(part, folder, rest, front)
        # Links are not followed: they may never end.
        entries = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        head, rest = "*", pattern
    for entry in entries:
        if _matches_name(entry.name, head):
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
        return _matches_name(names[0], head) and _fits(names[1:], rest)
    return _fits(names, rest) or (_matches_name(names[0], "*") and _fits(names[1:], pattern))


def _matches_name(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
