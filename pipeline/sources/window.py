"""A stream seen through a buffer that moves forward, in the positions of what is streamed."""

import io
from collections.abc import Callable

from pipeline.sources.source import DAMAGED

# Read at a time: large enough for the decompressor and the walk, small enough to stay in the processor's cache.
CHUNK = 2**20
# Read in pieces: where a stream is damaged, what is behind the last whole piece is lost.
_PIECE = 2**16
# What is skipped in a file that can be sought is not read where it is longer than this.
_WORTH_SEEKING = 2**20


class Window(io.RawIOBase):
    """The part of a stream that is in memory; also a file object that reads forward, for `tarfile`.

    Args:
        stream: a binary stream.
        check: called with the number of bytes read so far, each time more are read.
        longest: most bytes that `read` hands out at once: a header that lies must not take all memory.

    Attributes:
        data: bytes of the stream from `start` on.
        start: position of the first of them.
    """

    def __init__(self, stream: io.BufferedIOBase, check: Callable[[int], None], longest: int) -> None:
        self.data = b""
        self.start = 0
        self._stream, self._check, self._longest = stream, check, longest
        self._at = 0
        self._failure: Exception | None = None

    def reach(self, start: int, stop: int) -> bool:
        """Bring a range into memory, and let go of what is before it.

        Args:
            start: not before `self.start`.
            stop: behind the range's last byte.

        Returns:
            Whether the stream goes as far as `stop`.

        Raises:
            OSError: or any other of DAMAGED, where the stream is damaged before `stop`.
        """
        if start < self.start:
            raise ValueError(f"position {start} is gone: the window starts at {self.start}")
        if stop <= self.start + len(self.data):
            return True
        self._drop(start)
        pieces, held = [self.data], len(self.data)
        enough = max(stop - self.start, CHUNK)
        while held < enough and (piece := self._next(_PIECE)):
            pieces.append(piece)
            held += len(piece)
        self._check(self.start + held)
        self.data = b"".join(pieces)
        if self.start + held < stop and self._failure is not None:
            raise self._failure
        return self.start + held >= stop

    def _next(self, size: int) -> bytes:
        """Read on; nothing at the stream's end. A damaged stream is at its end until somebody asks for what is lost."""
        if self._failure is None:
            try:
                # Not `read`, which would lose what it has read where it trips.
                return self._stream.read1(size)
            except DAMAGED as error:
                self._failure = error
        return b""

    def _drop(self, start: int) -> None:
        gap = start - self.start - len(self.data)
        if gap <= 0:
            self.data = self.data[start - self.start :]
            self.start = start
            return
        self.start, self.data = self.start + len(self.data), b""
        if gap > _WORTH_SEEKING and isinstance(self._stream, io.BufferedReader) and self._stream.seekable():
            # Behind the end of a file nothing is found, as behind the end of a stream.
            self._stream.seek(gap, io.SEEK_CUR)
            self.start = start
            return
        while self.start < start and (piece := self._next(min(_PIECE, start - self.start))):
            self.start += len(piece)
            self._check(self.start)
        # Where the stream ended before, nothing more will come.
        self.start = start

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be sought, forward."""
        return True

    def tell(self) -> int:
        """Position of the next `read`."""
        return self._at

    def seek(self, at: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next `read`, from the start of the stream."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        """Read from the position; fewer bytes only where the stream ends.

        Raises:
            OSError: more is asked for than is read at once.
        """
        if not 0 <= size <= self._longest:
            raise OSError(f"a header of {size} bytes")
        self.reach(self._at, self._at + size)
        begin = self._at - self.start
        found = self.data[begin : begin + size]
        self._at += len(found)
        return found
