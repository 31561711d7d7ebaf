"""Infer the split of each file of a source from folder names, file names and array names.

A folder's name tells a split by one word (train, training, valid, val, validation, dev, test, testing), in any case,
with or without a year or words such as "images" and "set": `train`, `Test`, `val2017`, `training_set`. The folders at
the top count; a single folder around everything is looked through. They are taken for splits where

- two of them tell different splits, or
- the only folder is one, or
- one tells a split and has folders of its own, as the folder of a class has not, or
- the folders of classes have such folders: `cats/train`, `cats/test`, `dogs/train`.

Otherwise `train` is a class, beside `car` and `bus`. What lies beside such folders is of the split `other`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.recipe.naming import GENERIC, SPLITS, split_in, without_digits, words_of
from pipeline.sources.source import is_folder
from pipeline.sources.system_files import is_system_folder

# The split of what lies beside the folders of train, valid and test, and what stands for it in `splits`.
OTHER, EVERYTHING_ELSE = "other", "*"
# Folders that stand alone are looked through so far.
_DEEPEST = 8
_SET = frozenset([*GENERIC, "set", "sets", "split", "splits", "folder", ""])


class _Named(NamedTuple):
    split: str
    others: tuple[str, ...]  # other words of the name


class Top(NamedTuple):
    """The folders of one level of a source.

    Attributes:
        prefix: the folders that stand alone above them: empty, or "set/" or "set/inner/".
        folders: by name of a folder, the names of its own folders.
        files: whether there are files beside the folders, here or above.
    """

    prefix: str
    folders: Mapping[str, frozenset[str]]
    files: bool


def split_of_folder(name: str) -> str | None:
    """Tell the split that a folder's name says by itself."""
    named = _named(name)
    return named.split if named and set(named.others) <= _SET else None


def splits_of(levels: Iterable[Top]) -> dict[str, tuple[str, ...]]:
    """Tell which folders belong to which split: by the first level whose folders tell any.

    Returns:
        By split, folders of the source; `EVERYTHING_ELSE` for `OTHER` where there is more. Empty where no folder tells
        a split.
    """
    return next(filter(None, map(_splits_of_level, levels)), {})


def _splits_of_level(top: Top) -> dict[str, tuple[str, ...]]:
    named = {name: found for name in sorted(top.folders) if (found := _named(name))}
    plain = {name: found.split for name, found in named.items() if set(found.others) <= _SET}
    rest = top.files or len(plain) < len(top.folders)
    if len(set(plain.values())) < 2:  # noqa: PLR2004 - two different splits
        # Names such as seg_train and seg_test: the same other words, different splits.
        siblings = {name: found.split for name, found in named.items() if _has_twin(found, named.values())}
        plain = siblings or {name: split for name, split in plain.items() if top.folders[name] or len(top.folders) == 1}
        rest = top.files or len(plain) < len(top.folders)
    if not plain and len(top.folders) > 1:
        plain, rest = _below_classes(top)
    made: dict[str, tuple[str, ...]] = {}
    for name, split in plain.items():
        made[split] = (*made.get(split, ()), f"{top.prefix}{name}")
    if made and rest:
        made[OTHER] = (EVERYTHING_ELSE,)
    return {split: made[split] for split in ("train", "valid", "test", OTHER) if split in made}


def _below_classes(top: Top) -> tuple[dict[str, str], bool]:
    """Find the splits in the folders of classes or categories: `cats/train`, `cats/test`, `dogs/train`."""
    inner = {
        f"{name}/{below}": split
        for name in sorted(top.folders)
        for below in sorted(top.folders[name])
        if (split := split_of_folder(below))
    }
    if len(set(inner.values())) < 2:  # noqa: PLR2004 - two different splits
        return {}, False
    return inner, True


def levels_of_folder(folder: Path) -> Iterator[Top]:
    """Look at the top of a folder on disk, and below while a folder stands alone.

    Raises:
        OSError: a folder cannot be listed.
    """
    prefix, place, files = "", os.fspath(folder), False
    for _ in range(_DEEPEST):
        names, has_files = _folders_in(place)
        files = files or has_files
        yield Top(prefix, {name: frozenset(_folders_in(f"{place}/{name}")[0]) for name in names}, files)
        if len(names) != 1:
            return
        prefix, place = f"{prefix}{names[0]}/", f"{place}/{names[0]}"


def levels_of_paths(folders: Iterable[str]) -> Iterator[Top]:
    """Look at the top of an archive, and below while a folder stands alone.

    Args:
        folders: the folders that its files lie in, each once; "" for the top itself.
    """
    rest = sorted(folder for folder in folders if not any(map(is_system_folder, folder.split("/"))))
    prefix, files = "", False
    for _ in range(_DEEPEST):
        files = files or "" in rest
        below: dict[str, set[str]] = {}
        for folder in filter(None, rest):
            first, _, inner = folder.partition("/")
            below.setdefault(first, set()).update({inner.partition("/")[0]} if inner else ())
        yield Top(prefix, {name: frozenset(inner) for name, inner in below.items()}, files)
        if len(below) != 1:
            return
        (first,) = below
        prefix = f"{prefix}{first}/"
        rest = [folder[len(first) + 1 :] for folder in rest if folder]


def split_of_file(path: str) -> str | None:
    """Tell the split of a file by its name, or else by the nearest folder that names one.

    Args:
        path: of the file, from the folder that the recipe names on.
    """
    *folders, name = path.split("/")
    return split_in(name) or next((split for part in reversed(folders) if (split := split_of_folder(part))), None)


def merged_note(splits: Mapping[str, Sequence[str]], split: str) -> str:
    """Say that folders of several splits are read as one; empty where they are not."""
    folders = [f"{folder}/" for name, named in splits.items() if name != OTHER for folder in named]
    if len(folders) < 2:  # noqa: PLR2004 - several folders
        return ""
    advice = "Remove `split` from the [[source]] to read each as a split of its own."
    return f"{', '.join(folders)} are all read as split '{split}'. {advice}"


def _named(name: str) -> _Named | None:
    words = list(map(without_digits, words_of(name)))
    found = [SPLITS[word] for word in words if word in SPLITS]
    return _Named(found[0], tuple(word for word in words if word not in SPLITS)) if len(found) == 1 else None


def _has_twin(one: _Named, others: Iterable[_Named]) -> bool:
    return any(other.others == one.others and other.split != one.split for other in others)


def _folders_in(place: str) -> tuple[list[str], bool]:
    """List the folders in a folder by name, and tell whether it holds files too."""
    folders, files = [], False
    with os.scandir(place) as found:
        for entry in found:
            if not is_folder(entry):
                files = files or not entry.name.startswith(".")
            elif not is_system_folder(entry.name):
                folders.append(entry.name)
    return sorted(folders), files
