"""Decide `[decode]` settings that the recipe does not set: those of the lake, or else by the content of the sources.

The first build decides and stores them with its recipe, so that they do not change when the lake grows. "First" is the
order of the archive, of the paths or of the rows.

The mode is L (gray) if at least 99 of 100 of the first 1,000 images of every source are gray, or have equal red, green
and blue in every pixel; else it is RGB.

Originals are kept if one of the first 1,000 images of a source is a JPEG, WebP, AVIF or HEIC: formats of photographs,
whose bytes no later encoding brings back. A lake of an older version that records no such setting has no originals.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import sources
from pipeline.decode.picture import GRAY_MODES, decode, is_gray, is_photograph, strict_pillow
from pipeline.errors import RecipeError
from pipeline.lake.releases import stored_decode
from pipeline.lake.snapshot import Snapshot
from pipeline.recipe import DecodePart, Recipe
from pipeline.shard import Blobs, Deferred, Encoded, Files, Pixels
from pipeline.sources import Source

# Images of a source that decide.
_SAMPLE = 1_000
# In a gray lake, at most one image in this many is a colour image.
_IMAGES_PER_COLOUR_IMAGE = 100
_DECODE_RGB = DecodePart(mode="RGB", on_mismatch="convert")
# Longer side of the working pictures of a lake with originals, in pixels.
_LONGEST = 256
# First bytes of a file, by which its format is recognised.
_HEAD = 32
_STORED = ("keep", "reference")


def with_decided_settings(
    snapshot: Snapshot, recipe: Recipe, found: Iterable[Source], *, prune: bool = False
) -> Recipe:
    """Set `mode`, `on_mismatch`, `originals` and `longest` of a recipe.

    Args:
        snapshot: the lake.
        recipe: what to build.
        found: the sources of the recipe. They are read only if neither the recipe nor the lake has a setting.
        prune: whether the recipe may remove the originals of the lake.

    Returns:
        The recipe with its own values, else those of the lake, else values decided by the content and "convert". Lakes
        of version 0.5 and earlier store mode and `on_mismatch`, even if their recipes did not set them. They store no
        `originals`, and a recipe that does not set it leaves it unset.

    Raises:
        SourceError: a source is damaged.
        RecipeError: the recipe would remove the originals of the lake.
    """
    part, stored = recipe.decode, stored_decode(snapshot)
    # Resolved only if needed, and once.
    resolved = cache(lambda: list(found))
    mode = part.mode or stored.get("mode") or decide_mode(resolved())
    on_mismatch = part.on_mismatch or stored.get("on_mismatch") or "convert"
    originals = part.originals or stored.get("originals")
    if originals is None and not stored:
        originals = decide_originals(resolved())
    if originals == "none" and stored.get("originals") in _STORED and not prune:
        raise _removed_originals(recipe, stored)
    longest = part.longest
    if longest is None and part.size is None:
        longest = stored.get("longest") or (_LONGEST if originals in _STORED else None)
    settings = {"mode": mode, "on_mismatch": on_mismatch, "originals": originals, "longest": longest}
    # Validated again, because an older lake may store "resize", which is "convert" now.
    decided = DecodePart.model_validate({**part.model_dump(), **settings})
    return recipe.model_copy(update={"decode": decided})


def _removed_originals(recipe: Recipe, stored: Mapping[str, Any]) -> RecipeError:
    before = stored["originals"]
    sides = recipe.decode.size or (recipe.decode.longest or stored.get("longest"),)
    size = f" of {' x '.join(map(str, sides))} pixels" if any(sides) else ""
    return RecipeError(
        f'{recipe.root}: originals = "none" in [decode] removes the original files, which were originals = "{before}"; '
        f"only the working pictures{size} stay. To remove them, build with --prune. To keep them, take the key out."
    )


def decide_mode(found: Iterable[Source]) -> str:
    """Decide the mode by the content of sources; RGB if no image can be read.

    Args:
        found: sources. Files that match one pattern of the recipe count as one source.

    Raises:
        SourceError: a source is damaged.
    """
    images = 0
    for members in _group_sources(found):
        gray = list(islice(_gray_flags(members), _SAMPLE))
        if gray.count(False) * _IMAGES_PER_COLOUR_IMAGE > len(gray):
            return "RGB"
        images += len(gray)
    return "L" if images else "RGB"


def decide_originals(found: Iterable[Source]) -> str:
    """Decide by the formats of the images whether originals are kept: "keep" or "none".

    Args:
        found: sources. Files that match one pattern of the recipe count as one source.

    Raises:
        SourceError: a source is damaged.
    """
    return "keep" if any(map(_has_photographs, _group_sources(found))) else "none"


def _has_photographs(members: Iterable[Source]) -> bool:
    heads = (head for source in members for shard in sources.read(source) for head in _heads(shard))
    return any(map(is_photograph, islice(heads, _SAMPLE)))


def _group_sources(found: Iterable[Source]) -> Iterable[list[Source]]:
    """Group the files that one uri of the recipe names, in their order."""
    groups: dict[tuple[str, str, str], list[Source]] = {}
    for source in found:
        groups.setdefault((source.dataset, source.split, source.group or source.uri), []).append(source)
    return groups.values()


def _gray_flags(members: Iterable[Source]) -> Iterator[bool]:
    """Return for each image whether it is gray, in order. Ends early once the colour images decide for RGB."""
    colour = 0
    for source in members:
        for shard in sources.read(source):
            for gray in _gray_flags_of_shard(shard):
                yield gray
                colour += not gray
                if colour * _IMAGES_PER_COLOUR_IMAGE > _SAMPLE:
                    return


def _gray_flags_of_shard(shard: Encoded) -> Iterator[bool]:
    contents = shard.contents.make() if isinstance(shard.contents, Deferred) else shard.contents
    if isinstance(contents, Pixels):
        yield from map(is_gray, contents.array[:_SAMPLE])
        return
    with strict_pillow():
        for data in _encoded(contents):
            gray = _is_gray(data)
            if gray is not None:
                yield gray


def _heads(shard: Encoded) -> Iterator[bytes]:
    """Return the first bytes of each image; empty for pixels."""
    contents = shard.contents.make() if isinstance(shard.contents, Deferred) else shard.contents
    if isinstance(contents, Pixels):
        yield from [b""] * min(len(contents.array), _SAMPLE)
        return
    yield from (data[:_HEAD] for data in _encoded(contents, _HEAD))


def _encoded(contents: Files | Blobs, most: int = -1) -> Iterator[bytes]:
    """Return the images of a shard: of files at most the given number of bytes, and none that cannot be read."""
    if isinstance(contents, Blobs):
        yield from contents.data
        return
    for name in contents.names:
        with suppress(OSError), Path(name).open("rb", buffering=0) as stream:
            yield stream.read(most)


def _is_gray(data: bytes) -> bool | None:
    """Return whether an encoded image is gray; None if it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in GRAY_MODES:
                return True
            # A JPEG decodes much faster at an eighth of its size. If that has colour, the image has. If not, the whole
            # image must be checked.
            if image.format == "JPEG" and image.mode == "RGB" and image.draft("RGB", (1, 1)):
                small = np.asarray(image.convert("RGB"))
                if not is_gray(small):
                    return False
        return is_gray(decode(data, _DECODE_RGB)[0])
    except Exception:  # noqa: BLE001 - format plugins raise any exception
        return None
