"""Zip archives of class folders: the directory is read here, and workers unpack what they decode. Nothing is extracted.

The directory and its checks are the standard library's. Members that are stored or deflated, nearly all there are, are
unpacked here by their place in the file; what is packed otherwise, by the standard library.

The names of a zip's files: text, with the backslashes of Windows tools read as separators of folders.

A name is UTF-8 where the archive says so, or where the extra field of the entry holds a Unicode name (Info-ZIP). Else
it is read as code page 437, as the standard library and `unzip` read it.
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

from pipeline.errors import SourceError
from pipeline.shard import Blobs, Encoded, Made, Refused, Survey
from pipeline.sources.archives.backslashes import are_separators, encodings_of, with_slashes
from pipeline.sources.archives.members import Members, clean_path, folders_of, of_source, refusal, unpacking_check
from pipeline.sources.archives.tar import batches, encode, guarded
from pipeline.sources.archives.tar_walk import symbolic_link
from pipeline.sources.roles import levels_of_paths, splits_of
from pipeline.sources.source import DAMAGED, Source, files_fingerprint, one_line, readable_name, shard_key
from pipeline.sources.system_files import system_file

_MARKED_UTF8 = 0x800
_UTF8, _PLAIN = "utf-8", "cp437"
_UNICODE_PATH = 0x7075
_FIELD, _UNICODE_HEAD = struct.Struct("<HH"), struct.Struct("<BL")
# Of the systems that an entry may say it was made on: FAT, HPFS, NTFS, VFAT.
_WINDOWS = frozenset([0, 6, 10, 14])


def raw_name(info: ZipInfo) -> bytes:
    """Give a name as it stands in the archive."""
    return info.orig_filename.encode(_UTF8 if info.flag_bits & _MARKED_UTF8 else _PLAIN)


def readable_names(infos: Sequence[ZipInfo]) -> list[str]:
    """Read the names of a zip's entries, in their order; those of folders end in "/"."""
    known = [_unicode_name(info) if _UNICODE_PATH.to_bytes(2, "little") in info.extra else None for info in infos]
    names = [info.filename if name is None else name for info, name in zip(infos, known, strict=True)]
    odd = [place for place, name in enumerate(names) if "\\" in name]
    if not odd:
        return names
    alone = not any("/" in name for name in names)
    raw = [raw_name(info) for info in infos if not info.flag_bits & _MARKED_UTF8]
    encodings = encodings_of(raw, alone=alone)
    shared = are_separators(name for name in names if name[-1:] not in ("/", "\\") and not system_file(name))
    for place in odd:
        info = infos[place]
        mixed = shared or info.create_system in _WINDOWS
        unicode = known[place] is not None or info.flag_bits & _MARKED_UTF8
        encoding = _UTF8 if unicode else _PLAIN
        name = with_slashes(names[place].encode(encoding), mixed=mixed, encodings=encodings, alone=alone)
        names[place] = name.decode(encoding)
    return names


def _unicode_name(info: ZipInfo) -> str | None:
    """Read the Unicode name in an entry's extra field; None where there is none, or it belongs to another name."""
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
_TAIL = 22 + 65_535
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED, _PLAIN_WAYS = 0x1, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MSDOS_FOLDER = 0x10
# Of what a link leads to, so many bytes are read.
_LONGEST_TARGET = 4096


class _Packed(NamedTuple):
    """Where and how a member lies in the file."""

    header: int
    name: bytes
    way: int
    packed: int
    size: int
    checksum: int


def recognises(path: Path, head: bytes) -> bool:
    """Tell a zip by its first bytes, or by its end where something else stands in front."""
    return head.startswith(_MAGIC) or (not path.is_dir() and zipfile.is_zipfile(path))


def splits_within(source: Source) -> dict[str, tuple[str, ...]]:
    """Tell which folders belong to which split; see `pipeline.sources.forms`."""
    return splits_of(levels_of_paths(folders_of(guarded(source, _members(source, [])))))


def survey(source: Source) -> Survey:
    """Fingerprint the archive by size and time; see `pipeline.sources`."""
    return Survey(files_fingerprint(source, source.path))


