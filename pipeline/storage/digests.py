"""Find damaged Parquet files of a lake before their values are used.

The name of a file ends in the digest of its bytes, and the commit that adds the file records the name. Names of files
of lakes before 0.6 have no digest; most of these files have checksums of pages, which pyarrow verifies.
"""

import mmap
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow as pa
import xxhash

from pipeline.errors import DamagedLakeError, ImagelakeError, StorageError, one_line
from pipeline.limits import raise_limit
from pipeline.os_errors import advice_for
from pipeline.storage.objects import check_regular, head, is_bucket, stream
from pipeline.storage.parquet import open_parquet

_NAMED = re.compile(r"[0-9a-f]{32}([0-9a-f]{32})\.parquet")
# Bytes that are hashed at a time, where a file is not mapped into memory.
_PIECE = 2**22
# Files of a bucket that are checked at a time.
_THREADS = 4
# What libraries raise for damaged bytes.
LIBRARY_ERRORS = (
    pa.ArrowException,
    pl.exceptions.PolarsError,
    OSError,
    ValueError,
    MemoryError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    # Not an Exception; Polars raises it for input that it takes for impossible.
    pl.exceptions.PanicException,
)

# By place of a file that was checked, what changes when the file does.
_checked: dict[str, tuple[int, int, int]] = {}
# The same for single columns, by place and column.
_checked_columns: dict[tuple[str, str], tuple[int, int, int]] = {}
_locks: dict[str, threading.Lock] = {}


def digest_of_bytes(content: IO[bytes]) -> str:
    """Compute the digest of a stream from its start: xxh3-128, 32 hexadecimal digits."""
    content.seek(0)
    digest = xxhash.xxh3_128()
    while piece := content.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def file_digest(name: str) -> str:
    """Compute the digest of a file's bytes; see `digest_of_bytes`.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    if is_bucket(name):
        digest = xxhash.xxh3_128()
        for piece in stream(name, _PIECE):
            digest.update(piece)
        return digest.hexdigest()
    check_regular(name)
    with Path(name).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return xxhash.xxh3_128().hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return xxhash.xxh3_128(content).hexdigest()


def recorded_digest(name: str) -> str | None:
    """Return the digest that the name of a file records; None for a file of a lake before 0.6."""
    found = _NAMED.fullmatch(name.rpartition("/")[2])
    return found[1] if found else None


def check_files(names: Iterable[str]) -> None:
    """Check that files are as their commits recorded them.

    A file that was checked before, in this process, is checked again only if its size or time has changed. A file of a
    lake before 0.6 is read, and its pages are checked against their checksums.

    Args:
        names: places of Parquet files.

    Raises:
        DamagedLakeError: a file is missing, cannot be read, or has other bytes. The message names it.
        StorageError: a bucket does not answer.
    """
    listed = list(dict.fromkeys(names))
    if not listed or not is_bucket(listed[0]):
        # One core hashes 10 GB/s: on a folder, starting threads takes longer than they save.
        for name in listed:
            check_file(name)
        return
    with ThreadPoolExecutor(min(len(listed), _THREADS)) as pool:
        # list() raises the error of a thread here.
        list(pool.map(check_file, listed))


def check_file(name: str) -> None:
    """Check one file; see `check_files`. Threads that check the same file wait for one another."""
    with _locks.setdefault(name, threading.Lock()), damage_errors(name):
        found = _stamp(name)
        if _checked.get(name) == found:
            return
        recorded = recorded_digest(name)
        if recorded is None:
            _check_pages(name)
        elif file_digest(name) != recorded:
            raise DamagedLakeError(_message(name, "its bytes are not those that its commit recorded"))
        _checked[name] = found


def check_columns(rows: Mapping[str, int], columns: Sequence[str]) -> None:
    """Check the pages of some columns of files on disk against their checksums.

    This reads less than `check_files` where other columns are large. Of the rest of a file only the number of rows is
    checked. Columns that a file of an older imagelake lacks are left out.

    Args:
        rows: by place of a file, its number of rows.
        columns: names of columns.

    Raises:
        DamagedLakeError: a file is missing, cannot be read, or has other bytes. The message names it.
    """
    for name, count in rows.items():
        with damage_errors(name):
            found = _stamp(name)
            wanted = [column for column in columns if _checked_columns.get((name, column)) != found]
            if not wanted or _checked.get(name) == found:
                continue
            if _check_pages(name, wanted) != count:
                raise DamagedLakeError(_message(name, f"it does not have the {count:,} rows that its commit recorded"))
            _checked_columns.update(dict.fromkeys([(name, column) for column in wanted], found))


@contextmanager
def damage_errors(name: str) -> Iterator[None]:
    """Turn the errors that libraries raise for a missing or damaged file into DamagedLakeError.

    Args:
        name: place of the file, or of the table where the file is not known.

    Raises:
        DamagedLakeError: the file is missing or damaged.
        StorageError: a bucket does not answer, which is no sign of damage.
        LimitError: a limit of the system was reached, which is none either.
    """
    try:
        yield
    except (StorageError, ImagelakeError):
        raise
    except FileNotFoundError as error:
        # Polars gives no name of its own, only a text.
        text = "the file is missing" if error.filename else f"a file is missing ({one_line(error, 200)})"
        raise DamagedLakeError(_message(str(error.filename or name), text)) from error
    except LIBRARY_ERRORS as error:
        raise_limit(error)
        file, why = getattr(error, "filename", None), getattr(error, "strerror", None)
        text = f"cannot be read ({(file and why) or one_line(error, 200)})"
        raise DamagedLakeError(_message(str(file or name), text, advice_for(error))) from error


def _message(name: str, what: str, advice: str | None = None) -> str:
    repair = "List the damage with `imagelake verify LAKE`, repair it with `imagelake build LAKE --repair`"
    return f"{name}: {what}. {advice or repair}."


def _stamp(name: str) -> tuple[int, int, int]:
    if is_bucket(name):
        found = head(name)
        if found is None:
            raise FileNotFoundError(name)
        return found.size, 0, hash(found.tag)
    status = Path(name).stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _check_pages(name: str, columns: Sequence[str] | None = None) -> int:
    """Read pages, which compares them with their checksums, and return the number of rows; None for all columns."""
    with open_parquet(name, page_checksum_verification=True) as file:
        groups = range(file.num_row_groups)
        return sum(len(file.read_row_group(group, columns=columns, use_threads=False)) for group in groups)
