"""The names of a zip's files: text, with the backslashes of Windows tools read as separators of folders.

A name is UTF-8 where the archive says so, or where the extra field of the entry holds a Unicode name (Info-ZIP). Else
it is read as code page 437, as the standard library and `unzip` read it.
"""

import struct
import zlib
from collections.abc import Sequence
from zipfile import ZipInfo

from pipeline.sources.backslashes import are_separators, encodings_of, with_slashes
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
