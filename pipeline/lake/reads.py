"""Check files for damage before their values are used, and say why a read failed: a damaged file, a deleted release."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, NoReturn, ParamSpec, Protocol, TypeVar

from polars.exceptions import PanicException

import schemas
from pipeline import storage
from pipeline.errors import DamagedLakeError, LakeError, one_line
from pipeline.lake.parquet_writer import Part
from pipeline.lake.releases import release_versions, releases_stamp
from pipeline.lake.snapshot import KeepPartition, Snapshot
from pipeline.limits import raise_limit
from pipeline.storage.digests import LIBRARY_ERRORS, check_columns

# Their files are mostly pixels, encoded files and weights.
_LARGE = ("images", "originals", "models")


class _Lake(Protocol):
    @property
    def root(self) -> str: ...
    @property
    def release(self) -> int: ...
    @property
    def snapshot(self) -> Snapshot: ...


Rest = ParamSpec("Rest")
Opened = TypeVar("Opened", bound=_Lake)
Result = TypeVar("Result")


def check_tables(snapshot: Snapshot, *tables: str, keep: KeepPartition | None = None) -> None:
    """Check all bytes of tables. In a bucket nothing is checked: every file would be downloaded twice.

    Args:
        snapshot: the tables.
        tables: names of tables.
        keep: selects files by their partition values; None for all.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """
    if not storage.is_bucket(snapshot.place):
        storage.check_files(place for table in tables for place in snapshot.file_places(table, keep))


def check_values(snapshot: Snapshot, table: str, columns: Sequence[str], parts: Sequence[Part] | None = None) -> None:
    """Check the bytes of some columns, of a table whose other columns are large. In a bucket nothing is checked.

    Args:
        snapshot: the tables.
        table: name of the table.
        columns: columns to check; partition columns are left out, because the log has them.
        parts: files of the table; None for all.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """
    if storage.is_bucket(snapshot.place):
        return
    stored = [name for name in schemas.TABLES[table].file_schema.names if name in columns]
    files = snapshot.files(table) if parts is None else parts
    check_columns({f"{snapshot.place}/{table}/{part.path}": part.rows for part in files}, stored)


def explain_failures(
    function: Callable[Concatenate[Opened, Rest], Result],
) -> Callable[Concatenate[Opened, Rest], Result]:
    """Let a function that reads a lake raise DamagedLakeError or NoReleaseError for what libraries raise.

    Polars reads files when a query runs, and does not name the damaged one. If releases came or went while the function
    ran, it runs once more, unless its own release is gone.

    Args:
        function: its first argument is the lake.

    Raises:
        NoReleaseError: vacuum has deleted the release.
        DamagedLakeError: a file is missing or damaged.
    """

    @wraps(function)
    def explained(lake: Opened, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        stamp = releases_stamp(lake.snapshot) if lake.release else 0
        try:
            return function(lake, *args, **kwargs)
        except (TypeError, AttributeError):  # of an argument, or a bug
            raise
        except (LakeError, *LIBRARY_ERRORS) as error:
            if lake.release:
                release_versions(Snapshot(lake.root), lake.release)
            if not lake.release or releases_stamp(lake.snapshot, stamp) == stamp:
                _raise_cause(lake.snapshot, error)
        try:
            return function(lake, *args, **kwargs)
        except LIBRARY_ERRORS as error:
            _raise_cause(lake.snapshot, error)

    return explained


def _raise_cause(snapshot: Snapshot, error: BaseException) -> NoReturn:
    """Raise the error that names the damaged file; the error itself if no file is damaged."""
    if isinstance(error, LakeError) or not isinstance(error, LIBRARY_ERRORS):
        raise error
    raise_limit(error)
    if isinstance(error, Exception) and (found := storage.storage_error(snapshot.place, error)):
        raise found from error
    # The large tables last: where another file is damaged, they are not read.
    check_tables(snapshot, *(name for name in schemas.TABLES if name not in _LARGE), *_LARGE)
    # Footers of a lake before 0.6 have no checksum.
    if isinstance(error, PanicException) or str(error).startswith("parquet"):
        raise DamagedLakeError(
            f"{snapshot.place}: a file is damaged ({one_line(error, 200)}). List the damage with `imagelake verify "
            "LAKE`, repair it with `imagelake build LAKE --repair`."
        ) from error
    raise error
