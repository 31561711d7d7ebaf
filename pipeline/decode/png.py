"""The chunks of a PNG file.

References:
    PNG (Portable Network Graphics) Specification, section 5, "Datastream structure".
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Bytes of a chunk beside its content: length, type, checksum.
_OVERHEAD = 12


class Chunk(NamedTuple):
    """A chunk: its type, such as b"IDAT", and the positions of its first byte and behind its last."""

    kind: bytes
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bytes of content."""
        return self.stop - self.start - _OVERHEAD

    def is_intact(self, data: bytes) -> bool:
        """Return whether the checksum of the chunk is right."""
        body = memoryview(data)[self.start + 4 : self.stop - 4]
        return zlib.crc32(body) == int.from_bytes(data[self.stop - 4 : self.stop])


def chunks(data: bytes, start: int = len(SIGNATURE)) -> Iterator[Chunk]:
    """List the chunks of a PNG that are complete, in their order.

    Args:
        data: a file that begins with `SIGNATURE`.
        start: position of the first chunk.
    """
    while (stop := start + _OVERHEAD + int.from_bytes(data[start : start + 4])) <= len(data):
        yield Chunk(data[start + 4 : start + 8], start, stop)
        start = stop
