"""Infer the split of each file of a source from the names of folders and files.

A folder names a split by one word (train, training, valid, val, validation, dev, test, testing), in any case,
with or without a year or words such as "images" and "set": `train`, `Test`, `val2017`, `training_set`. The folders at
the top are used, or those below a single top folder. They are folders of splits if

- two of them name different splits, or
- the only folder names one, or
- one names a split and contains folders, which the folder of a class does not, or
- the folders of classes contain such folders: `cats/train`, `cats/test`, `dogs/train`.

Otherwise `train` is a class, like `car` and `bus`. Files outside the folders of splits have the split `other`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.recipe.naming import GENERIC, SPLITS, split_in, without_digits, words_of
from pipeline.sources.source import is_folder, is_system_folder

# The split of files outside the folders of other splits, and the pattern for these files in `splits`.
OTHER, EVERYTHING_ELSE = "other", "*"
# Most levels of single folders that are searched.
_MAX_LEVELS = 8
_SET = frozenset([*GENERIC, "set", "sets", "split", "splits", "folder", ""])


class _SplitName(NamedTuple):
    """The split that a name contains, and the other words of the name."""

    split: str
    others: tuple[str, ...]


class Level(NamedTuple):
    """The folders of one level of a source.

    Attributes:
        prefix: the single folders above them, such as "set/" or "set/inner/"; or empty.
        folders: names of the folders of this level, and of the folders in each.
        files: whether there are files at this level or above.
    """

    prefix: str
    folders: Mapping[str, frozenset[str]]
    files: bool


def split_of_folder(name: str) -> str | None:
    """Return the split that the name of a folder means without other folders; None if there is none."""
    named = _split_name(name)
    return named.split if named and set(named.others) <= _SET else None


def splits_of(levels: Iterable[Level]) -> dict[str, tuple[str, ...]]:
    """Find the folders of each split, at the first level with such folders.

    Returns:
        Folders of the source by split; `EVERYTHING_ELSE` for `OTHER` if there are other files. Empty if no folder
        names a split.
    """
    return next(filter(None, map(_splits_of_level, levels)), {})


def _splits_of_level(level: Level) -> dict[str, tuple[str, ...]]:
    named = {name: found for name in sorted(level.folders) if (found := _split_name(name))}
    plain = {name: found.split for name, found in named.items() if set(found.others) <= _SET}
    rest = level.files or len(plain) < len(level.folders)
    if len(set(plain.values())) < 2:  # noqa: PLR2004 - two different splits
        # Names such as seg_train and seg_test, with the same other words and different splits.
        siblings = {name: found.split for name, found in named.items() if _has_sibling(found, named.values())}
        plain = siblings or {
            name: split for name, split in plain.items() if level.folders[name] or len(level.folders) == 1
        }
        rest = level.files or len(plain) < len(level.folders)
    if not plain and len(level.folders) > 1:
        plain, rest = _below_classes(level)
    made: dict[str, tuple[str, ...]] = {}
    for name, split in plain.items():
        made[split] = (*made.get(split, ()), f"{level.prefix}{name}")
    if made and rest:
        made[OTHER] = (EVERYTHING_ELSE,)
    return {split: made[split] for split in ("train", "valid", "test", OTHER) if split in made}


def _below_classes(level: Level) -> tuple[dict[str, str], bool]:
    """Find folders of splits in the folders of classes: `cats/train`, `cats/test`, `dogs/train`."""
    inner = {
        f"{name}/{below}": split
        for name in sorted(level.folders)
        for below in sorted(level.folders[name])
        if (split := split_of_folder(below))
    }
    if len(set(inner.values())) < 2:  # noqa: PLR2004 - two different splits
        return {}, False
    return inner, True


def levels_of_folder(folder: Path) -> Iterator[Level]:
    """Yield the top level of a folder on disk, and the levels below as long as there is a single folder.

    Raises:
        OSError: a folder cannot be listed.
    """
    prefix, place, files = "", os.fspath(folder), False
    for _ in range(_MAX_LEVELS):
        names, has_files = _folders_in(place)
        files = files or has_files
        yield Level(prefix, {name: frozenset(_folders_in(f"{place}/{name}")[0]) for name in names}, files)
        if len(names) != 1:
            return
        prefix, place = f"{prefix}{names[0]}/", f"{place}/{names[0]}"


def levels_of_paths(folders: Iterable[str]) -> Iterator[Level]:
    """Yield the top level of an archive, and the levels below as long as there is a single folder.

    Args:
        folders: the folders of its files, each once; "" for the top.
    """
    rest = sorted(folder for folder in folders if not any(map(is_system_folder, folder.split("/"))))
    prefix, files = "", False
    for _ in range(_MAX_LEVELS):
        files = files or "" in rest
        below: dict[str, set[str]] = {}
        for folder in filter(None, rest):
            first, _, inner = folder.partition("/")
            below.setdefault(first, set()).update({inner.partition("/")[0]} if inner else ())
        yield Level(prefix, {name: frozenset(inner) for name, inner in below.items()}, files)
        if len(below) != 1:
            return
        (first,) = below
        prefix = f"{prefix}{first}/"
        rest = [folder[len(first) + 1 :] for folder in rest if folder]


def split_of_file(path: str) -> str | None:
    """Return the split of a file: from its name, else from the nearest folder that names one; None if there is none.

    Args:
        path: path of the file inside the folder of the recipe.
    """
    *folders, name = path.split("/")
    return split_in(name) or next((split for part in reversed(folders) if (split := split_of_folder(part))), None)


def merged_note(splits: Mapping[str, Sequence[str]], split: str) -> str:
    """Return the note that folders of several splits are read as one; empty if they are not."""
    folders = [f"{folder}/" for name, named in splits.items() if name != OTHER for folder in named]
    if len(folders) < 2:  # noqa: PLR2004 - several folders
        return ""
    advice = "Remove `split` from the [[source]] to read each as a split of its own."
    return f"{', '.join(folders)} are all read as split '{split}'. {advice}"


def _split_name(name: str) -> _SplitName | None:
    words = list(map(without_digits, words_of(name)))
    found = [SPLITS[word] for word in words if word in SPLITS]
    return _SplitName(found[0], tuple(word for word in words if word not in SPLITS)) if len(found) == 1 else None


def _has_sibling(one: _SplitName, others: Iterable[_SplitName]) -> bool:
    return any(other.others == one.others and other.split != one.split for other in others)


def _folders_in(place: str) -> tuple[list[str], bool]:
    """Return the names of the folders in a folder, and whether it also contains files."""
    folders, files = [], False
    with os.scandir(place) as found:
        for entry in found:
            if not is_folder(entry):
                files = files or not entry.name.startswith(".")
            elif not is_system_folder(entry.name):
                folders.append(entry.name)
    return sorted(folders), files
