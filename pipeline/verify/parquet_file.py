"""Read every row of a Parquet file and find what is damaged: the file, its row groups and columns."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import storage
from pipeline.lake.parquet_writer import Part
from pipeline.storage.digests import file_digest, recorded_digest
from pipeline.verify.faults import MAX_IMAGES, DamagedError, Fault, damage_errors


class TableFile(NamedTuple):
    """A file of a table.

    Attributes:
        root: the lake's place.
        table: table name.
        part: the file as its commit records it.
    """

    root: str
    table: str
    part: Part

    @property
    def place(self) -> str:
        """The place of the file."""
        return f"{self.root}/{self.table}/{self.part.path}"

    def fault(self, kind: str, text: str, rows: int, images: list[str] | None = None) -> Fault:
        """Make a fault of this file."""
        return Fault(kind, text, self.table, self.place, dict(self.part.partition), rows, tuple(images or ()))


def read_row_groups(file: TableFile, faults: list[Fault]) -> Iterator[pa.Table]:
    """Read all row groups of a file, and check that it is as its commit recorded it.

    The bytes of a file must have the digest in its name. Pages of a file of a lake before 0.6 are checked against their
    checksums, if they have any.

    Args:
        file: the file.
        faults: the faults that are found are appended here.

    Yields:
        Every row group that can be read, one contiguous chunk per column; none of a file with another digest. Values
        of a file without a digest may be damaged: see the faults.

    Raises:
        StorageError: a bucket does not answer.
    """
    rows = file.part.rows
    try:
        with damage_errors():
            size, recorded = _size(file.place), recorded_digest(file.place)
            if recorded is not None and file_digest(file.place) != recorded:
                faults.append(_changed_file(file, size))
                return
            if recorded is None:
                # pyarrow ends the process where a footer contradicts itself. Polars raises an error.
                _read_with_polars(file.place)
            opened = storage.open_parquet(file.place, page_checksum_verification=True)
    except DamagedError as error:
        faults.append(_unopened(file, str(error)))
        return
    with opened:
        if size != file.part.size:
            faults.append(file.fault("size", _wrong_size(file, size), rows))
        if not _has_columns(opened, schemas.TABLES[file.table].file_schema):
            faults.append(file.fault("columns", f"its columns are not those of table {file.table}", rows))
            return
        if opened.metadata.num_rows != rows:
            text = f"has {opened.metadata.num_rows:,} rows, but its commit records {rows:,}"
            faults.append(file.fault("rows", text, abs(opened.metadata.num_rows - rows)))
        yield from _read_groups(file, opened, faults)


def _read_groups(file: TableFile, opened: pq.ParquetFile, faults: list[Fault]) -> Iterator[pa.Table]:
    start = 0
    for number in range(opened.num_row_groups):
        count = opened.metadata.row_group(number).num_rows
        group = _read_group(file, opened, number, start, faults)
        if group is not None:
            if len(group) != count:
                text = f"row group {number + 1} has {len(group):,} rows of {count:,}"
                faults.append(file.fault("rows", text, count))
            yield group
        start += count


def _changed_file(file: TableFile, size: int) -> Fault:
    """Make the fault of a file whose bytes have another digest than its name."""
    text = "its bytes are not those that its commit recorded"
    if size != file.part.size:
        text = f"{_wrong_size(file, size)}, and {text}"
    try:
        with damage_errors():
            names = storage.scan_parquet([file.place]).collect_schema().names()
    except DamagedError as error:
        return file.fault("unreadable", f"{text}; it {error}", file.part.rows)
    damaged = [name for name in names if not _is_readable_with_polars(file.place, name)]
    if damaged:
        text += f"; column{'s' if len(damaged) > 1 else ''} {', '.join(damaged)} cannot be read"
    paths: list[str] = []
    if "path" in set(names) - set(damaged):
        paths = storage.scan_parquet([file.place]).select("path").head(MAX_IMAGES).collect()["path"].to_list()
    kind = "unreadable" if damaged else "checksum"
    return file.fault(kind, text, file.part.rows, paths if file.table == "images" else [])


def _is_readable_with_polars(place: str, column: str) -> bool:
    try:
        with damage_errors():
            _read_with_polars(place, column)
    except DamagedError:
        return False
    return True


def _read_with_polars(place: str, *columns: str) -> None:
    """Read columns of a file with Polars, as queries do; none for all.

    In a bucket, long columns are left out, as they take long to download.
    """
    left_out = ["pixels", "vector"] if storage.is_bucket(place) else []
    for _ in storage.scan_parquet([place]).select(columns or pl.exclude(left_out)).collect_batches():
        pass


def _read_group(
    file: TableFile, opened: pq.ParquetFile, number: int, start: int, faults: list[Fault]
) -> pa.Table | None:
    """Read a row group; without its checksums if it cannot be read with them."""
    try:
        return _read_columns(opened, number)
    except DamagedError as error:
        reason = str(error)
    count = opened.metadata.row_group(number).num_rows
    damaged = [name for name in opened.schema_arrow.names if not _is_readable(opened, number, name)]
    where = f"row group {number + 1} of {opened.num_row_groups} (rows {start:,} to {start + count - 1:,}), "
    where += f"{'columns' if len(damaged) > 1 else 'column'} {', '.join(damaged) or 'unknown'}: "
    paths = _first_paths(opened, number, damaged) if file.table == "images" else []
    try:
        with damage_errors(), storage.open_parquet(file.place, page_checksum_verification=False) as unchecked:
            group = _read_columns(unchecked, number)
    except DamagedError:
        faults.append(file.fault("unreadable", where + reason, count, paths))
        return None
    faults.append(file.fault("checksum", where + "a page does not match its checksum", count, paths))
    return group


def _read_columns(opened: pq.ParquetFile, number: int, columns: list[str] | None = None) -> pa.Table:
    with damage_errors():
        rows = opened.read_row_group(number, columns=columns, use_threads=False)
        rows.validate(full=True)
        return rows.combine_chunks()


def _is_readable(opened: pq.ParquetFile, number: int, column: str) -> bool:
    try:
        _read_columns(opened, number, [column])
    except DamagedError:
        return False
    return True


def _first_paths(opened: pq.ParquetFile, number: int, damaged: list[str]) -> list[str]:
    """Read the paths of the first images of a row group; none if the column of the paths is damaged."""
    if "path" in damaged:
        return []
    paths: list[str] = _read_columns(opened, number, ["path"])["path"].slice(0, MAX_IMAGES).to_pylist()
    return paths


def _unopened(file: TableFile, reason: str) -> Fault:
    """Make the fault of a file that cannot be opened, and state if its size is wrong."""
    kind = "missing" if reason == "is missing" else "unreadable"
    if kind == "unreadable":
        # Where a link points to itself, there is no size either.
        with suppress(DamagedError), damage_errors():
            size = _size(file.place)
            if size != file.part.size:
                reason = f"{_wrong_size(file, size)}, and {reason}"
    return file.fault(kind, reason, file.part.rows)


def _wrong_size(file: TableFile, size: int) -> str:
    return f"has {size:,} bytes, but its commit records {file.part.size:,}"


def _size(place: str) -> int:
    if not storage.is_bucket(place):
        return Path(place).stat().st_size
    found = storage.head(place)
    if found is None:
        raise FileNotFoundError(place)
    return found.size


def _has_columns(opened: pq.ParquetFile, declared: pa.Schema) -> bool:
    """Whether a file has the columns of its table. A file of an older imagelake may lack columns that can be null."""
    try:
        with damage_errors():
            found = opened.schema_arrow
            expected = [column for column in declared if column.name in found.names]
            for text in (text for column in found for text in (column.metadata or {}).values()):
                # Polars cannot read a file whose column descriptions are not UTF-8.
                text.decode()
            fits = found.equals(pa.schema(expected))
    except DamagedError:
        return False
    return fits and all(column.nullable for column in declared if column.name not in found.names)
