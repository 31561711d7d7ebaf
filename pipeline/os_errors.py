"""Describe an error that the operating system raised about a file, whatever library reports it: what, why, what to do.

Such an error is caused by the surroundings: permissions, a link that points to itself, a disk that fails.
"""

import errno
import os
import re
from typing import NamedTuple

from pipeline.errors import ImagelakeError, one_line


class _Reason(NamedTuple):
    """A reason for which a file cannot be used.

    Attributes:
        numbers: numbers of the errors.
        pattern: text of the errors; libraries keep the text only.
        advice: what to do.
    """

    numbers: tuple[int, ...]
    pattern: str
    advice: str


_REASONS = (
    _Reason(
        (errno.EACCES, errno.EPERM),
        r"Permission denied|Operation not permitted|os error (1|13)\b",
        "Give this user permission (chmod, chown), or run the command as the owner of the file",
    ),
    _Reason(
        (errno.EROFS,),
        r"Read-only file system|os error 30\b",
        "The file system is read-only: mount it for writing, or name a place elsewhere",
    ),
    _Reason(
        (errno.ELOOP,),
        r"Too many levels of symbolic links|Symlink loop|os error 40\b",
        "A symbolic link points to itself: delete it, and put back what was there",
    ),
    _Reason(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
        r"Is a directory|Not a directory|os error (17|20|21)\b",
        "A folder is in the place of a file, or a file in that of a folder: move it away",
    ),
    _Reason(
        (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
        r"Input/output error|Stale (NFS )?file handle|Transport endpoint|os error (5|6|19|107|110|112|116)\b",
        "The disk or the network file system fails: check it, then run the command again",
    ),
    _Reason((), r"a pipe, socket or device", "A pipe, socket or device is in the place of a file: move it away"),
    _Reason((errno.ENAMETOOLONG,), r"File name too long|os error 36\b", "Use a shorter name"),
    _Reason((errno.ETXTBSY, errno.EBUSY), r"resource busy|os error (16|26)\b", "Close the program that uses it"),
)
# Packages whose errors are searched for these texts. In errors of other code, such a text may mean anything.
_LIBRARIES = frozenset({"polars", "deltalake", "_internal", "duckdb", "_duckdb", "pyarrow", "shutil"})


def advice_for(error: BaseException) -> str | None:
    """Return what to do about an error that the operating system raised about a file; None for any other error."""
    reason = _reason(error)
    return None if reason is None else reason.advice


def os_error_line(error: BaseException) -> str | None:
    """Describe an error that the operating system raised about a file in one line; None for any other error."""
    reason = _reason(error)
    if reason is None:
        return None
    name = getattr(error, "filename", None)
    if name is None:
        return f"{one_line(error, 500).rstrip('.')}. {reason.advice}."
    other = getattr(error, "filename2", None)
    place = os.fsdecode(name) + (f" to {os.fsdecode(other)}" if other is not None else "")
    why = getattr(error, "strerror", None) or one_line(error)
    return f"{place}: {why}. {reason.advice}."


def _reason(error: BaseException) -> _Reason | None:
    if isinstance(error, ImagelakeError):
        return None
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number != errno.EINVAL:
        return next((reason for reason in _REASONS if number in reason.numbers), None)
    is_loop = isinstance(error, RuntimeError) and str(error).startswith("Symlink loop")  # of pathlib
    if not isinstance(error, OSError) and not is_loop and type(error).__module__.partition(".")[0] not in _LIBRARIES:
        return None
    return next((reason for reason in _REASONS if re.search(reason.pattern, str(error))), None)
