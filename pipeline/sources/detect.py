"""Tell the form of a source from its content and name, and resolve a recipe's sources to files."""

import stat
from dataclasses import replace
from pathlib import Path

from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import Recipe, SourcePart
from pipeline.sources.download import fetch, is_cached, is_url
from pipeline.sources.forms import FORMS, OWN_KEYS, module_of
from pipeline.sources.globs import expand, is_glob
from pipeline.sources.idx import image_files
from pipeline.sources.source import Source, beginning

_HEAD = 512


def resolve(recipe: Recipe) -> list[Source]:
    """Find the sources of a recipe, downloading what is named by URL.

    Args:
        recipe: a checked recipe.

    Returns:
        Sources in the order of the recipe. A pattern becomes one source a file, in the order of their names, and a
        folder of IDX files one a split.

    Raises:
        SourceError: a file is missing or of no known form, or no file matches a pattern.
        RecipeError: a source has no split and none can be told, or two sources are the same.
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
    size, limit = recipe.decode.size, recipe.decode.max_bytes
    if part.format in ("glyphs", "digits"):
        _only(part, part.format)
        return [Source(part, Path(part.uri), _split_of(part), part.format, size, limit)]
    if not is_glob(part, recipe.base):
        return _resolve_at(recipe, part)
    return [
        replace(source, prefix=match.prefix, group=part.uri)
        for match in expand(part, recipe.base)
        for source in _resolve_at(recipe, match.part, one_of=part.uri)
    ]


def _resolve_at(recipe: Recipe, part: SourcePart, one_of: str = "") -> list[Source]:
    size, limit = recipe.decode.size, recipe.decode.max_bytes
    path = _locate(recipe, part)
    form = part.format or detect(path)
    _only(part, form)
    root, place = Path(recipe.root), path.resolve()
    if (form == "folder" and root.is_relative_to(place)) or (one_of and place.is_relative_to(root)):
        inside = f"{part.uri} lies inside lake.root {root}" if one_of else f"lake.root {root} lies inside it"
        raise RecipeError(
            f"source {one_of or part.uri}: {inside}: the lake's own files would be read as images. Give the lake "
            "another folder."
        )
    if form == "idx" and one_of and part.labels is not None:
        raise RecipeError(f"source {one_of}: labels names one file for several. Take it out, or name each file.")
    if form == "idx" and path.is_dir():
        return [Source(part, file, split, form, size, limit) for split, file in _idx_splits(part, path)]
    return [Source(part, path, _split_of(part), form, size, limit)]


def _locate(recipe: Recipe, part: SourcePart) -> Path:
    path = fetch(part) if is_url(part.uri) else recipe.base / part.uri
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        hint = (
            "Only http(s) and s3 addresses are fetched" if "://" in part.uri else "It starts from the recipe's folder"
        )
        raise SourceError(f"{part.dataset}: no file or folder {path}. {hint}: check the uri in the recipe.") from error
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


def _split_of(part: SourcePart) -> str:
    if part.split is None:
        raise RecipeError(f'source {part.uri}: give it a split, such as split = "train".')
    return part.split


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
    if part.labels is not None and len(wanted) > 1:
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
