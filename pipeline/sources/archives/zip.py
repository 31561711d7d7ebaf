"""Zip archives of class folders: the directory is read here, workers decompress the content. Nothing is extracted.

The standard library reads and checks the directory. Stored and deflated files, nearly all there are, are read here by
their position in the archive; files with other compression by the standard library.

A name is UTF-8 if the archive says so, or if the extra field of the entry has a Unicode name (Info-ZIP). Other names
are code page 437, as in the standard library and `unzip`. Backslashes of Windows tools separate folders.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipInfo

from isal import isal_zlib

from pipeline.errors import SourceError, one_line
from pipeline.shard import Blobs, Deferred, Encoded, Reject, Survey
from pipeline.sources.archives.archive import (
    Members,
    are_separators,
    clean_path,
    cut_into_shards,
    encodings_of,
    folders_of,
    make_shard,
    rejection,
    select_members,
    unpacked_size_check,
    with_archive_errors,
    with_slashes,
)
from pipeline.sources.archives.tar_walk import symbolic_link
from pipeline.sources.roles import levels_of_paths, splits_of
from pipeline.sources.source import DAMAGED, Source, files_fingerprint, readable_name, shard_key, system_file

_UTF8_FLAG = 0x800
_UTF8, _CP437 = "utf-8", "cp437"
_UNICODE_PATH = 0x7075
_FIELD, _UNICODE_HEAD = struct.Struct("<HH"), struct.Struct("<BL")
# Values of `create_system` for FAT, HPFS, NTFS and VFAT.
_WINDOWS = frozenset([0, 6, 10, 14])


def raw_name(info: ZipInfo) -> bytes:
    """Return the bytes of a name in the archive."""
    return info.orig_filename.encode(_UTF8 if info.flag_bits & _UTF8_FLAG else _CP437)


def readable_names(infos: Sequence[ZipInfo]) -> list[str]:
    """Return the names of entries, in their order; names of folders end in "/"."""
    unicode_names = [
        _unicode_name(info) if _UNICODE_PATH.to_bytes(2, "little") in info.extra else None for info in infos
    ]
    names = [info.filename if name is None else name for info, name in zip(infos, unicode_names, strict=True)]
    with_backslashes = [index for index, name in enumerate(names) if "\\" in name]
    if not with_backslashes:
        return names
    no_slashes = not any("/" in name for name in names)
    raw = [raw_name(info) for info in infos if not info.flag_bits & _UTF8_FLAG]
    encodings = encodings_of(raw, no_slashes=no_slashes)
    are_folders = are_separators(name for name in names if name[-1:] not in ("/", "\\") and not system_file(name))
    for index in with_backslashes:
        info = infos[index]
        mixed = are_folders or info.create_system in _WINDOWS
        unicode = unicode_names[index] is not None or info.flag_bits & _UTF8_FLAG
        encoding = _UTF8 if unicode else _CP437
        name = with_slashes(names[index].encode(encoding), mixed=mixed, encodings=encodings, no_slashes=no_slashes)
        names[index] = name.decode(encoding)
    return names


def _unicode_name(info: ZipInfo) -> str | None:
    """Read the Unicode name in the extra field of an entry; None if there is none, or if its checksum is wrong."""
    extra = info.extra
    while len(extra) >= _FIELD.size:
        kind, length = _FIELD.unpack_from(extra)
        field, extra = extra[_FIELD.size : _FIELD.size + length], extra[_FIELD.size + length :]
        if kind == _UNICODE_PATH and length > _UNICODE_HEAD.size:
            version, checksum = _UNICODE_HEAD.unpack_from(field)
            if version == 1 and checksum == zlib.crc32(raw_name(info)):
                return _text(field[_UNICODE_HEAD.size :])
    return None


def _text(name: bytes) -> str | None:
    try:
        return name.decode(_UTF8).partition("\0")[0] or None
    except UnicodeDecodeError:
        return None


_MAGIC = (b"PK\3\4", b"PK\5\6")
# A zip ends in a record of 22 bytes and a comment of at most 65,535.
_END_RECORD_BYTES = 22 + 65_535
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED, _FAST_METHODS = 0x1, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MSDOS_FOLDER = 0x10
# Most bytes that are read of the target of a link.
_MAX_TARGET_BYTES = 4096


class _Entry(NamedTuple):
    """Position and compression of a file in the archive."""

    header: int
    name: bytes
    method: int
    packed: int
    size: int
    checksum: int


def recognises(path: Path, head: bytes) -> bool:
    """Recognise a zip by its first bytes, or by its end if other data precede it; see `pipeline.sources`."""
    return head.startswith(_MAGIC) or (not path.is_dir() and zipfile.is_zipfile(path))


def splits_within(source: Source) -> dict[str, tuple[str, ...]]:
    """Find the folders of each split; see `pipeline.sources.forms`."""
    return splits_of(levels_of_paths(folders_of(with_archive_errors(source, _members(source, [])))))


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; see `pipeline.sources`."""
    return Survey(files_fingerprint(source, source.path))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the directory into shards; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    infos: list[zipfile.ZipInfo] = []
    seen = 0
    for number, batch in enumerate(
        cut_into_shards(source, select_members(source, with_archive_errors(source, _members(source, infos))))
    ):
        key = shard_key(source, number)
        if wanted is None or key in wanted:
            packed = tuple(_entry(infos[index]) for index in batch.members.starts)
            contents = Deferred(partial(_unpack, source.title, source.path, packed))
            seen = max(seen, *batch.members.starts) if batch.members.starts else seen
            yield make_shard(source, key, fingerprint, batch, contents, (seen + 1) / len(infos))


