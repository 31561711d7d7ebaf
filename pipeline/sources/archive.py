"""Archives of class folders, read as a stream: tar in any compression, and zip. Nothing is extracted to disk.

A name inside an archive is only ever text in a table: it is never opened, joined or trusted as a path.
"""

import struct
import tarfile
import zipfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from pipeline.encoded import Blobs, Encoded, Survey
from pipeline.errors import SourceError
from pipeline.sources.members import Member, tar_members, zip_members
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    DAMAGED,
    IMAGES_PER_SHARD,
    Source,
    decompressed,
    files_fingerprint,
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
    fingerprint = files_fingerprint(source, source.path)
    members = tar_members(source) if source.format == "tar" else zip_members(source)
    number = 0
    for number, batch in enumerate(_batches(_guarded(source, members)), start=1):
        key = shard_key(source, number - 1)
        if wanted is None or key in wanted:
            yield _encode(key, fingerprint, batch)
    if not number:
        raise SourceError(f"{source.title}: the archive {source.path} holds no files. Check that it is the right one.")


def _guarded(source: Source, members: Iterator[Member]) -> Iterator[Member]:
    try:
        yield from members
    except _BROKEN as error:
        raise SourceError(
            f"{source.title}: the archive {source.path} is damaged or cut short ({one_line(error)}). "
            "Nothing was committed; fetch it again."
        ) from error
    except RuntimeError as error:  # what zipfile raises on a password, and on a compression that it does not know
        raise SourceError(
            f"{source.title}: the archive {source.path} cannot be unpacked ({one_line(error)}). "
            "Nothing was committed; unpack it with another tool and name the folder."
        ) from error


def _batches(members: Iterator[Member]) -> Iterator[list[Member]]:
    batch: list[Member] = []
    room = BYTES_PER_SHARD
    for member in members:
        batch.append(member)
        room -= len(member.data)
        if len(batch) == IMAGES_PER_SHARD or room <= 0:
            yield batch
            batch, room = [], BYTES_PER_SHARD
    if batch:
        yield batch


def _encode(key: str, fingerprint: str, batch: list[Member]) -> Encoded:
    good = [member for member in batch if member.refused is None]
    return Encoded(
        shard=key,
        fingerprint=fingerprint,
        paths=tuple(member.path for member in good),
        labels=tuple(label_of(member.path) for member in good),
        contents=Blobs(tuple(member.data for member in good)),
        refused=tuple(member.refused for member in batch if member.refused is not None),
    )
