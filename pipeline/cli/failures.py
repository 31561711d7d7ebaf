"""Turn an error that surroundings cause into one line and an exit code; end in one line on SIGTERM.

An error that is a bug of imagelake is not described here: it keeps its traceback.
"""

import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import click

from pipeline.cli.terminal import print_line
from pipeline.errors import ImagelakeError, one_line
from pipeline.limits import limit_error
from pipeline.os_errors import os_error_line

# Signals that ask a command to end. Shells give 128 and the number as exit code.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Seconds for workers to finish what they do and for files to be deleted; after them the command ends without.
_GRACE_SECONDS = 5.0


class Failure(NamedTuple):
    """The line to print on stderr, and the exit code."""

    line: str
    code: int


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end. Handled like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def failure(error: BaseException) -> Failure | None:
    """Describe how a command ended.

    Args:
        error: what ended it.

    Returns:
        What to print; None for a bug, whose traceback is needed.
    """
    if isinstance(error, click.Abort):
        # click replaces Ctrl-C, and the end of a file too.
        error = error.__cause__ or KeyboardInterrupt()
    if isinstance(error, KeyboardInterrupt):
        return _stopped(error)
    line = _line(error)
    return None if line is None else Failure(f"imagelake: {line}", 1)


def _line(error: BaseException) -> str | None:
    """Describe an error that is no bug."""
    line: object = limit_error(error) or os_error_line(error)
    hint = _hint_at_folder()
    if isinstance(error, ImagelakeError):
        line = line or (f"{str(error).rstrip('.')}. {hint}" if hint else error)
    elif isinstance(error, FileNotFoundError) and "usable temporary directory" in str(error):
        line = "no folder for temporary files can be written to. Set TMPDIR to one that can."
    elif isinstance(error, FileNotFoundError) and hint and not str(error.filename or "").startswith(os.sep):
        line = hint
    elif isinstance(error, OSError) and line is None:
        from pipeline.storage import storage_error  # noqa: PLC0415 - slow to import, and rarely needed

        # Polars reads a bucket when a query runs, which may be anywhere.
        line = storage_error("s3://...", error)
    elif line is None and type(error).__module__ == "polars.exceptions" and str(error).startswith("parquet"):
        # Polars reads a file when a query runs, and does not name it.
        line = f"a file of the lake is damaged ({one_line(error)}). List the damage with: imagelake verify LAKE"
    return None if line is None else str(line)


def _hint_at_folder() -> str:
    """Return what to do in a current folder that was deleted; empty in any other."""
    try:
        Path.cwd()
    except OSError as error:
        return f"The current folder does not exist any more ({error.strerror}): change to another, or use full paths."
    return ""


def _stopped(error: KeyboardInterrupt) -> Failure:
    number = error.number if isinstance(error, Terminated) else signal.SIGINT
    by = f" by {signal.Signals(number).name}" if isinstance(error, Terminated) else ""
    return Failure(
        f"imagelake: stopped{by}. The lake is as of its last release; run the command again to continue.", 128 + number
    )


def end_on_signals() -> None:
    """End this command like Ctrl-C does when SIGTERM or SIGHUP arrives, and after `_GRACE_SECONDS` in any case.

    Python runs a handler only between two steps of its own, so a thread ends the process if a library computes for
    longer. A signal that the parent process ignores, as `nohup` does, stays ignored.
    """
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    if not heeded:
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)  # noqa: FBT003 - it has no name
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in heeded:
        signal.signal(number, _raise_terminated)
    threading.Thread(target=_end_late, args=(reader, frozenset(heeded)), daemon=True).start()


def _raise_terminated(number: int, _: FrameType | None) -> None:
    # A second signal must not interrupt the cleanup.
    for other in _SIGNALS:
        if signal.getsignal(other) is _raise_terminated:
            signal.signal(other, _do_nothing)
    raise Terminated(number)


def _do_nothing(_: int, __: FrameType | None) -> None:
    pass


def _end_late(reader: socket.socket, heeded: frozenset[int]) -> None:
    while received := reader.recv(1):
        if received[0] in heeded:
            time.sleep(_GRACE_SECONDS)
            found = _stopped(Terminated(received[0]))
            print_line(found.line, err=True)
            os._exit(found.code)
