"""Read an exact number of bytes from a stream, whatever a file's header promises."""

from typing import Protocol

_CHUNK_BYTES = 2**20


class ByteStream(Protocol):
    """A stream of bytes that can only be read forward."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; empty bytes mean the end of the stream."""
        ...


def read_exactly(stream: ByteStream, size: int) -> bytearray:
    """Read an exact number of bytes.

    Memory grows with the bytes that are there, not with `size`: a damaged header may promise more than the file has.

    Args:
        stream: the stream, at the first byte to read.
        size: the number of bytes.

    Returns:
        `size` bytes.

    Raises:
        ValueError: the stream ends before. Errors of the stream itself pass through.
    """
    data = bytearray()
    while len(data) < size and (chunk := stream.read(min(size - len(data), _CHUNK_BYTES))):
        data += chunk
    if len(data) != size:
        raise ValueError(f"{size} bytes expected, {len(data)} found")
    return data
