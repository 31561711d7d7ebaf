"""Archives of class folders, read as a stream: tar in any compression, and zip. Nothing is extracted to disk.

A name inside an archive is only ever text in a table: it is never opened, joined or trusted as a path.
"""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Set
from typing import IO, NamedTuple

from pipeline.encoded import Blobs, Encoded, Refused, Survey
from pipeline.errors import SourceError
from pipeline.sources.source import (
    BYTES_PER_SHARD,
    IMAGES_PER_SHARD,
    Source,
    files_fingerprint,
    label_of,
    opened,
    readable_name,
    shard_key,
)

# What the standard library raises on a damaged archive: BadZipFile and TarError name themselves, the others leak through.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
)


class _Member(NamedTuple):
    path: str
    data: bytes
    refused: Refused | None = None


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; its shards show only on reading it. See `pipeline.sources`."""
    return Survey(files_fingerprint(source, source.path))


def read(source: Source, wanted: Set[str] | None = None) -> Iterator[Encoded]:
    """Cut the archive into shards while it streams past; see `pipeline.sources`."""
    fingerprint = files_fingerprint(source, source.path)
    members = _tar(source) if source.format == "tar" else _zip(source)
    number = 0
    for number, batch in enumerate(_batches(_guarded(source, members)), start=1):
        key = shard_key(source, number - 1)
        if wanted is None or key in wanted:
            yield _encode(key, fingerprint, batch)
    if not number:
        raise SourceError(f"{source.title}: the archive {source.path} holds no files. Check that it is the right one.")


def _guarded(source: Source, members: Iterator[_Member]) -> Iterator[_Member]:
    try:
        yield from members
    except _DAMAGED as error:
        raise SourceError(
            f"{source.title}: the archive {source.path} is damaged or cut short ({error}). "
            "Nothing was committed; fetch it again."
        ) from error


def _tar(source: Source) -> Iterator[_Member]:
    with (
        opened(source, source.path) as stream,
        tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as archive,
    ):
        for info in archive:
            # A streamed tar keeps every header it has seen; a million of them is a gigabyte.
            archive.members = []  # type: ignore[attr-defined] # the documented way out of that is missing
            if not info.isdir():
                yield _member(source, info.name, info.size, archive.extractfile(info) if info.isreg() else None)
        # tarfile stops at its end mark; only the end of the compressed stream carries its checksum.
        while stream.read(2**20):
            pass


def _zip(source: Source) -> Iterator[_Member]:
    with zipfile.ZipFile(source.path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with archive.open(info) as stream:
                    yield _member(source, info.filename, info.file_size, stream)


def _member(source: Source, name: str, size: int, stream: IO[bytes] | None) -> _Member:
    path = readable_name(name).removeprefix("./")
    if stream is None:
        return _refuse(path, "not_a_file", "a link, device or pipe in the archive", size)
    if size > source.max_bytes:
        return _refuse(path, "too_large", f"{size} bytes, more than decode.max_bytes = {source.max_bytes}", size)
    # A header may lie about the size: read no further than the limit, whatever it says.
    data = stream.read(source.max_bytes + 1)
    if len(data) > source.max_bytes:
        return _refuse(path, "too_large", f"more than decode.max_bytes = {source.max_bytes} bytes", len(data))
    return _Member(path, data)


def _refuse(path: str, reason: str, detail: str, size: int) -> _Member:
    return _Member(path, b"", Refused(path, label_of(path), reason, detail, size))


def _batches(members: Iterator[_Member]) -> Iterator[list[_Member]]:
    batch: list[_Member] = []
    room = BYTES_PER_SHARD
    for member in members:
        batch.append(member)
        room -= len(member.data)
        if len(batch) == IMAGES_PER_SHARD or room <= 0:
            yield batch
            batch, room = [], BYTES_PER_SHARD
    if batch:
        yield batch


def _encode(key: str, fingerprint: str, batch: list[_Member]) -> Encoded:
    good = [member for member in batch if member.refused is None]
    return Encoded(
        shard=key,
        fingerprint=fingerprint,
        paths=tuple(member.path for member in good),
        labels=tuple(label_of(member.path) for member in good),
        contents=Blobs(tuple(member.data for member in good)),
        refused=tuple(member.refused for member in batch if member.refused is not None),
    )
