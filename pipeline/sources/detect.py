"""Tell the form of a source from its content and name, and resolve a recipe's sources to files."""

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import Recipe, SourcePart
from pipeline.recipe.naming import split_in
from pipeline.sources.arrays.cifar import splits_of_folder
from pipeline.sources.arrays.idx import image_files
from pipeline.sources.containers import Listed, companions_of, is_images_file, list_folder
from pipeline.sources.forms import FORMS, NOTE_FORMS, OWN_KEYS, SPLIT_FORMS, module_of
from pipeline.sources.remote.download import fetch, is_cached, is_url
from pipeline.sources.remote.globs import expand, is_glob
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

# Where nothing tells another.
DEFAULT_SPLIT = "train"
_HEAD = 512


def resolve(recipe: Recipe) -> list[Source]:
    """Find the sources of a recipe, downloading what is named by URL.

    Args:
        recipe: a checked recipe.

    Returns:
        Sources in the order of the recipe. A pattern, or a folder of files such as Parquet, becomes one source a file,
        in the order of their names. A source whose folders, files or arrays tell splits becomes one a split; see
        `pipeline.sources.roles`.

    Raises:
        SourceError: a file is missing or of no known form, or no file matches a pattern.
        RecipeError: two sources are the same, or a key says nothing of a source of its form.
    """
    sources = [source for part in recipe.source for source in _resolve_one(recipe, part)]
    seen = [(source.dataset, source.split, source.uri) for source in sources]
    for title in sorted({source.title for source, key in zip(sources, seen, strict=True) if seen.count(key) > 1}):
        raise RecipeError(f"the recipe names the source {title} twice. Take one out.")
    return sources


def is_fetched(part: SourcePart) -> bool:
    """Tell whether all that a source names is at hand: files, or addresses whose files are in the cache.

    Raises:
        SourceError: a bucket cannot be asked.
    """
    if not is_url(part.uri):
        return True
    parts = [match.part for match in expand(part, Path())] if is_glob(part, Path()) else [part]
    return all(map(is_cached, parts))


