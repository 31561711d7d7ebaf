"""Write one Parquet file of a table. Until a commit names it, nobody sees it."""

import errno
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline.errors import DiskFullError

# Values that hardly repeat: a dictionary of them is built in vain.
_UNIQUE = {"image_id", "content_hash", "pixels", "path", "key", "signature", "vector", "left_id", "right_id"}


@dataclass(frozen=True)
class Part:
    """A Parquet file that belongs to no table yet.

    Attributes:
        path: relative to the table's folder, percent-encoded as Delta wants it.
        size: bytes on disk.
        rows: rows in it.
        partition: value of every partition column.
    """

    path: str
    size: int
    rows: int
    partition: Mapping[str, str]


class PartWriter:
    """A Parquet file being written, one row group a table. Made by `open_part`."""

    def __init__(self, file: Path, path: str, table: schemas.Table, partition: Mapping[str, str]) -> None:
        self._file, self._path, self._partition = file, path, partition
        self._schema = table.file_schema
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0

    def write(self, group: pa.Table) -> None:
        """Append one row group; the file is made with the first one."""
        if self._writer is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            repeats = [name for name in self._schema.names if name not in _UNIQUE]
            self._writer = pq.ParquetWriter(
                self._file,
                self._schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=repeats,
                write_statistics=repeats,
            )
        self._writer.write_table(group.select(self._schema.names), row_group_size=max(1, len(group)))
        self._rows += len(group)

    def close(self) -> Part | None:
        """Finish the file; None where nothing was written."""
        if self._writer is None:
            return None
        self._writer.close()
        return Part(self._path, self._file.stat().st_size, self._rows, dict(self._partition))

    def abandon(self) -> None:
        """Delete what was written: the shard failed."""
        if self._writer is not None:
            try:
                self._writer.close()
            finally:
                self._file.unlink(missing_ok=True)


@contextmanager
def open_part(root: str, name: str, partition: Mapping[str, str]) -> Iterator[PartWriter]:
    """Open a new file of a table for writing.

    Args:
        root: the lake's folder.
        name: table name.
        partition: value of every partition column of the table.

    Raises:
        DiskFullError: no space is left; what was written is deleted.
    """
    table = schemas.TABLES[name]
    folder = "/".join(f"{key}={quote(partition[key], safe='')}" for key in table.partition_by)
    # A new name every time: a file that some release still reads is never written over.
    path = f"{folder}/{uuid.uuid4().hex}.parquet".removeprefix("/")
    writer = PartWriter(Path(root) / name / path, path, table, partition)
    try:
        with full_disk_named(root):
            yield writer
    except BaseException:
        writer.abandon()
        raise


def write_part(root: str, name: str, partition: Mapping[str, str], rows: pa.Table) -> Part | None:
    """Write a whole table as one file; None where it has no rows."""
    with open_part(root, name, partition) as writer:
        if len(rows):
            writer.write(rows)
        return writer.close()


@contextmanager
def full_disk_named(root: str) -> Iterator[None]:
    """Turn a full disk, wherever it shows, into an error that says what to do.

    Raises:
        DiskFullError: no space is left, or a quota is used up.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or "os error 28" in str(error):
            raise DiskFullError(
                f"no space is left on the disk of {root}. The lake reads as before; free some space and build again."
            ) from error
        raise
