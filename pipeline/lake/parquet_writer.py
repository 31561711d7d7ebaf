"""Write Parquet files of a lake's tables. A file becomes part of its table when a commit names it."""

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import storage
from pipeline.storage.digests import digest_of_bytes, file_digest

# Columns whose values hardly repeat: a dictionary of them costs time and saves nothing.
_UNIQUE = {
    "image_id",
    "content_hash",
    "file_digest",
    "pixels",
    "bytes",
    "path",
    "location",
    "key",
    "signature",
    "vector",
    "left_id",
    "right_id",
}
# Columns of tables with large row groups that have statistics, where a query can skip row groups by them. For each
# other column they would only make the footer longer.
_STATISTICS = {"images": ["label"], "originals": []}
# Columns that are compressed already.
_COMPRESSED = {"bytes"}
# Digits at the beginning of a file's name that identify its writer.
WRITER_LETTERS = 12
# Bytes of a file for a bucket that are held in memory before it goes to a temporary file.
_IN_MEMORY = 2**25


@dataclass(frozen=True)
class Part:
    """A Parquet file that belongs to no table yet.

    Attributes:
        path: relative to the table's folder, percent-encoded as Delta requires.
        size: bytes on disk.
        rows: rows in it.
        partition: value of every partition column.
    """

    path: str
    size: int
    rows: int
    partition: Mapping[str, str]


class PartWriter:
    """A Parquet file that is being written, one row group for each Arrow table. Made by `Writer.open`.

    A file for a bucket is written to memory or a temporary file first, and uploaded when it is complete. The name of a
    complete file ends in the digest of its bytes.
    """

    def __init__(self, file: str, path: str, table: schemas.Table, partition: Mapping[str, str]) -> None:
        self._file, self._path, self._partition = file, path, partition
        self._schema, self._table = table.file_schema, table.name
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0
        self._sink: IO[bytes] | None = None

    def write(self, group: pa.Table) -> None:
        """Append one row group; the file is made with the first one."""
        if self._writer is None:
            repeats = [name for name in self._schema.names if name not in _UNIQUE]
            has_compressed = not _COMPRESSED.isdisjoint(self._schema.names)
            packed = {n: "NONE" if n in _COMPRESSED else "zstd" for n in self._schema.names if has_compressed}
            self._writer = pq.ParquetWriter(
                self._opened(),
                self._schema,
                compression=packed or "zstd",
                compression_level=dict.fromkeys(set(packed) - _COMPRESSED, 1) if packed else 1,
                use_dictionary=repeats,
                write_statistics=_STATISTICS.get(self._table, repeats),
                # Damaged images are distinguished from the others of a file.
                write_page_checksum=True,
                # The Delta log has the schema; in footers of large photographs it would be most of their bytes.
                store_schema=False,
            )
        self._writer.write_table(group.select(self._schema.names), row_group_size=max(1, len(group)))
        self._rows += len(group)

    def close(self, footer: Mapping[bytes, bytes] = MappingProxyType({})) -> Part | None:
        """Finish the file; None where nothing was written.

        Args:
            footer: keys and values to store in the footer.
        """
        if self._writer is None:
            return None
        if footer:
            self._writer.add_key_value_metadata(dict(footer))
        self._writer.close()
        if self._sink is None:
            size = Path(self._file).stat().st_size
            unnamed = Path(self._file)
            self._add_digest(file_digest(self._file))
            unnamed.rename(self._file)
        else:
            size = self._sink.tell()
            self._add_digest(digest_of_bytes(self._sink))
            storage.write(self._file, self._sink)
            self._sink.close()
        return Part(self._path, size, self._rows, dict(self._partition))

    def abandon(self) -> None:
        """Delete what was written, after a failure."""
        if self._writer is not None:
            try:
                self._writer.close()
            finally:
                if self._sink is not None:
                    self._sink.close()
                storage.delete([self._file])

    def _add_digest(self, digest: str) -> None:
        self._file, self._path = (
            f"{name.removesuffix('.parquet')}{digest}.parquet" for name in (self._file, self._path)
        )

    def _opened(self) -> Path | IO[bytes]:
        if storage.is_bucket(self._file):
            self._sink = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed when it is sent
            return self._sink
        file = Path(self._file)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


@dataclass(frozen=True)
class Writer:
    """Writes files of a lake's tables, in this process or in workers. Made by `registered`.

    Attributes:
        place: the lake's place.
        name: `WRITER_LETTERS` hexadecimal digits that no other writer has. Names of its files begin with them, so that
            its orphan files can be found.
    """

    place: str
    name: str

    @contextmanager
    def open(self, table: str, partition: Mapping[str, str]) -> Iterator[PartWriter]:
        """Open a new file of a table for writing.

        Args:
            table: table name.
            partition: value of every partition column of the table.

        Raises:
            DiskFullError: no space is left; what was written is deleted.
        """
        declared = schemas.TABLES[table]
        folder = "/".join(f"{key}={quote(partition[key], safe='')}" for key in declared.partition_by)
        # A new name every time: a file that some release still reads is never overwritten.
        path = f"{folder}/{self.name}{uuid.uuid4().hex[WRITER_LETTERS:]}.parquet".removeprefix("/")
        part = PartWriter(f"{self.place}/{table}/{path}", path, declared, partition)
        try:
            with storage.disk_full_errors(self.place):
                yield part
        except BaseException:
            part.abandon()
            raise

    def write(self, table: str, rows: pa.Table, partition: Mapping[str, str] = MappingProxyType({})) -> list[Part]:
        """Write rows as one file of a table.

        Returns:
            The file; empty where there are no rows.
        """
        with self.open(table, partition) as part:
            if len(rows):
                part.write(rows)
            written = part.close()
        return [] if written is None else [written]
