"""Recognise the form of a source, and resolve the sources of a recipe to files on this machine."""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.addresses import identity
from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import Recipe, SourcePart
from pipeline.recipe.naming import split_in
from pipeline.sources.arrays.cifar import splits_of_folder
from pipeline.sources.arrays.idx import image_files
from pipeline.sources.containers import Listed, is_images_file, list_folder
from pipeline.sources.forms import FORMS, OWN_KEYS, companions_of, module_of, note_of, splits_within
from pipeline.sources.remote import expand, fetch, is_cached, is_glob, is_url, lacks_secrets
from pipeline.sources.roles import (
    EVERYTHING_ELSE,
    OTHER,
    levels_of_folder,
    merged_note,
    split_of_file,
    split_of_folder,
    splits_of,
)
from pipeline.sources.source import Source, beginning
from pipeline.storage import check_regular

# The split if nothing names one.
DEFAULT_SPLIT = "train"
_HEAD = 512


def resolve(recipe: Recipe) -> list[Source]:
    """Resolve the sources of a recipe; files at addresses are downloaded.

    Returns:
        Sources in the order of the recipe. A pattern, or a folder of files such as Parquet, becomes one source for each
        file, ordered by name. A source with folders, files or arrays of several splits becomes one source for each
        split; see `pipeline.sources.roles`. None for an address that lacks its secrets and is not in the cache.

    Raises:
        SourceError: a file is missing or has an unknown form, or no file matches a pattern.
        RecipeError: two sources are the same, or a key does not apply to the form of its source.
    """
    _check_addresses(recipe)
    sources = [source for part in recipe.source if not lacks_secrets(part) for source in _resolve_one(recipe, part)]
    seen = [(source.dataset, source.split, source.uri) for source in sources]
    for title in sorted({source.title for source, key in zip(sources, seen, strict=True) if seen.count(key) > 1}):
        raise RecipeError(f"the recipe names the source {title} twice. Remove one of them.")
    return sources


def _check_addresses(recipe: Recipe) -> None:
    """Check that no two addresses differ only in what is not stored: the lake could not tell their files apart.

    Raises:
        RecipeError: two do.
    """
    known: dict[str, str] = {}
    for part in recipe.source:
        if is_url(part.uri) and known.setdefault(identity(part.uri), part.written) != part.written:
            raise RecipeError(
                f"two sources have the address {identity(part.uri)} and differ only in its query, user name or "
                "password, which a lake does not store. Download the files, and name them by their paths."
            )


def is_fetched(part: SourcePart) -> bool:
    """Return whether all files of a source are local, or in the download cache.

    Raises:
        SourceError: a bucket does not answer, or refuses.
    """
    if not is_url(part.uri):
        return True
    parts = [match.part for match in expand(part, Path())] if is_glob(part, Path()) else [part]
    return all(map(is_cached, parts))


def detect(path: Path) -> str:
    """Recognise the form of a file or folder.

    The result is a key of `forms.FORMS`.

    Args:
        path: an existing file or folder.

    Raises:
        SourceError: the form is unknown, or the file cannot be read.
    """
    _check_regular(path)
    is_dir = path.is_dir()
    head = b"" if is_dir else _head(path)
    for name, form in FORMS.items():
        # The libraries of the others are not imported for a folder.
        if (form.may_be_folder or not is_dir) and module_of(name).recognises(path, head):
            return name
    raise SourceError(
        f"{path}: its format is not recognised. Known formats: {', '.join(FORMS)}. "
        'If it has one of these formats, set format = "..." in the recipe. If it was downloaded, check that '
        "it is complete."
    )


def _resolve_one(recipe: Recipe, part: SourcePart) -> list[Source]:
    if part.format in ("glyphs", "digits"):
        _only(part, part.format)
        return [_source(recipe, part, Path(part.uri), part.split or DEFAULT_SPLIT, part.format)]
    if not is_glob(part, recipe.base):
        return _resolve_at(recipe, part)
    root = Path(recipe.root)
    matches = [match for match in expand(part, recipe.base) if not _is_inside(recipe.base / match.part.uri, root)]
    if not matches:
        raise SourceError(f"{part.dataset}: {part.uri} matches only files of the lake {root}. Check the uri.")
    splits = _splits_of_files(part, [match.prefix.rstrip("/") for match in matches])
    found = []
    for match, split in zip(matches, splits, strict=True):
        path = _locate(recipe, match.part)
        form = part.format or detect(path)
        _one_labels_file(part, form)
        found += [
            replace(source, prefix=match.prefix, group=part.uri)
            for source in _resolve_file(recipe, match.part, path, form, split, alone=len(matches) == 1)
        ]
    return found


def _resolve_at(recipe: Recipe, part: SourcePart) -> list[Source]:
    path = _locate(recipe, part)
    form = part.format or detect(path)
    if path.is_dir():
        return _resolve_folder(recipe, part, path, form)
    name = Path(part.uri).name
    return _resolve_file(recipe, part, path, form, part.split or split_in(name) or DEFAULT_SPLIT, alone=True)