def _members(source: Source, infos: list[zipfile.ZipInfo]) -> Iterator[Members | Reject]:
    """Yield the files of the archive, in the order of its directory; the start of each is its index there.

    Args:
        source: a zip.
        infos: is filled with the entries of the directory.

    Raises:
        zipfile.BadZipFile: the directory is damaged.
        RuntimeError: a file has a password.
    """
    with zipfile.ZipFile(source.path) as archive:
        infos += archive.infolist()
        _check_count(source, len(infos))
        check, unpacked = unpacked_size_check(source), 0
        for number, (info, name) in enumerate(zip(infos, readable_names(infos), strict=True)):
            if _is_folder(info, name):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise RuntimeError(f"{info.filename} is encrypted, a password is required")
            path = clean_path(name)
            reject = rejection(source, path, info.file_size, _link(archive, info))
            unpacked += 0 if reject else info.file_size
            check(unpacked)
            yield reject or Members([path], [b""], [number], [info.file_size])


def _is_folder(info: zipfile.ZipInfo, name: str) -> bool:
    """Return whether an entry is a folder: its name ends in "/", or an attribute marks it."""
    marked = stat.S_ISDIR(info.external_attr >> 16) or info.external_attr & _MSDOS_FOLDER
    return info.is_dir() or (not info.file_size and bool(marked or name.endswith("/")))


def _link(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    """Return why an entry that is a link is not read; empty if it is not a link."""
    if not stat.S_ISLNK(info.external_attr >> 16):
        return ""
    with archive.open(info) as stream:
        target = stream.read(_MAX_TARGET_BYTES)
    return symbolic_link(readable_name(target.decode("utf-8", "surrogateescape")))


def _check_count(source: Source, found: int) -> None:
    """Compare the directory with the number of files in the end record, which zipfile does not check."""
    with source.path.open("rb") as stream:
        stream.seek(max(0, source.path.stat().st_size - _END_RECORD_BYTES))
        tail = stream.read()
    end = tail.rfind(b"PK\5\6")
    count = int.from_bytes(tail[end + 10 : end + 12], "little")
    # 0xFFFF: the number is in the record of a 64-bit archive. Some writers store larger numbers modulo 65,536.
    if count not in (0xFFFF, found & 0xFFFF):
        raise zipfile.BadZipFile(f"its directory lists {found} files where its end says {count}")


def _entry(info: zipfile.ZipInfo) -> _Entry:
    return _Entry(info.header_offset, raw_name(info), info.compress_type, info.compress_size, info.file_size, info.CRC)


def _unpack(title: str, path: Path, members: Sequence[_Entry]) -> Blobs:
    """Decompress files of a zip; runs in a worker.

    Raises:
        SourceError: the archive is damaged, or packed in a method that is not unicode_names.
    """
    try:
        with path.open("rb") as stream:
            return Blobs(tuple(_content(stream.fileno(), path, member) for member in members))
    except NotImplementedError as error:
        raise SourceError(
            f"{title}: the archive {path} cannot be unpacked ({one_line(error)}). "
            "Nothing was committed; unpack it with another tool and name the folder."
        ) from error
    except (zipfile.BadZipFile, ValueError, struct.error, *DAMAGED) as error:
        raise SourceError(
            f"{title}: the archive {path} is damaged or cut short ({one_line(error)}). "
            "Nothing was committed; fetch it again."
        ) from error


def _content(file: int, path: Path, member: _Entry) -> bytes:
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(os.pread(file, _LOCAL_HEADER.size, member.header))
    shown_name = member.name.decode("utf-8", "replace")
    start = member.header + _LOCAL_HEADER.size
    if magic != _MAGIC[0] or os.pread(file, name_length, start) != member.name:
        raise zipfile.BadZipFile(f"no header of {shown_name} where the directory says it is")
    if member.method not in _FAST_METHODS:
        return _read_with_zipfile(path, member)
    packed = os.pread(file, member.packed, start + name_length + extra_length)
    if len(packed) != member.packed:
        raise EOFError(f"the archive ends in the middle of {shown_name}")
    data = packed if member.method == zipfile.ZIP_STORED else _inflate(packed, member.size)
    if len(data) != member.size or zlib.crc32(data) != member.checksum:
        raise zipfile.BadZipFile(f"Bad CRC-32 or size of {shown_name}")
    return data


def _inflate(packed: bytes, size: int) -> bytes:
    # One byte more than is count, and no more: a false size must not fill the memory.
    return isal_zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(packed, size + 1)


def _read_with_zipfile(path: Path, member: _Entry) -> bytes:
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.header_offset == member.header)
        with archive.open(info) as stream:
            return stream.read(member.size + 1)
