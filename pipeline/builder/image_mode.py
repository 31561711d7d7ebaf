"""The mode of a lake's images where its recipe does not say it: what the lake has, or else what its content is.

The mode is L (gray) if in every source at least 99 of 100 of the first 1,000 pictures are gray or have equal red, green
and blue everywhere; else it is RGB. The first pictures are those of the archive's order, or of the order of paths or
rows. The first build decides, and its stored recipe keeps the mode, so that a lake stays as it is when it grows.
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
from pipeline.decode.picture import decode, is_gray, strict_pillow
from pipeline.lake.snapshot import Snapshot
from pipeline.recipe import DecodePart, Recipe
from pipeline.shard import Encoded, Files, Made, Pixels
from pipeline.sources import Source

_FIRST = 1_000
_COLOUR_SHARE = 100  # one picture in so many may be in colour
_GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
_COLOUR = DecodePart(mode="RGB", on_mismatch="convert")


def stored_decode(snapshot: Snapshot) -> dict[str, Any]:
    """Read `[decode]` as the newest release of a lake keeps it; empty where there is no release."""
    recipe = snapshot.metadata("releases").units.get("recipe", {})
    found: dict[str, Any] = recipe.get("values", {}).get("decode", {})
    return found


def with_decided_mode(snapshot: Snapshot, recipe: Recipe, found: Iterable[Source]) -> Recipe:
    """Fill in `mode` and `on_mismatch` of a recipe.

    Args:
        snapshot: of the lake.
        recipe: what to build.
        found: its sources. They are read only where neither the recipe nor the lake has a mode.

    Returns:
        The recipe with both keys set: as it says, else as the lake has them, else by the content and "convert".
        Lakes of version 0.5 and earlier have both, also where their recipes did not say so.

    Raises:
        SourceError: a source is damaged.
    """
    part = recipe.decode
    if part.mode is not None and part.on_mismatch is not None:
        return recipe
    stored = stored_decode(snapshot)
    mode = part.mode or stored.get("mode") or decide_mode(found)
    on_mismatch = part.on_mismatch or stored.get("on_mismatch") or "convert"
    # Checked again: "resize" of an older lake is "convert".
    decided = DecodePart.model_validate({**part.model_dump(), "mode": mode, "on_mismatch": on_mismatch})
    return recipe.model_copy(update={"decode": decided})


def decide_mode(found: Iterable[Source]) -> str:
    """Decide the mode by the content of sources; RGB where none has a picture that can be read.

    Raises:
        SourceError: a source is damaged.
    """
    seen = 0
    for members in _grouped(found):
        pictures = list(islice(_kinds(members), _FIRST))
        if sum(not gray for gray in pictures) * _COLOUR_SHARE > len(pictures):
            return "RGB"
        seen += len(pictures)
    return "L" if seen else "RGB"


def _grouped(found: Iterable[Source]) -> Iterator[list[Source]]:
    """Put together the files that one uri of the recipe names, in their order."""
    groups: dict[tuple[str, str, str], list[Source]] = {}
    for source in found:
        groups.setdefault((source.dataset, source.split, source.group or source.uri), []).append(source)
    yield from groups.values()


def _kinds(members: Iterable[Source]) -> Iterator[bool]:
    """Tell of each picture whether it is gray, in order; stops where enough are in colour."""
    colour = 0
    for source in members:
        for shard in sources.read(source):
            for gray in _kinds_of_shard(shard):
                yield gray
                colour += not gray
                if colour * _COLOUR_SHARE > _FIRST:
                    return


def _kinds_of_shard(shard: Encoded) -> Iterator[bool]:
    contents = shard.contents.make() if isinstance(shard.contents, Made) else shard.contents
    if isinstance(contents, Pixels):
        yield from map(is_gray, contents.array[:_FIRST])
        return
    if isinstance(contents, Files):
        blobs: Iterable[bytes] = _files(contents)
    else:
        blobs = contents.data
    with strict_pillow():
        for data in blobs:
            gray = _is_gray(data)
            if gray is not None:
                yield gray


def _files(contents: Files) -> Iterator[bytes]:
    for name in contents.names:
        with suppress(OSError):
            yield Path(name).read_bytes()


def _is_gray(data: bytes) -> bool | None:
    """Tell whether an encoded picture is gray; None where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in _GRAY_MODES:
                return True
            # Eight times smaller, colour shows as well, and a JPEG decodes much faster; gray must be looked at whole.
            if image.format == "JPEG" and image.mode == "RGB" and image.draft("RGB", (1, 1)):
                small = np.asarray(image.convert("RGB"))
                if not is_gray(small):
                    return False
        return is_gray(decode(data, _COLOUR)[0])
    except Exception:  # noqa: BLE001 - format plugins raise whatever their parsers trip over
        return None
