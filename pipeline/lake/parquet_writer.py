"""Write one Parquet file of a table. Until a commit names it, nobody sees it."""

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import storage

# Values that hardly repeat: a dictionary of them is built in vain.
_UNIQUE = {"image_id", "content_hash", "pixels", "path", "key", "signature", "vector", "left_id", "right_id"}
# Letters of a file's name that say which writer wrote it.
WRITER_LETTERS = 12
# Of a file for a bucket, bytes held in memory before it goes to a temporary file.
_IN_MEMORY = 2**25

_writer: ContextVar[str] = ContextVar("writer", default="")


def writer() -> str:
    """Tell who writes here: what the names of its files begin with; empty for nobody in particular."""
    return _writer.get()


@contextmanager
def writing_as(name: str) -> Iterator[None]:
    """Write files in the name of a writer, so that they can be told from those of others.

    Args:
        name: so many hexadecimal letters as `WRITER_LETTERS`, or empty.
    """
    before = _writer.set(name)
    try:
        yield
    finally:
        _writer.reset(before)


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
    """A Parquet file being written, one row group a table. Made by `open_part`.

    What goes to a bucket is written beside it first, and sent when it is whole: an object has no half.
    """

    def __init__(self, file: str, path: str, table: schemas.Table, partition: Mapping[str, str]) -> None:
        self._file, self._path, self._partition = file, path, partition
        self._schema = table.file_schema
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0
        self._sink: IO[bytes] | None = None

    def write(self, group: pa.Table) -> None:
        """Append one row group; the file is made with the first one."""
        if self._writer is None:
            repeats = [name for name in self._schema.names if name not in _UNIQUE]
            self._writer = pq.ParquetWriter(
                self._opened(),
                self._schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=repeats,
                write_statistics=repeats,
                # So that a flipped bit is found in any column, and the images it hit are told from the others.
                write_page_checksum=True,
            )
        self._writer.write_table(group.select(self._schema.names), row_group_size=max(1, len(group)))
        self._rows += len(group)

    def close(self) -> Part | None:
        """Finish the file; None where nothing was written."""
        if self._writer is None:
            return None
        self._writer.close()
        if self._sink is None:
            size = Path(self._file).stat().st_size
        else:
            size = self._sink.tell()
            storage.write(self._file, self._sink)
            self._sink.close()
        return Part(self._path, size, self._rows, dict(self._partition))

    def abandon(self) -> None:
        """Delete what was written: the shard failed."""
        if self._writer is not None:
            try:
                self._writer.close()
            finally:
                if self._sink is not None:
                    self._sink.close()
                storage.delete([self._file])

    def _opened(self) -> Path | IO[bytes]:
        if storage.is_bucket(self._file):
            self._sink = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed when it is sent
            return self._sink
        file = Path(self._file)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


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
    chance = uuid.uuid4().hex
    path = f"{folder}/{writer() or chance[:WRITER_LETTERS]}{chance[WRITER_LETTERS:]}.parquet".removeprefix("/")
    part = PartWriter(f"{root}/{name}/{path}", path, table, partition)
    try:
        with storage.full_disk_named(root):
            yield part
    except BaseException:
        part.abandon()
        raise


def write_part(root: str, name: str, partition: Mapping[str, str], rows: pa.Table) -> Part | None:
    """Write a whole table as one file; None where it has no rows."""
    with open_part(root, name, partition) as part:
        if len(rows):
            part.write(rows)
        return part.close()
