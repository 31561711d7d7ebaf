"""Tar archives of class folders, in any compression: read as a stream, nothing is extracted to disk.

A name inside an archive is only ever text in a table: it is never opened, joined or trusted as a path.

A packed archive is unpacked here, by one reader, and workers decode what it hands them. Of a plain one only the headers
are read here, and workers read the content by themselves.
"""

import os
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.encoded import Blobs, Contents, Encoded, Made, Refused, Survey
from pipeline.errors import SourceError
from pipeline.sources.members import Member, Reading, tar_members
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    decompressed,
    files_fingerprint,
    is_compressed,
    label_of,
    one_line,
    shard_key,
)

# BadZipFile and TarError name themselves. The others leak out of the standard library where a header holds nonsense:
# a name that is no UTF-8, a length that is no number, a field that is too short.
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, ValueError, IndexError, struct.error, *DAMAGED)


def recognises(path: Path, head: bytes) -> bool:
    """Tell a tar in any compression by its first header; see `pipeline.sources`."""
    if path.is_dir() or not head:
        return False
    try:
        # Not mode "r|*": tarfile's own gzip reader trips over a file that is cut in its first bytes.
        with decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r|"):
            return True
    except (tarfile.TarError, ValueError, *DAMAGED):
        return False


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; its shards show only on reading it. See `pipeline.sources`."""
    return Survey(files_fingerprint(source, source.path))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the archive into shards while it streams past; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    reading = Reading()
    packed = _is_compressed(source)
    members = guarded(source, tar_members(source, content=packed, reading=reading))
    number = 0
    for number, batch in enumerate(batches(source, members), start=1):
        key = shard_key(source, number - 1)
        if wanted is None or key in wanted:
            good = [member for member in batch if member.refused is None]
            contents = Blobs(tuple(member.data for member in good)) if packed else _ranges(source, good)
            yield replace(encode(key, fingerprint, batch, contents), done=reading.done)


def guarded(source: Source, members: Iterator[Member]) -> Iterator[Member]:
    """Hand members on, and turn whatever their archive trips over into an error that says what to do.

    With `truncated = "keep"` in the recipe, the members in front of the damage are kept, and the archive itself is the
    last: a reject that tells what is lost.

    Raises:
        SourceError: the archive is damaged, cut short, or needs a password.
    """
    try:
        yield from members
    except _BROKEN as error:
        if source.part.truncated == "keep":
            name, detail = source.path.name, f"damaged or cut short, the rest is lost: {one_line(error)}"
            refused = Refused(name, None, "truncated", detail, source.path.stat().st_size)
            yield Member(name, b"", refused)
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


def batches(source: Source, members: Iterator[Member]) -> Iterator[list[Member]]:
    """Cut members into shards.

    Raises:
        SourceError: there are none.
    """
    batch: list[Member] = []
    room = BYTES_PER_SHARD
    found = False
    for member in members:
        found = True
        batch.append(member)
        room -= 0 if member.refused else member.size
        if len(batch) == IMAGES_PER_SHARD or room <= 0:
            yield batch
            batch, room = [], BYTES_PER_SHARD
    if batch:
        yield batch
    if not found:
        raise SourceError(f"{source.title}: the archive {source.path} holds no files. Check that it is the right one.")


def encode(key: str, fingerprint: str, batch: Sequence[Member], contents: Contents) -> Encoded:
    """Make a shard of members.

    Args:
        key: the shard's key.
        fingerprint: the archive's.
        batch: members, those that are refused among them.
        contents: content of the others, in their order.
    """
    paths = tuple(member.path for member in batch if member.refused is None)
    return Encoded(
        shard=key,
        fingerprint=fingerprint,
        paths=paths,
        labels=tuple(map(label_of, paths)),
        contents=contents,
        refused=tuple(member.refused for member in batch if member.refused is not None),
    )


def _is_compressed(source: Source) -> bool:
    try:
        return is_compressed(source.path)
    except OSError as error:
        raise SourceError(f"{source.title}: cannot read {source.path} ({error.strerror}). Check the path.") from error


def _ranges(source: Source, good: Sequence[Member]) -> Made:
    spans = tuple((member.start, member.size) for member in good)
    return Made(partial(_read_ranges, source.title, source.path, spans))


def _read_ranges(title: str, path: Path, spans: Sequence[tuple[int, int]]) -> Blobs:
    with path.open("rb") as stream:
        blobs = tuple(os.pread(stream.fileno(), size, start) for start, size in spans)
    if any(len(blob) != size for blob, (_, size) in zip(blobs, spans, strict=True)):
        raise SourceError(f"{title}: the archive {path} became shorter while it was read. Build again.")
    return Blobs(blobs)
