"""Damage bytes for the fuzz tests: seeded, at any position, or by setting a field to an extreme value."""

import random
import struct

Chance = random.Random
LONGS = (0, 1, 2, 3, 27, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def damage(chance: Chance, data: bytes, other: bytes = b"") -> bytes:
    """Flip bits, cut, insert, delete, repeat, splice, or set a field to an extreme, once to three times."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        data = chance.choice((_flip, _flip, _cut, _insert, _delete, _repeat, _extreme, _extreme))(chance, data)
        if other and chance.random() < 0.1:
            data = data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other)) :]
    return data


def _at(chance: Chance, data: bytes) -> int:
    """Pick a position; positions in the header and at the end are more likely."""
    near = min(len(data), chance.choice((16, 64, 600, len(data) or 1)))
    return max(0, len(data) - 1 - chance.randrange(near or 1)) if chance.random() < 0.3 else chance.randrange(near or 1)


def _flip(chance: Chance, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 16)) if data else 0):
        out[_at(chance, data)] ^= 1 << chance.randrange(8)
    return bytes(out)


def _cut(chance: Chance, data: bytes) -> bytes:
    return data[: _at(chance, data)]


def _insert(chance: Chance, data: bytes) -> bytes:
    at = _at(chance, data)
    return data[:at] + chance.randbytes(chance.choice((1, 2, 4, 100, 512, 3000))) + data[at:]


def _delete(chance: Chance, data: bytes) -> bytes:
    at = _at(chance, data)
    return data[:at] + data[at + chance.choice((1, 2, 4, 100, 512)) :]


def _repeat(chance: Chance, data: bytes) -> bytes:
    at = _at(chance, data)
    piece = data[at : at + chance.choice((1, 12, 100, 512))]
    return data[:at] + piece * chance.choice((2, 3, 50)) + data[at + len(piece) :]


def _extreme(chance: Chance, data: bytes) -> bytes:
    at, form = _at(chance, data), chance.choice(("B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
    field = struct.pack(form, chance.choice(LONGS) % 256 ** struct.calcsize(form))
    return data[:at] + field + data[at + len(field) :]