def detect(path: Path) -> str:
    """Tell the form of a file or folder: a key of `forms.FORMS`.

    Args:
        path: an existing file or folder.

    Raises:
        SourceError: the form is none of those, or the file cannot be read.
    """
    head = b"" if path.is_dir() else _head(path)
    for form in FORMS:
        if module_of(form).recognises(path, head):
            return form
    raise SourceError(
        f"{path}: of no form that imagelake knows ({', '.join(FORMS)}). "
        'If it is one, name it with format = "..." in the recipe; if it was downloaded, check that it is whole.'
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
        return [_source(recipe, part, path, part.split, form, without=lake, note=note)]
    if part.splits is None and detected:
        # A folder may get more beside its splits, and that must not be lost.
        detected = {**detected, OTHER: (EVERYTHING_ELSE,)}
    named = part.splits or detected
    if named:
        return _of_splits(recipe, part, path, form, named, lake)
    split = split_of_folder(place.name) or DEFAULT_SPLIT
    return [_source(recipe, part, path, split, form, without=lake)]


def _resolve_file(  # noqa: PLR0913 - what a source is made of
    recipe: Recipe, part: SourcePart, path: Path, form: str, split: str, *, alone: bool
) -> list[Source]:
    """Resolve one file: a source, or one for each split that its folders or arrays tell.

    Args:
        recipe: the recipe.
        part: the source that names the file.
        path: the file.
        form: its form.
        split: its split where its content tells none.
        alone: whether `part` names only this file. Several archives that are compressed as a whole are not listed
            beforehand: each would be unpacked twice.
    """
    _only(part, form)
    if part.splits is not None:
        return _of_splits(recipe, part, path, form, part.splits)
    whole = _source(recipe, part, path, split, form)
    if form in NOTE_FORMS:
        whole = replace(whole, note=module_of(form).note(whole))
    if part.split is not None or form not in SPLIT_FORMS or not (alone or form == "zip"):
        return [whole]
    detected = module_of(form).splits_within(whole)
    if isinstance(detected, dict):
        return _of_splits(recipe, part, path, form, detected) if detected else [whole]
    return [replace(whole, split=name) for name in detected] or [whole]


def _resolve_containers(
    recipe: Recipe, part: SourcePart, folder: Path, listed: Listed, lake: tuple[str, ...]
) -> list[Source]:
    """Resolve a folder of files that hold pictures: a source a file, and one for what is left; none where none does."""
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
    rest = _source(recipe, part, folder, part.split or OTHER, "folder", without=(*sorted(beside), *lake), rest=True)
    return [*found, rest]


def _holds_pictures(source: Source) -> bool:
    """Tell whether a file is a source by itself: labels of others are none, nor is a table of something else."""
    if source.format == "idx":
        return is_images_file(source.path)
    if source.format in ("npz", "mat", "parquet", "csv", "list"):
        # What is wrong with the labels of pictures is an error, and says nothing of the pictures.
        arrays = source.format in ("npz", "mat", "parquet")
        bare = replace(source, part=source.part.model_copy(update={"labels": ""})) if arrays else source
        try:
            next(iter(module_of(source.format).read(bare)), None)
        except SourceError as error:
            # A file that is damaged is an error when it is read; one without pictures is a reject.
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
    """Make a source for each split whose folders are named."""
    named = {split: tuple(folder.strip("/") for folder in folders) for split, folders in splits.items()}
    every = tuple(folder for folders in named.values() for folder in folders if folder != EVERYTHING_ELSE)
    has_rest = any(EVERYTHING_ELSE in folders for folders in named.values())
    parents = {folder.rpartition("/")[0] for folder in every}
    around = parents.pop() if len(parents) == 1 else ""
    found: list[Source] = []
    for split, folders in named.items():
        if EVERYTHING_ELSE in folders:
            own = tuple(folder for folder in folders if folder != EVERYTHING_ELSE)
            others = tuple(folder for folder in every if folder not in own)
            without = (*others, *lake)
            found.append(_source(recipe, part, path, split, form, without=without, around=around, rest=True))
            continue
        others = tuple(folder for folder in every if folder not in folders)
        strays = not has_rest and not found
        more: dict[str, Any] = {"without": (*others, *lake), "around": around, "strays": strays}
        found.append(_source(recipe, part, path, split, form, folders=folders, **more))
    return found


def _source(recipe: Recipe, part: SourcePart, path: Path, split: str, form: str, **more: Any) -> Source:  # noqa: ANN401 - fields of a source
    return Source(part, path, split, form, recipe.decode.size, recipe.decode.max_bytes, **more)


def _splits_of_files(part: SourcePart, names: Sequence[str]) -> list[str]:
    """Tell the split of each of several files: by their names, and where these tell nothing, one for all."""
    if part.split is not None:
        return [part.split] * len(names)
    detected = [split_of_file(name) for name in names]
    rest = OTHER if any(detected) else split_in(Path(part.uri).name) or DEFAULT_SPLIT
    return [split or rest for split in detected]


def _is_inside(path: Path, folder: Path) -> bool:
    return "://" not in os.fspath(path) and path.resolve().is_relative_to(folder)


def _one_labels_file(part: SourcePart, form: str) -> None:
    if form == "idx" and part.labels:
        raise RecipeError(f"source {part.uri}: labels names one file for several. Take it out, or name each file.")


def _locate(recipe: Recipe, part: SourcePart) -> Path:
    path = fetch(part) if is_url(part.uri) else recipe.base / part.uri
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        hint = (
            "Only http(s) and s3 addresses are fetched: check the uri"
            if "://" in part.uri
            else "Check the path; in a recipe, it starts from the recipe's folder"
        )
        raise SourceError(f"{part.dataset}: no file or folder {path}. {hint}.") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SourceError(f"{part.dataset}: {path} is a pipe, socket or device. Name a file or folder.")
    return path


def _only(part: SourcePart, form: str) -> None:
    """Refuse keys that another form of source has: they would be passed over in silence."""
    odd = [key for key in OWN_KEYS if key not in FORMS[form].keys and getattr(part, key) is not None]
    if odd:
        raise RecipeError(
            f"source {part.uri}: {', '.join(odd)} says nothing of a source of format {form}. Take it out."
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
                "Name each file by a [[source]] of its own."
            )
    if part.split is not None and part.split not in named:
        raise SourceError(
            f"{part.uri}: no IDX images for split '{part.split}'; the folder has {', '.join(sorted(named))}."
        )
    wanted = sorted(named.items()) if part.split is None else [(part.split, named[part.split])]
    if part.labels and len(wanted) > 1:
        raise RecipeError(f"source {part.uri}: labels names one file for {len(wanted)} splits. Name a split as well.")
    return wanted


def _head(path: Path) -> bytes:
    """Read a file's first bytes, decompressed; none where that fails at once."""
    try:
        return beginning(path, _HEAD)
    except PermissionError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    except OSError:
        return b""
