"""Tar archives of class folders, in any compression: read as a stream, nothing is extracted to disk.

A name inside an archive is only ever text in a table: it is never opened, joined or trusted as a path.

A packed archive is unpacked here, by one reader, and workers decode what it hands them. Of a plain one only the headers
are read here, and workers read the content by themselves.
"""

import io
import os
import tarfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from pipeline.errors import SourceError
from pipeline.shard import Blobs, Contents, Encoded, Made, Refused, Survey
from pipeline.sources.archives.members import BROKEN, Members, Reading, folders_of, of_source, tar_members
from pipeline.sources.roles import levels_of_paths, splits_of
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    IMAGES_PER_SHARD,
    Source,
    beginning,
    files_fingerprint,
    is_compressed,
    is_picture_folder,
    one_line,
    shard_key,
)

Read = TypeVar("Read")

# Enough for a header with a long name or records in front.
_FIRST_HEADER = 2**16


def recognises(path: Path, head: bytes) -> bool:
    """Tell a tar in any compression by its first header; see `pipeline.sources`."""
    if path.is_dir() or not head:
        return False
    try:
        with tarfile.open(fileobj=io.BytesIO(beginning(path, _FIRST_HEADER)), mode="r:"):
            return True
    except BROKEN:
        return False


def splits_within(source: Source) -> dict[str, tuple[str, ...]]:
    """Tell which folders belong to which split; a packed archive is unpacked for it. See `pipeline.sources.forms`."""
    found = guarded(source, tar_members(source, content=_is_compressed(source), links=False))
    return splits_of(levels_of_paths(folders_of(found)))


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; its shards show only on reading it. See `pipeline.sources`."""
    return Survey(files_fingerprint(source, source.path))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the archive into shards while it streams past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    reading = Reading()
    packed = _is_compressed(source)
    members = of_source(source, guarded(source, tar_members(source, content=packed, reading=reading)))
    for number, batch in enumerate(batches(source, members)):
        key = shard_key(source, number)
        if wanted is None or key in wanted:
            contents = Blobs(tuple(batch.members.data)) if packed else _ranges(source, batch)
            yield encode(source, key, fingerprint, batch, contents, reading.done)


def guarded(source: Source, members: Iterator[Read]) -> Iterator[Read | Refused]:
    """Hand members on, and turn whatever their archive trips over into an error that says what to do.

    With `truncated = "keep"` in the recipe, the members in front of the damage are kept, and the archive itself is the
    last: a reject that tells what is lost.

    Raises:
        SourceError: the archive is damaged, cut short, or needs a password.
    """
    try:
        yield from members
    except SourceError:  # it has said all, and is a ValueError like those that headers raise
        raise
    except BROKEN as error:
        if source.part.truncated == "keep":
            name, detail = source.path.name, f"damaged or cut short, the rest is lost: {one_line(error)}"
            yield Refused(name, None, "truncated", detail, source.path.stat().st_size)
            return
        keep = ', or keep what comes before with truncated = "keep" in its [[source]]' if source.format != "zip" else ""
        raise SourceError(
            f"{source.title}: the archive {source.path} is damaged or cut short ({one_line(error)}). "
            f"Nothing was committed; fetch it again{keep}."
        ) from error
    except RuntimeError as error:  # what zipfile raises on a password, and on a compression that it does not know
        raise SourceError(
            f"{source.title}: the archive {source.path} cannot be unpacked ({one_line(error)}). "
            "Nothing was committed; unpack it with another tool and name the folder."
        ) from error


class Batch:
    """A shard that fills.

    Attributes:
        members: what is read.
        refused: what is turned away.
    """

    def __init__(self) -> None:
        self.members = Members([], [], [], [])
        self.refused: list[Refused] = []
        self._room = BYTES_PER_SHARD

    @property
    def full(self) -> bool:
        """Whether nothing more is taken."""
        return len(self.members.paths) + len(self.refused) >= IMAGES_PER_SHARD or self._room <= 0

    def take(self, members: Members, begin: int) -> int:
        """Take members from a position on, as many as there is room for; tell the position behind the last."""
        stop = begin + IMAGES_PER_SHARD - len(self.members.paths) - len(self.refused)
        sizes = members.sizes[begin:stop]
        if sum(sizes) >= self._room:
            sizes = sizes[: bisect_left(list(accumulate(sizes)), self._room) + 1]
        self._room -= sum(sizes)
        stop = begin + len(sizes)
        self.members.take(members, slice(begin, stop))
        return stop


def batches(source: Source, found: Iterator[Members | Refused]) -> Iterator[Batch]:
    """Cut members into shards.

    Raises:
        SourceError: there are none.
    """
    batch, none = Batch(), True
    for item in found:
        none = False
        if isinstance(item, Refused):
            batch.refused.append(item)
            if batch.full:
                yield batch
                batch = Batch()
            continue
        begin = 0
        while begin < len(item.paths):
            begin = batch.take(item, begin)
            if batch.full:
                yield batch
                batch = Batch()
    if batch.members.paths or batch.refused:
        yield batch
    if none and not source.rest:
        inside = f" in {', '.join(f'{folder}/' for folder in source.folders)}" if source.folders else ""
        raise SourceError(
            f"{source.title}: the archive {source.path} holds no files{inside}. Check that it is the right one."
        )


def encode(  # noqa: PLR0913, PLR0917 - what a shard is made of
    source: Source, key: str, fingerprint: str, batch: Batch, contents: Contents, done: float
) -> Encoded:
    """Make a shard of a batch.

    Args:
        source: the archive.
        key: the shard's key.
        fingerprint: the archive's.
        batch: members, and those that are refused.
        contents: content of the members.
        done: share of the archive that is read.
    """
    paths = batch.members.paths
    # Looked up by folder: there are far fewer of them than files.
    folders = [path.rpartition("/")[0] for path in paths]
    names = {folder: source.label_of(f"{folder}/") for folder in set(folders)}
    labels = tuple(names[folder] for folder in folders)
    if any(is_picture_folder(label) for label in names.values() if label):
        labels = tuple(map(source.label_of, paths))
    return Encoded(key, fingerprint, tuple(paths), labels, contents, tuple(batch.refused), done)


def _is_compressed(source: Source) -> bool:
    try:
        return is_compressed(source.path)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {source.path} ({error.strerror}). Check the path.") from error


def _ranges(source: Source, batch: Batch) -> Made:
    spans = tuple(zip(batch.members.starts, batch.members.sizes, strict=True))
    return Made(partial(_read_ranges, source.title, source.path, spans))


def _read_ranges(title: str, path: Path, spans: Sequence[tuple[int, int]]) -> Blobs:
    with path.open("rb") as stream:
        blobs = tuple(os.pread(stream.fileno(), size, start) for start, size in spans)
    if any(len(blob) != size for blob, (_, size) in zip(blobs, spans, strict=True)):
        raise SourceError(f"{title}: the archive {path} became shorter while it was read. Build again.")
    return Blobs(blobs)
