"""Output that fails does not stop a command: a build goes on and publishes when its stdout is closed or full.

What cannot be written is discarded, and the first error is kept. The command ends as it would have ended otherwise,
except that output lost for another reason than a closed pipe is an error.
"""

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# What a stream that nobody reads any more gives: `imagelake sql ... | head` is not an error.
_CLOSED = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)


class LossyOutput(io.RawIOBase):
    """A stream that discards what it cannot write.

    Args:
        raw: the stream to write to.

    Attributes:
        error: the first error; None if everything was written.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._raw.isatty()

    def fileno(self) -> int:
        """Return the number of the descriptor."""
        return self._raw.fileno()

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write bytes, or discard them. Returns how many."""
        if self.error is None:
            try:
                while (count := self._raw.write(data)) is None:
                    # Another program has made the pipe non-blocking, and it is full.
                    select.select([], [self.fileno()], [])
            except OSError as error:
                self.error = error
            else:
                return count
        return memoryview(data).nbytes


def open_streams() -> None:
    """Make stdout and stderr of this process lossy. Missing standard descriptors become the null device.

    Without this, a file that is opened later gets the number of the missing descriptor, and prints overwrite it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                # The lowest free number is this one.
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 - it has no name
    sys.stdout, sys.stderr = _lossy(sys.stdout, 1), _lossy(sys.stderr, 2)


def lost_output() -> OSError | None:
    """Return why output on stdout was discarded; None if none was."""
    raw = _raw(sys.stdout)
    return raw.error if isinstance(raw, LossyOutput) else None


def incomplete_output() -> OSError | None:
    """Return why stdout is incomplete; None if all was written, or its reader has closed it."""
    with suppress(ValueError):  # it is closed
        sys.stdout.flush()
    error = lost_output()
    return None if error is None or error.errno in _CLOSED else error


def _lossy(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        # Python found no descriptor when it started.
        null = io.FileIO(number, "w", closefd=False)
        return io.TextIOWrapper(io.BufferedWriter(null), encoding="utf-8", errors="backslashreplace")
    raw = _raw(stream)
    if not isinstance(raw, io.RawIOBase) or isinstance(raw, LossyOutput):
        return stream
    lossy = io.BufferedWriter(LossyOutput(raw))
    return io.TextIOWrapper(lossy, encoding=stream.encoding, errors=stream.errors, line_buffering=True)


def _raw(stream: TextIO) -> object:
    """Return the stream below a text stream, which has no buffer with PYTHONUNBUFFERED."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)
