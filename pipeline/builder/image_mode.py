"""Decide the mode of a lake's images where the recipe does not set it: the lake's mode, or else by the content.

The mode is L (gray) if at least 99 of 100 of the first 1,000 images of every source are gray, or have equal red, green
and blue in every pixel; else it is RGB. "First" is the order of the archive, of the paths or of the rows. The first
build decides and stores the mode with its recipe, so that the mode does not change when the lake grows.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import sources
from pipeline.decode.picture import GRAY_MODES, decode, is_gray, strict_pillow
from pipeline.lake.snapshot import Snapshot
from pipeline.recipe import DecodePart, Recipe
from pipeline.shard import Deferred, Encoded, Files, Pixels
from pipeline.sources import Source

# Images of a source that decide.
_SAMPLE = 1_000
# In a gray lake, at most one image in this many is a colour image.
_IMAGES_PER_COLOUR_IMAGE = 100
_DECODE_RGB = DecodePart(mode="RGB", on_mismatch="convert")


def stored_decode(snapshot: Snapshot) -> dict[str, Any]:
    """Read the `[decode]` settings that the newest release of a lake stores; empty if there is no release."""
    recipe = snapshot.metadata("releases").units.get("recipe", {})
    settings: dict[str, Any] = recipe.get("values", {}).get("decode", {})
    return settings


def with_decided_mode(snapshot: Snapshot, recipe: Recipe, found: Iterable[Source]) -> Recipe:
    """Set `mode` and `on_mismatch` of a recipe.

    Args:
        snapshot: the lake.
        recipe: what to build.
        found: the sources of the recipe. They are read only if neither the recipe nor the lake has a mode.

    Returns:
        The recipe with both keys set: its own values, else those of the lake, else a mode decided by the content and
        "convert". Lakes of version 0.5 and earlier store both, even if their recipes did not set them.

    Raises:
        SourceError: a source is damaged.
    """
    part = recipe.decode
    if part.mode is not None and part.on_mismatch is not None:
        return recipe
    stored = stored_decode(snapshot)
    mode = part.mode or stored.get("mode") or decide_mode(found)
    on_mismatch = part.on_mismatch or stored.get("on_mismatch") or "convert"
    # Validated again, because an older lake may store "resize", which is "convert" now.
    decided = DecodePart.model_validate({**part.model_dump(), "mode": mode, "on_mismatch": on_mismatch})
    return recipe.model_copy(update={"decode": decided})


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
    encoded: Iterable[bytes] = _read_files(contents) if isinstance(contents, Files) else contents.data
    with strict_pillow():
        for data in encoded:
            gray = _is_gray(data)
            if gray is not None:
                yield gray


def _read_files(contents: Files) -> Iterator[bytes]:
    for name in contents.names:
        with suppress(OSError):
            yield Path(name).read_bytes()


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
