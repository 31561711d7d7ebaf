"""Recognise errors that a limit of the system causes, such as `ulimit -n`, and check the limits before a command runs.

Such an error says nothing about the file that was being read: it must not become a reject, or damage of a lake.
"""

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ImagelakeError, LimitError

# Windows has no such limits. Any: types are checked alike on every system.
resource: Any = None
with suppress(ImportError):
    resource = import_module("resource")


class _Limit(NamedTuple):
    """A limit of the system.

    Attributes:
        numbers: numbers of the errors that it causes.
        pattern: text of the errors that it causes; libraries keep the text only.
        what: what is the matter.
        option: the option of `ulimit`.
        name: the name of the limit in the module `resource`.
        unit: bytes in one unit of `ulimit`; 0 if the limit is a number of things.
        hint: what to do, apart from raising the limit.
    """

    numbers: tuple[int, ...]
    pattern: str
    what: str
    option: str
    name: str
    unit: int
    hint: str


_FILES = _Limit(
    (errno.EMFILE, errno.ENFILE),
    r"Too many open files|os error 2[34]\b",
    "too many files are open",
    "-n",
    "RLIMIT_NOFILE",
    0,
    "use fewer workers (--workers 1)",
)
_SIZE = _Limit(
    (errno.EFBIG,),
    r"File too large|os error 27\b",
    "a file would be larger than files may be",
    "-f",
    "RLIMIT_FSIZE",
    1024,
    "use a file system that permits larger files",
)
_TASKS = _Limit(
    (errno.EAGAIN,),
    r"can't start new thread|os error 11\b|Resource temporarily unavailable|pthread_create failed",
    "no more processes or threads can be started",
    "-u",
    "RLIMIT_NPROC",
    0,
    "end other programs, raise pids.max of the container, or use fewer workers (--workers 1)",
)
_MEMORY = _Limit(
    (errno.ENOMEM,),
    r"Cannot allocate memory|os error 12\b|[Mm]emory allocation of|failed to map segment|bad_alloc",
    "there is not enough memory",
    "-v",
    "RLIMIT_AS",
    1024,
    "use fewer workers (--workers 1), or a machine with more memory",
)
_LIMITS = (_FILES, _SIZE, _TASKS, _MEMORY)

# What a command needs, measured on two cores; see docs/proof.md. Files: libraries, tables and pipes to two workers.
_MIN_FILES, _MIN_MEMORY = 64, 3 * 2**29 * 2**30
# The soft limit of files is raised to this, if the hard limit permits: 1024 or less is common.
_WANTED_FILES = 4096
# Threads that Polars, Arrow, DuckDB and Delta start: at least, and for each core. Some end the process if they cannot.
_MIN_THREADS, _THREADS_PER_CORE = 32, 4


def limit_error(error: BaseException) -> LimitError | None:
    """Make a LimitError of an error that a limit of the system caused.

    Args:
        error: any error. Errors that caused it are examined too.

    Returns:
        The error to raise instead; None if the error has another cause.
    """
    for found in _causes(error):
        if isinstance(found, LimitError):
            return found
        for limit in _LIMITS:
            if _matches(found, limit):
                return LimitError(_message(limit, str(getattr(found, "filename", None) or "")))
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _matches(error: BaseException, limit: _Limit) -> bool:
    if isinstance(error, MemoryError):
        return limit is _MEMORY
    if isinstance(error, ImagelakeError):
        # Its text may quote names of files; its causes are examined.
        return False
    if isinstance(error, OSError) and error.errno:
        return error.errno in limit.numbers
    return re.search(limit.pattern, str(error)) is not None


def _message(limit: _Limit, place: str = "") -> str:
    now = _soft(limit)
    at = f" ({place})" if place else ""
    of = f": the limit is {now} (ulimit {limit.option})" if now else ""
    raise_it = f"Raise the limit with ulimit {limit.option}, or " if now else ""
    hint = limit.hint if raise_it else limit.hint[0].upper() + limit.hint[1:]
    return f"{limit.what}{at}{of}. {raise_it}{hint}. The lake is as of its last release."


def _soft(limit: _Limit) -> str:
    """Return the current limit, in the unit of `ulimit`; empty if there is none."""
    number = soft_limit(limit.name)
    if number is None:
        return ""
    return f"{number // limit.unit:,} KiB" if limit.unit else f"{number:,}"


def soft_limit(name: str) -> int | None:
    """Return a soft limit of this process; None if there is none.

    Args:
        name: as in the module `resource`.
    """
    if resource is None or not hasattr(resource, name):
        return None
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft


def available_memory() -> int | None:
    """Return the bytes of memory that are available; None if the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable: *([0-9]+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else None


def check_limits() -> None:
    """Check that a command can run within the limits of this process, before it loads libraries that would abort.

    The soft limit of open files is raised as far as the hard limit permits.

    Raises:
        LimitError: a limit is too low.
    """
    if resource is None:
        return
    _raise_file_limit()
    for limit, least in ((_FILES, _MIN_FILES), (_MEMORY, _MIN_MEMORY)):
        now = soft_limit(limit.name)
        if now is not None and now < least:
            needed = f"{least // limit.unit:,}" if limit.unit else f"{least:,}"
            raise LimitError(
                f"this command cannot run with ulimit {limit.option} {now // (limit.unit or 1)}: it needs at least "
                f"{needed}. Raise the limit with ulimit {limit.option}, then run the command again."
            )
    _check_threads()


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if resource.RLIM_INFINITY != soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_threads() -> None:
    """Start some threads at once, each with the smallest stack."""
    needed = _MIN_THREADS + _THREADS_PER_CORE * (os.cpu_count() or 1)
    over = threading.Event()
    before = threading.stack_size(2**16)
    threads: list[threading.Thread] = []
    try:
        for _ in range(needed):
            thread = threading.Thread(target=over.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except (RuntimeError, MemoryError) as error:
        raise LimitError(
            f"this command cannot run here: only {len(threads)} threads can be started, but it needs {needed}. Raise "
            "the limit with ulimit -u, raise pids.max of the container, or end other programs."
        ) from error
    finally:
        threading.stack_size(before)
        over.set()
        for thread in threads:
            thread.join()


def raise_limit(error: BaseException) -> None:
    """Raise LimitError if a limit caused an error of a reader. Call this before the error is taken for damage.

    Damaged bytes may declare a huge size, so lack of memory counts only where the memory of this process is limited.

    Raises:
        LimitError: a limit caused the error.
    """
    found = None if isinstance(error, MemoryError) and soft_limit(_MEMORY.name) is None else limit_error(error)
    if found is not None:
        raise found from error