def _resolve_folder(recipe: Recipe, part: SourcePart, path: Path, form: str) -> list[Source]:
    if form == "idx":
        _only(part, form)
        return [_source(recipe, part, file, split, form) for split, file in _idx_splits(part, path)]
    if form == "cifar":
        _only(part, form)
        splits = [part.split] if part.split else splits_of_folder(path)
        return [_source(recipe, part, path, split, form) for split in splits or [DEFAULT_SPLIT]]
    root, place = Path(recipe.root).resolve(), path.resolve()
    if root == place:
        raise RecipeError(f"source {part.uri}: this is lake.root itself. Give the lake another folder.")
    lake = (root.relative_to(place).as_posix(),) if root.is_relative_to(place) else ()
    if part.format != "folder" and part.splits is None:
        listed = list_folder(path, path / lake[0] if lake else None, pictures=part.format is None)
        if not listed.pictures and (found := _resolve_containers(recipe, part, path, listed, lake)):
            return found
    _only(part, form)
    try:
        detected = splits_of(levels_of_folder(path))
    except OSError as error:
        where = error.filename or path
        raise SourceError(f"{part.dataset}: cannot list {where} ({error.strerror}). Check the folder.") from error
    if part.split is not None:
        note = merged_note(detected, part.split)
        return [_source(recipe, part, path, part.split, form, excluded=lake, note=note)]
    if part.splits is None and detected:
        # Files that are added beside the folders of the splits must not be lost.
        detected = {**detected, OTHER: (EVERYTHING_ELSE,)}
    named = part.splits or detected
    if named:
        return _of_splits(recipe, part, path, form, named, lake)
    split = split_of_folder(place.name) or DEFAULT_SPLIT
    return [_source(recipe, part, path, split, form, excluded=lake)]


def _resolve_file(  # noqa: PLR0913 - what a source is made of
    recipe: Recipe, part: SourcePart, path: Path, form: str, split: str, *, alone: bool
) -> list[Source]:
    """Resolve one file to a source, or to one source for each split of its folders or arrays.

    Args:
        recipe: the recipe.
        part: the source that names the file.
        path: the file.
        form: its form.
        split: its split if its content names none.
        alone: whether `part` names only this file. Several tars are not searched for splits: each would be decompressed
            twice.
    """
    _only(part, form)
    if part.splits is not None:
        return _of_splits(recipe, part, path, form, part.splits)
    whole = _source(recipe, part, path, split, form)
    whole = replace(whole, note=note_of(whole))
    if part.split is not None or not (alone or form == "zip"):
        return [whole]
    detected = splits_within(whole)
    if isinstance(detected, dict):
        return _of_splits(recipe, part, path, form, detected) if detected else [whole]
    return [replace(whole, split=name) for name in detected] or [whole]


def _resolve_containers(
    recipe: Recipe, part: SourcePart, folder: Path, listed: Listed, lake: tuple[str, ...]
) -> list[Source]:
    """Resolve a folder of files that contain images: a source for each, and one for the other files; else none."""
    forms: dict[str, str] = {}
    for name in listed.containers or listed.tables:
        with suppress(SourceError):
            forms[name] = part.format or detect(folder / name)
    sources: list[tuple[str, Source]] = []
    for name, form in forms.items():
        own = part.model_copy(update={"uri": f"{part.uri.rstrip('/')}/{name}"})
        source = _source(recipe, own, folder / name, DEFAULT_SPLIT, form)
        if _holds_pictures(source):
            sources.append((name, replace(source, prefix=f"{name}/", group=part.uri)))
    beside = {file.relative_to(folder).as_posix() for _, source in sources for file in companions_of(source)}
    sources = [(name, source) for name, source in sources if name not in beside]
    if not sources:
        return []
    splits = _splits_of_files(part, [name for name, _ in sources])
    found: list[Source] = []
    for (name, source), split in zip(sources, splits, strict=True):
        _one_labels_file(part, source.format)
        resolved = _resolve_file(recipe, source.part, source.path, source.format, split, alone=len(sources) == 1)
        found += [replace(one, prefix=source.prefix, group=source.group) for one in resolved]
        beside.add(name)
    rest = _source(
        recipe, part, folder, part.split or OTHER, "folder", excluded=(*sorted(beside), *lake), is_remainder=True
    )
    return [*found, rest]


def _holds_pictures(source: Source) -> bool:
    """Return whether a file contains images: files of labels and tables of other data do not."""
    if source.format == "idx":
        return is_images_file(source.path)
    if source.format in ("npz", "mat", "parquet", "csv", "list"):
        # Labels are not read here: an error in them does not mean that there are no images.
        arrays = source.format in ("npz", "mat", "parquet")
        bare = replace(source, part=source.part.model_copy(update={"labels": ""})) if arrays else source
        try:
            next(iter(module_of(source.format).read(bare)), None)
        except SourceError as error:
            # A file that is damaged is an error when it is read; one excluded pictures is a reject.
            return error.__cause__ is not None
    return True


