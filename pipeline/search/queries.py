"""Decode queries: pictures to search for, or to predict, as a build of the lake would decode them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from glob import has_magic, iglob
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import sources
from pipeline.addresses import redacted, redacted_text
from pipeline.decode import Originals, decode_shard
from pipeline.errors import SourceError
from pipeline.lake.releases import stored_decode
from pipeline.lake.snapshot import Snapshot
from pipeline.recipe import DecodePart, Recipe, parse_recipe
from pipeline.search.tables import Tables
from pipeline.shard import Encoded, Files, Pixels, Reject

# Image files of a pattern that are decoded together.
_FILES_PER_SHARD = 256

# A file, what `build` reads, or pixels.
Query: TypeAlias = str | NDArray[np.uint8]


class DecodedQueries(NamedTuple):
    """Queries of one shape.

    Attributes:
        numbers: (n,) int64: positions of the queries among all files, counted from 0, rejects included.
        names: paths on this machine, or SOURCE: PATH.
        images: rows of the images table.
        pixels: (n, height, width, channels) uint8.
    """

    numbers: NDArray[np.int64]
    names: list[str]
    images: pa.Table
    pixels: NDArray[np.uint8]


def decode_queries(lake: Tables, queries: Sequence[Query]) -> Iterator[DecodedQueries | Reject]:
    """Decode pictures with the settings of the lake's release.

    Streams, as `decode_shard` does.

    Args:
        lake: the lake.
        queries: image files, what `build` reads, or pixels of shape (height, width) or (height, width, 3).

    Yields:
        Groups of one shape, and a reject for every file that a build of the lake would reject, or that cannot be read.
    """
    spec = _decode_settings(lake)
    first = 0
    for query in queries:
        try:
            for prefix, shard in _shards(query, spec):
                for item in decode_shard(shard, "query", "query", spec):
                    if isinstance(item, Reject):
                        yield item._replace(path=f"{prefix}{item.path}")
                    elif not isinstance(item, Originals):
                        names = [f"{prefix}{path}" for path in item.images["path"].to_pylist()]
                        yield DecodedQueries(item.positions + first, names, item.images, item.pixels)
                first += len(shard.paths)
        except SourceError as error:
            yield Reject(redacted(str(query)), None, "unreadable", redacted_text(str(error)), 0)


def read_queries(paths: Sequence[str], spec: DecodePart) -> Iterator[tuple[str, Encoded]]:
    """Yield encoded images, each with the prefix that makes their paths names on this machine."""
    for path in paths:
        yield from _shards(path, spec)


def _shards(query: Query, spec: DecodePart) -> Iterator[tuple[str, Encoded]]:
    if isinstance(query, np.ndarray):
        picture = query if query.ndim == 3 else query[..., None]  # noqa: PLR2004 - height, width and channels
        yield "", Encoded("query", "", ("array",), (None,), Pixels(picture[None]))
        return
    if _is_image_file(query):
        yield "", Encoded("query", "", (query,), (None,), Files((query,)))
        return
    if images := _images_of_pattern(query):
        for start in range(0, len(images), _FILES_PER_SHARD):
            some = images[start : start + _FILES_PER_SHARD]
            yield "", Encoded("query", "", some, (None,) * len(some), Files(some))
        return
    folder = f"{query.rstrip('/')}/" if Path(query).is_dir() else f"{redacted(query)}: "
    for source in sources.resolve(_recipe_of(query, spec)):
        for shard in sources.read(source):
            yield folder, shard


def _images_of_pattern(query: str) -> tuple[str, ...]:
    """List the files of a pattern, sorted, if each is a single image; none if one is an archive, table or the like."""
    if not has_magic(query) or Path(query).exists() or "://" in query:
        return ()
    names = iglob(query, recursive=True)  # noqa: PTH207 - a relative name stays one
    found = tuple(sorted(name for name in names if Path(name).is_file()))
    return found if all(map(_is_image_file, found)) else ()


def _is_image_file(path: str) -> bool:
    """Return whether a path is a file, but no archive, table or other source that `build` reads: a single image."""
    if not Path(path).is_file():
        return False
    with suppress(SourceError):
        sources.detect(Path(path))
        return False
    return True


def _recipe_of(path: str, spec: DecodePart) -> Recipe:
    part = {"uri": path, "dataset": "query", "split": "query"}
    values = {"source": [part], "decode": {"max_bytes": spec.max_bytes, "max_pixels": spec.max_pixels}}
    return parse_recipe(values, base=Path.cwd())


def _decode_settings(lake: Tables) -> DecodePart:
    """Read the `[decode]` of the lake's release, with `originals` changed so that no original is returned.

    It becomes "none", not unset: JPEGs are decoded at reduced scale only where the setting is recorded.
    """
    newest = Snapshot(lake.root)
    for version, metadata in newest.history("releases"):
        # The commit of the release, or a rewrite of it, records these versions and has its settings.
        if metadata.inputs == lake.versions:
            newest = newest.with_version("releases", version)
            break
    stored = stored_decode(newest)
    return DecodePart.model_validate({**stored, "originals": "none" if stored.get("originals") else None})
