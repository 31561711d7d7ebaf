"""Damaged PNG and JPEG files for the fuzz tests.

There are two kinds of damage: at any position of the file, or in one part of it with its checksums corrected, so that
the damage gets past the check of the checksum.
"""

import io
import struct
import zlib
from functools import cache

import numpy as np
from damage import Chance, damage
from making import encoded, pictures, png, png_chunk
from PIL import Image

_PNG_HEAD = b"\x89PNG\r\n\x1a\n"


@cache
def whole_pngs() -> tuple[bytes, ...]:
    gray, color = pictures(1)[0], np.random.default_rng(1).integers(0, 256, (16, 11, 3), dtype=np.uint8)
    image = Image.fromarray(color)
    many = [Image.fromarray(gray).convert(mode) for mode in ("1", "P", "LA", "RGBA", "I;16")]
    out = [encoded(gray), encoded(color), encoded(gray, compress_level=0), encoded(gray[:1, :1])]
    for picture, options in [*((one, {}) for one in many), (image.quantize(4), {"transparency": 1})]:
        stream = io.BytesIO()
        picture.save(stream, "PNG", **options)
        out.append(stream.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    out.append(encoded(color, exif=exif, dpi=(72, 72), icc_profile=b"no profile"))
    before = png_chunk(b"gAMA", struct.pack(">I", 45455)) + png_chunk(b"tRNS", b"\0\7")
    rows = b"".join(b"\0" + bytes(gray[row]) for row in range(28))
    # 79 bytes: the seven passes of an interlaced picture of 8x8.
    return (*out, png((28, 28), 8, 0, rows, before=before), png((8, 8), 8, 0, bytes(79), interlace=1))


def damaged_png(chance: Chance) -> bytes:
    data, other = chance.choice(whole_pngs()), chance.choice(whole_pngs())
    way = chance.random()
    if way < 0.3:
        return damage(chance, data, other)
    chunks = _chunks(data)
    if way < 0.6:
        at = next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT")
        raw = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
        packed = zlib.compress(damage(chance, raw), chance.choice((0, 1, 9)))
        chunks = [part for part in chunks if part[0] != b"IDAT"]
        chunks[at:at] = [(b"IDAT", packed)] if chance.random() < 0.7 else [(b"IDAT", packed[:9]), (b"IDAT", packed[9:])]
    else:
        for _ in range(chance.choice((1, 1, 2))):
            at = chance.choice((0, 0, chance.randrange(len(chunks))))
            kind, body = chunks[at]
            foreign = chance.choice(_chunks(other))
            chunks[at : at + 1] = chance.choice(
                ([(kind, damage(chance, body))] * 3, [(kind, damage(chance, body))], [], [foreign, (kind, body)])
            ) or [foreign]
    return _PNG_HEAD + b"".join(png_chunk(kind, body) for kind, body in chunks)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(_PNG_HEAD)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


@cache
def whole_jpegs() -> tuple[bytes, ...]:
    gray, color = pictures(1)[0], np.random.default_rng(2).integers(0, 256, (33, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 8
    cmyk = io.BytesIO()
    Image.fromarray(color).convert("CMYK").save(cmyk, "JPEG")
    plain = [encoded(gray, "JPEG"), encoded(color, "JPEG"), encoded(color, "JPEG", subsampling=0, quality=97)]
    odd = [encoded(color, "JPEG", progressive=True), encoded(gray, "JPEG", restart_marker_blocks=1), cmyk.getvalue()]
    return (*plain, *odd, encoded(color, "JPEG", exif=exif, optimize=True), encoded(gray[:1, :3], "JPEG"))


def damaged_jpeg(chance: Chance) -> bytes:
    data, other = chance.choice(whole_jpegs()), chance.choice(whole_jpegs())
    if chance.random() < 0.4:
        return damage(chance, data, other)
    segments, scan = _segments(data)
    at = chance.randrange(len(segments) + 1)
    if at == len(segments):
        scan = damage(chance, scan, other)
    else:
        kind, body = segments[at]
        foreign = chance.choice(_segments(other)[0])
        told = [(kind, damage(chance, body))]
        segments[at : at + 1] = chance.choice((told, told, told * 2, [foreign], [foreign, (kind, body)], []))
    wrong = chance.choice((0, 0, 0, 0, 1, -2, 60000))
    parts = [bytes([255, kind]) + struct.pack(">H", (len(body) + 2 + wrong) % 65536) + body for kind, body in segments]
    return b"\xff\xd8" + b"".join(parts) + scan


def _segments(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Divide a JPEG into the segments before the data of its first scan, and the rest."""
    found: list[tuple[int, bytes]] = []
    at = 2
    while not found or found[-1][0] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4])
        found.append((data[at + 1], data[at + 4 : at + 2 + size]))
        at += 2 + size
    return found, data[at:]
