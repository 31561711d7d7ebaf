"""Recognise what an argument of the command line names: a recipe, a lake, or a source. Fast to import."""

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline import storage
from pipeline.errors import LakeError
from pipeline.recipe.naming import SPLITS, dataset_name
from pipeline.sources.containers import is_lake


def is_recipe(path: str) -> bool:
    """Return whether an argument names a recipe: a file with the ending .toml."""
    return path.lower().endswith(".toml") and not Path(path).is_dir()


def is_lake_place(path: str) -> bool:
    """Return whether an argument names a lake: a folder with heartbeats or tables of a lake, or a prefix of a bucket.

    Raises:
        LakeError: it names a table of a lake.
    """
    if storage.is_bucket(path):
        return storage.exists(f"{path.rstrip('/')}/releases/_delta_log/{0:020}.json")
    if (Path(path) / "_delta_log").is_dir():
        raise LakeError(f"{path} is a table of the lake {Path(path).resolve().parent}. Name the lake itself.")
    return is_lake(path)


def named_split(path: str) -> tuple[str | None, str]:
    """Divide SPLIT=PATH, where SPLIT is train, valid, test or another word of `SPLITS`. A file of this name is a PATH.

    Returns:
        The split, None if the argument names none; the path.
    """
    split, _, rest = path.partition("=")
    if not rest or split not in SPLITS or os.path.lexists(path):
        return None, path
    return SPLITS[split], rest


def default_lake(paths: Sequence[str]) -> str:
    """Return the default lake of some paths: NAME-lake in the current folder."""
    _, first = named_split(paths[0])
    return f"{dataset_name(absolute(first))}-lake"


def absolute(path: str) -> str:
    """Make a path or pattern absolute; addresses stay as they are."""
    return path if "://" in path else os.path.abspath(path)  # noqa: PTH100 - a pattern is not a path, and links are kept
