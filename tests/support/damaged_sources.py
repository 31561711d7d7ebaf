"""Damaged sources and images for the fuzz tests: the same kind and number always give the same bytes.

`damaged("png", 17)` is the 17th damaged PNG.
"""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping

import numpy as np
from damage import LONGS, Chance, damage
from damaged_images import damaged_jpeg, damaged_png, whole_jpegs, whole_pngs


def damaged(kind: str, number: int) -> bytes:
    """Make one damaged input: the same for the same kind and number, with the same versions of Pillow and zlib."""
    return KINDS[kind](Chance(f"{kind}:{number}"))


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def _idx(chance: Chance) -> bytes:
    count = chance.choice((0, 1, 30, 30))
    shape: tuple[int, ...] = chance.choice(((28, 28), (1, 1), (5, 7, 3), (4, 4, 1), (3,), (2, 2, 9)))
    way = chance.random()
    if way < 0.3:  # undamaged content, whatever the header says
        shape = tuple(chance.choice((0, 1, 2, 40, size)) for size in shape)
    head = struct.pack(f">HBB{len(shape) + 1}I", 0, 8, len(shape) + 1, count, *shape)
    body = chance.randbytes(count * int(np.prod(shape)))
    if way > 0.5:
        head, body = chance.choice(((damage(chance, head), body), (head, damage(chance, body))))
    data = head + body if way < 0.9 else damage(chance, head + body)
    packed = chance.random()
    return _packed(data) if packed < 0.2 else damage(chance, _packed(data)) if packed < 0.3 else data


_VALUES = (
    "-1",
    "256",
    "1e2",
    "",
    "NaN",
    '"',
    '"7"',
    "\0",
    "9" * 400,
    "9" * 5000,
    "0x1f",
    " 7 ",
    "7.0",
    "é",
    "\r",
    "\udcff",
    ",,",
    "\n",
)


def _csv(chance: Chance) -> bytes:
    pixels, rows = chance.choice((4, 9, 64, 784)), chance.choice((1, 3, 20))
    lines = [[str(chance.randrange(256)) for _ in range(pixels + 1)] for _ in range(rows)]
    if chance.random() < 0.7:
        lines.insert(0, ["label", *(f"pixel{at}" for at in range(pixels))])
    elif chance.random() < 0.7:
        lines = [["abc"[int(label) % 3], *values] for label, *values in lines]
    for _ in range(chance.randrange(8)):
        line = chance.choice(lines)
        line[chance.randrange(len(line))] = chance.choice(_VALUES)
    end = chance.choice(("\n", "\n", "\r\n"))
    text = chance.choice(("", "", "\ufeff", "\n")) + end.join(map(",".join, lines)) + chance.choice(("", end))
    data = text.encode("utf-8", "surrogateescape")
    data = damage(chance, data) if chance.random() < 0.6 else data
    return _packed(data) if chance.random() < 0.1 else data


def _members(chance: Chance) -> dict[str, bytes]:
    """Make a few files with whole and damaged content and good and odd names."""
    names = (
        "A/1.png",
        "A/2.png",
        "B/3.jpg",
        "top.png",
        "./A/./4.png",
        "/abs.png",
        "../up.png",
        "A/é\U0001f600.png",
        "x" * 300,
    )
    files = (
        chance.choice(whole_pngs()),
        chance.choice(whole_jpegs()),
        b"",
        b"no image",
        damaged_png(chance),
        damaged_jpeg(chance),
    )
    return {name: chance.choice(files) for name in chance.sample(names, chance.randrange(1, 6))}


def _zip(chance: Chance) -> bytes:
    out = io.BytesIO()
    ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(out, "w", chance.choice(ways)) as archive:
        for name, content in _members(chance).items():
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.comment = chance.randbytes(chance.choice((0, 0, 30)))
    data = out.getvalue()
    way = chance.random()
    if way < 0.3:
        return damage(chance, data)
    if way < 0.4:
        return _zip64(data, chance.choice(LONGS))
    # A record of the directory, of a file or of the end, with one of its fields set to an extreme value.
    magic = chance.choice((b"PK\1\2", b"PK\1\2", b"PK\3\4", b"PK\5\6"))
    places = [at for at in range(len(data)) if data.startswith(magic, at)]
    at = chance.choice(places) + chance.randrange(4, {b"PK\1\2": 46, b"PK\3\4": 30, b"PK\5\6": 22}[magic])
    form = chance.choice(("B", "<H", "<I"))
    field = struct.pack(form, chance.choice(LONGS) % 256 ** struct.calcsize(form))
    return data[:at] + field + data[at + len(field) :]