def _of_splits(  # noqa: PLR0913, PLR0917 - what a source is made of
    recipe: Recipe,
    part: SourcePart,
    path: Path,
    form: str,
    splits: Mapping[str, Sequence[str]],
    lake: tuple[str, ...] = (),
) -> list[Source]:
    """Make a source for each split, from the folders of each."""
    named = {split: tuple(folder.strip("/") for folder in folders) for split, folders in splits.items()}
    every = tuple(folder for folders in named.values() for folder in folders if folder != EVERYTHING_ELSE)
    has_rest = any(EVERYTHING_ELSE in folders for folders in named.values())
    parents = {folder.rpartition("/")[0] for folder in every}
    split_parent = parents.pop() if len(parents) == 1 else ""
    found: list[Source] = []
    for split, folders in named.items():
        if EVERYTHING_ELSE in folders:
            own = tuple(folder for folder in folders if folder != EVERYTHING_ELSE)
            others = tuple(folder for folder in every if folder not in own)
            excluded = (*others, *lake)
            found.append(
                _source(
                    recipe, part, path, split, form, excluded=excluded, split_parent=split_parent, is_remainder=True
                )
            )
            continue
        others = tuple(folder for folder in every if folder not in folders)
        rejects_outside = not has_rest and not found
        more: dict[str, Any] = {
            "excluded": (*others, *lake),
            "split_parent": split_parent,
            "rejects_outside": rejects_outside,
        }
        found.append(_source(recipe, part, path, split, form, folders=folders, **more))
    return found


def _source(recipe: Recipe, part: SourcePart, path: Path, split: str, form: str, **more: Any) -> Source:  # noqa: ANN401 - fields of a source
    decode = recipe.decode
    return Source(part, path, split, form, decode.size, decode.max_bytes, **more)


def _splits_of_files(part: SourcePart, names: Sequence[str]) -> list[str]:
    """Return the split of each of several files: by its name, or the same one for all if no name contains a split."""
    if part.split is not None:
        return [part.split] * len(names)
    detected = [split_of_file(name) for name in names]
    rest = OTHER if any(detected) else split_in(Path(part.uri).name) or DEFAULT_SPLIT
    return [split or rest for split in detected]


def _is_inside(path: Path, folder: Path) -> bool:
    return "://" not in os.fspath(path) and path.resolve().is_relative_to(folder)


def _one_labels_file(part: SourcePart, form: str) -> None:
    if form == "idx" and part.labels:
        raise RecipeError(
            f"source {part.uri}: labels names one file for several sources. Remove it, or name each file in its own "
            "[[source]]."
        )


def _locate(recipe: Recipe, part: SourcePart) -> Path:
    path = fetch(part) if is_url(part.uri) else recipe.base / part.uri
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        hint = (
            "Only http(s) and s3 URLs are fetched: check the uri"
            if "://" in part.uri
            else "Check the path; in a recipe, it starts from the recipe's folder"
        )
        raise SourceError(f"no file or folder {path}. {hint}.") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SourceError(f"{part.dataset}: {path} is a pipe, socket or device. Name a file or folder.")
    return path


def _only(part: SourcePart, form: str) -> None:
    """Refuse keys that do not apply to the form of a source, which would have no effect."""
    odd = [key for key in OWN_KEYS if key not in FORMS[form].keys and getattr(part, key) is not None]
    if odd:
        raise RecipeError(
            f"source {part.uri}: {', '.join(odd)} does not apply to a source of format {form}. Remove it."
        )


def _idx_splits(part: SourcePart, folder: Path) -> list[tuple[str, Path]]:
    found = image_files(folder)
    if not found:
        raise SourceError(f"{part.uri}: no IDX images in this folder. Name the images file itself.")
    named = dict(found)
    for split, file in found:
        if named[split] != file:
            raise SourceError(
                f"{part.uri}: {file.name} and {named[split].name} are both images of split '{split}'. "
                "Name each file in its own [[source]]."
            )
    if part.split is not None and part.split not in named:
        raise SourceError(
            f"{part.uri}: no IDX images for split '{part.split}'; the folder has {', '.join(sorted(named))}."
        )
    wanted = sorted(named.items()) if part.split is None else [(part.split, named[part.split])]
    if part.labels and len(wanted) > 1:
        raise RecipeError(f"source {part.uri}: labels names one file for {len(wanted)} splits. Name a split as well.")
    return wanted


def _check_regular(path: Path) -> None:
    try:
        check_regular(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error


def _head(path: Path) -> bytes:
    """Read the first bytes of a file, decompressed; none if the file cannot be decompressed."""
    try:
        return beginning(path, _HEAD)
    except PermissionError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    except OSError:
        return b""
