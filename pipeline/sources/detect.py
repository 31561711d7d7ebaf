"""Tell the form of a source from its content and name, and resolve a recipe's sources to files."""

import stat
from pathlib import Path

from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import Recipe, SourcePart
from pipeline.sources.download import fetch, is_url
from pipeline.sources.forms import FORMS, OWN_KEYS, module_of
from pipeline.sources.idx import image_files
from pipeline.sources.source import DAMAGED, Source, decompressed

_HEAD = 512


def resolve(recipe: Recipe) -> list[Source]:
    """Find the sources of a recipe, downloading what is named by URL.

    Args:
        recipe: a checked recipe.

    Returns:
        Sources in the order of the recipe; a folder of IDX files becomes one source a split.

    Raises:
        SourceError: a file is missing or of no known form.
        RecipeError: a source has no split and none can be told, or two sources are the same.
    """
    sources = [source for part in recipe.source for source in _resolve_one(recipe, part)]
    seen = [(source.dataset, source.split, source.uri) for source in sources]
    for title in sorted({source.title for source, key in zip(sources, seen, strict=True) if seen.count(key) > 1}):
        raise RecipeError(f"the recipe names the source {title} twice. Take one out.")
    return sources


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
    if part.format == "glyphs":
        _only(part, "glyphs")
        return [Source(part, Path(part.uri), _split_of(part), "glyphs", size, limit)]
    path = _locate(recipe, part)
    form = part.format or detect(path)
    _only(part, form)
    if form == "folder" and Path(recipe.root).is_relative_to(path.resolve()):
        raise RecipeError(
            f"lake.root {recipe.root} lies inside the source {part.uri}: the lake's own files would be read as images. "
            "Give it another folder."
        )
    if form == "idx" and path.is_dir():
        return [Source(part, file, split, form, size, limit) for split, file in _idx_splits(part, path)]
    return [Source(part, path, _split_of(part), form, size, limit)]


def _locate(recipe: Recipe, part: SourcePart) -> Path:
    path = fetch(part) if is_url(part.uri) else recipe.base / part.uri
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        hint = "Only http(s) addresses are fetched" if "://" in part.uri else "It starts from the recipe's folder"
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
    """Read a file's first bytes, decompressed; none where decompression fails at once."""
    try:
        with decompressed(path) as stream:
            return stream.read(_HEAD)
    except PermissionError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    except DAMAGED:
        return b""
