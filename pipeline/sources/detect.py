"""Tell the form of a source from its content and name, and resolve a recipe's sources to files."""

import gzip
import tarfile
import zipfile
import zlib
from pathlib import Path

from pipeline.errors import RecipeError, SourceError
from pipeline.recipe import Recipe, SourcePart
from pipeline.sources.download import fetch, is_url
from pipeline.sources.source import Source

# The usual beginnings of IDX image files, and the split that each stands for.
_IDX_SPLITS = {"train": "train", "t10k": "test", "test": "test"}
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
    """Tell the form of a file or folder: folder, tar, zip, idx or csv.

    Args:
        path: an existing file or folder.

    Raises:
        SourceError: the form is none of those.
    """
    if path.is_dir():
        return "idx" if _idx_files(path) else "folder"
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if zipfile.is_zipfile(path):
        return "zip"
    inner = _gunzipped_head(path) if head[:2] == b"\x1f\x8b" else head
    if inner[:2] == b"\0\0" and inner[2:3] == b"\x08":
        return "idx"
    if _is_tar(path):
        return "tar"
    if _is_csv(inner):
        return "csv"
    raise SourceError(
        f"{path}: of no form that imagelake knows (folder, tar, zip, idx, csv). "
        'If it is one, name it with format = "..." in the recipe; if it was downloaded, check that it is whole.'
    )


def _resolve_one(recipe: Recipe, part: SourcePart) -> list[Source]:
    size, limit = recipe.decode.size, recipe.decode.max_bytes
    if part.format == "glyphs":
        return [Source(part, Path(part.uri), _split_of(part), "glyphs", size, limit)]
    path = fetch(part) if is_url(part.uri) else recipe.base / part.uri
    if not path.exists():
        raise SourceError(
            f"{part.dataset}: no file or folder {path}. Check the uri in the recipe (it starts from the recipe)."
        )
    form = part.format or detect(path)
    if form == "idx" and path.is_dir():
        return [Source(part, file, split, form, size, limit) for split, file in _idx_splits(part, path)]
    return [Source(part, path, _split_of(part), form, size, limit)]


def _split_of(part: SourcePart) -> str:
    if part.split is None:
        raise RecipeError(f'source {part.uri}: give it a split, such as split = "train".')
    return part.split


def _idx_splits(part: SourcePart, folder: Path) -> list[tuple[str, Path]]:
    named = {_IDX_SPLITS.get(file.name.split("-")[0], file.name.split("-")[0]): file for file in _idx_files(folder)}
    if part.split is None:
        return sorted(named.items())
    if part.split not in named:
        raise SourceError(
            f"{part.uri}: no IDX images for split '{part.split}'; the folder has {', '.join(sorted(named))}."
        )
    return [(part.split, named[part.split])]


def _idx_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if "images-idx" in file.name or "images.idx" in file.name)


def _gunzipped_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            return stream.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, mode="r|*"):
            return path.stat().st_size > 0
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        return False


def _is_csv(head: bytes) -> bool:
    line = head.split(b"\n")[0]
    return line.count(b",") > 1 and line.isascii() and line.decode("ascii").isprintable()