def read(source: Source, wanted: AbstractSet[str] | None = None) -> Iterator[Encoded]:
    """Cut the directory into shards; see `pipeline.sources`."""
    fingerprint = survey(source).fingerprint
    infos: list[zipfile.ZipInfo] = []
    seen = 0
    for number, batch in enumerate(batches(source, of_source(source, guarded(source, _members(source, infos))))):
        key = shard_key(source, number)
        if wanted is None or key in wanted:
            packed = tuple(_packed(infos[place]) for place in batch.members.starts)
            contents = Made(partial(_unpack, source.title, source.path, packed))
            seen = max(seen, *batch.members.starts) if batch.members.starts else seen
            yield encode(source, key, fingerprint, batch, contents, (seen + 1) / len(infos))


def _members(source: Source, infos: list[zipfile.ZipInfo]) -> Iterator[Members | Refused]:
    """List the files of the archive, in the order of its directory; the start of each is its number there.

    Args:
        source: a zip.
        infos: gets the directory's entries.

    Raises:
        zipfile.BadZipFile: the directory is damaged.
        RuntimeError: a file has a password.
    """
    with zipfile.ZipFile(source.path) as archive:
        infos += archive.infolist()
        _check_count(source, len(infos))
        check, unpacked = unpacking_check(source), 0
        for number, (info, name) in enumerate(zip(infos, readable_names(infos), strict=True)):
            if _is_folder(info, name):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise RuntimeError(f"{info.filename} is encrypted, a password is required")
            path = clean_path(name)
            refused = refusal(source, path, info.file_size, _link(archive, info))
            unpacked += 0 if refused else info.file_size
            check(unpacked)
            yield refused or Members([path], [b""], [number], [info.file_size])


def _is_folder(info: zipfile.ZipInfo, name: str) -> bool:
    """Tell folders, some of which have no "/" at the end of their name but an attribute that says so."""
    marked = stat.S_ISDIR(info.external_attr >> 16) or info.external_attr & _MSDOS_FOLDER
    return info.is_dir() or (not info.file_size and bool(marked or name.endswith("/")))


def _link(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    """Say what is wrong with an entry that is a link; empty where it is none."""
    if not stat.S_ISLNK(info.external_attr >> 16):
        return ""
    with archive.open(info) as stream:
        target = stream.read(_LONGEST_TARGET)
    return symbolic_link(readable_name(target.decode("utf-8", "surrogateescape")))


def _check_count(source: Source, found: int) -> None:
    """Compare the directory with the count in the archive's last record, which zipfile does not look at."""
    with source.path.open("rb") as stream:
        stream.seek(max(0, source.path.stat().st_size - _TAIL))
        tail = stream.read()
    end = tail.rfind(b"PK\5\6")
    told = int.from_bytes(tail[end + 10 : end + 12], "little")
    # All ones: the count stands in the record of a 64-bit archive. Some writers let larger counts run over.
    if told not in (0xFFFF, found & 0xFFFF):
        raise zipfile.BadZipFile(f"its directory lists {found} files where its end says {told}")


def _packed(info: zipfile.ZipInfo) -> _Packed:
    return _Packed(info.header_offset, raw_name(info), info.compress_type, info.compress_size, info.file_size, info.CRC)


def _unpack(title: str, path: Path, members: Sequence[_Packed]) -> Blobs:
    """Unpack members of a zip; runs in a worker.

    Raises:
        SourceError: the archive is damaged, or packed in a way that is not known.
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


def _content(file: int, path: Path, member: _Packed) -> bytes:
    magic, name_length, extra_length = _LOCAL.unpack(os.pread(file, _LOCAL.size, member.header))
    shown = member.name.decode("utf-8", "replace")
    start = member.header + _LOCAL.size
    if magic != _MAGIC[0] or os.pread(file, name_length, start) != member.name:
        raise zipfile.BadZipFile(f"no header of {shown} where the directory says it is")
    if member.way not in _PLAIN_WAYS:
        return _otherwise(path, member)
    packed = os.pread(file, member.packed, start + name_length + extra_length)
    if len(packed) != member.packed:
        raise EOFError(f"the archive ends in the middle of {shown}")
    data = packed if member.way == zipfile.ZIP_STORED else _inflate(packed, member.size)
    if len(data) != member.size or zlib.crc32(data) != member.checksum:
        raise zipfile.BadZipFile(f"Bad CRC-32 or size of {shown}")
    return data


def _inflate(packed: bytes, size: int) -> bytes:
    # One byte more than is told, and no more: a size that lies must not fill the memory.
    return isal_zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(packed, size + 1)


def _otherwise(path: Path, member: _Packed) -> bytes:
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.header_offset == member.header)
        with archive.open(info) as stream:
            return stream.read(member.size + 1)
