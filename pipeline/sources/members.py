"""The files of an archive one after the other, by its own reader: tar and zip."""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, NamedTuple, Self

from pipeline.encoded import Refused
from pipeline.sources.source import Source, label_of, opened, readable_name

# A zip ends in a record of 22 bytes and a comment of at most 65,535.
_ZIP_TAIL = 22 + 65_535


class Member(NamedTuple):
    """One file of an archive, or why it is not read."""

    path: str
    data: bytes
    refused: Refused | None = None


def tar_members(source: Source) -> Iterator[Member]:
    """Stream the files of a tar archive, in its order.

    Raises:
        tarfile.TarError: the archive is damaged, has no end mark, or goes on behind it; or what its compression raises.
    """
    with (
        opened(source, source.path) as stream,
        tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape", tarinfo=_StrictHeader) as archive,
    ):
        for info in archive:
            # A streamed tar keeps every header it has seen; a million of them is a gigabyte.
            archive.members = []  # type: ignore[attr-defined] # the documented way out of that is missing
            if not info.isdir():
                yield _member(source, info.name, info.size, archive.extractfile(info) if info.isreg() else None)
        _read_to_end(archive)


def zip_members(source: Source) -> Iterator[Member]:
    """Read the files of a zip archive, in the order of its directory.

    Raises:
        zipfile.BadZipFile: the archive is damaged; or what its compression raises.
        RuntimeError: a file has a password or an unknown compression.
    """
    with zipfile.ZipFile(source.path) as archive:
        _check_count(source, len(archive.infolist()))
        for info in archive.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                yield _member(source, info.filename, info.file_size, None)
            elif not info.is_dir():
                with archive.open(info) as stream:
                    yield _member(source, info.filename, info.file_size, stream)


class _StrictHeader(tarfile.TarInfo):
    """A header that must be there: behind the first, tarfile takes a missing or broken one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _END_MARK:
            raise
        except _BAD_HEADER as error:
            raise _READ_ERROR(f"{error} where the next file or the end mark should be") from error


# The argument of `fromtarfile` is called like the module.
_END_MARK: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined] # not in typeshed
_BAD_HEADER, _READ_ERROR = tarfile.HeaderError, tarfile.ReadError


def _read_to_end(archive: tarfile.TarFile) -> None:
    """Read what follows the end mark: padding, and the checksum of a compressed archive."""
    while block := archive.fileobj.read(2**20):
        if block.strip(b"\0"):
            raise tarfile.ReadError("it goes on behind its end mark: two archives in one file?")


def _check_count(source: Source, found: int) -> None:
    """Compare the directory with the count in the archive's last record, which zipfile does not look at."""
    with source.path.open("rb") as stream:
        stream.seek(max(0, source.path.stat().st_size - _ZIP_TAIL))
        tail = stream.read()
    end = tail.rfind(b"PK\5\6")
    told = int.from_bytes(tail[end + 10 : end + 12], "little")
    # All ones: the count stands in the record of a 64-bit archive. Some writers let larger counts run over.
    if told not in (0xFFFF, found & 0xFFFF):
        raise zipfile.BadZipFile(f"its directory lists {found} files where its end says {told}")


def _member(source: Source, name: str, size: int, stream: IO[bytes] | None) -> Member:
    # "./A/x", "A//x" and "/A/x" would all unpack to A/x.
    path = "/".join(part for part in readable_name(name).split("/") if part not in ("", "."))
    if stream is None:
        return _refuse(path, "not_a_file", "a link, device or pipe in the archive", size)
    if size > source.max_bytes:
        return _refuse(path, "too_large", f"{size} bytes, more than decode.max_bytes = {source.max_bytes}", size)
    # Neither reader gives out more than its header says, and a size that lies fails behind it: one byte more has the
    # checksum looked at. Not many more, for Python sets aside all that is asked for.
    return Member(path, stream.read(size + 1))


def _refuse(path: str, reason: str, detail: str, size: int) -> Member:
    return Member(path, b"", Refused(path, label_of(path), reason, detail, size))