def _zip64(data: bytes, size: int) -> bytes:
    """Store the size of the first member in 64 bits, in an extra field of the directory's entry."""
    at, end = data.index(b"PK\1\2"), data.rindex(b"PK\5\6")
    extra = struct.pack("<HHQ", 1, 8, size)
    behind = at + 46 + int.from_bytes(data[at + 28 : at + 30], "little")
    told = struct.pack("<I", int.from_bytes(data[end + 12 : end + 16], "little") + len(extra))
    entry = data[at : at + 24] + b"\xff" * 4 + data[at + 28 : at + 30] + struct.pack("<H", len(extra))
    return data[:at] + entry + data[at + 32 : behind] + extra + data[behind : end + 12] + told + data[end + 16 :]


# Fields of a tar's header: offset and bytes.
_FIELDS = (
    (0, 100),
    (100, 8),
    (108, 8),
    (124, 12),
    (124, 12),
    (124, 12),
    (136, 12),
    (156, 1),
    (156, 1),
    (257, 8),
    (345, 155),
)
_NUMBERS = (
    b"0" * 11,
    b"77777777777",
    b"-1",
    b"00000000010",
    b"\x80" + b"\0" * 10 + b"\1",
    b"\xff" * 12,
    b"\x80" + b"\xff" * 11,
    b" ",
    b"9",
)


_SIZES = ("10", "-1", "0x9", "1e3", "", str(2**63), str(2**64), "9" * 5000)


def _tar(chance: Chance) -> bytes:
    out = io.BytesIO()
    form = chance.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in _members(chance).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = chance.choice(({}, {}, {"path": name, "comment": "x"}, {"size": chance.choice(_SIZES)}))
            archive.addfile(info, io.BytesIO(content))
        if chance.random() < 0.2:
            link = tarfile.TarInfo("A/link.png")
            link.type, link.linkname = chance.choice((tarfile.LNKTYPE, tarfile.SYMTYPE)), "A/1.png"
            archive.addfile(link)
    data = out.getvalue()[: chance.choice((None, None, len(out.getvalue().rstrip(b"\0")) // 512 * 512 + 1024))]
    return damage(chance, data) if chance.random() < 0.3 else _tar_field(chance, bytearray(data))


def _tar_field(chance: Chance, data: bytearray) -> bytes:
    """Change a field of a header, or the records behind it, and correct the checksum."""
    heads = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    head = chance.choice(heads)
    at, size = chance.choice(_FIELDS)
    field = chance.choice(b"0123456789LKxgSVMDANXE\0Z").to_bytes(1) if size == 1 else chance.choice(_NUMBERS)
    if chance.random() < 0.3:  # the long name, the PAX records with their lengths, or the content
        block = bytes(data[head + 512 : head + 1024])
        block = chance.choice((damage(chance, block), b"1" * chance.choice((1, 20)) + block))
        data[head + 512 : head + 1024] = block[:512].ljust(512, b"\0")
    data[head + at : head + at + size] = chance.choice((field, chance.randbytes(size)))[:size].ljust(size, b"\0")
    data[head + 148 : head + 156] = b" " * 8
    data[head + 148 : head + 156] = b"%06o\0 " % sum(data[head : head + 512])
    return bytes(data)


def _tar_gz(chance: Chance) -> bytes:
    data = _tar(chance)
    return _packed(data) if chance.random() < 0.5 else damage(chance, _packed(data))


KINDS: Mapping[str, Callable[[Chance], bytes]] = {
    "png": damaged_png,
    "jpeg": damaged_jpeg,
    "idx": _idx,
    "csv": _csv,
    "zip": _zip,
    "tar": _tar,
    "tar.gz": _tar_gz,
}
