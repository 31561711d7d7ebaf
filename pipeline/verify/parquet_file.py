"""Read every row of a Parquet file and find what is damaged: the file, its row groups, columns and statistics.

The footer is parsed here as well, because pyarrow aborts the process where a footer contradicts itself. A footer is a
struct in Thrift's compact protocol.

References:
    https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
    https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import schemas
from pipeline import storage
from pipeline.lake.parquet_writer import Part
from pipeline.verify.faults import MAX_IMAGES, DamagedError, Fault, damage_errors

_MAGIC = b"PAR1"
# Bytes that are read from the end of a file at first; most footers are shorter.
_TAIL_BYTES = 2**16
# Field numbers of FileMetaData, SchemaElement, RowGroup, ColumnChunk, ColumnMetaData and Statistics.
_SCHEMA, _GROUPS, _TYPE, _CHILDREN, _COLUMNS, _META, _PATH, _STATISTICS = 2, 4, 1, 5, 1, 3, 3, 12
_NULL_COUNT, _MAX_VALUE, _MIN_VALUE = 3, 5, 6
# By the number of a Parquet type, how statistics encode its values. Floats are left out: their order has special cases.
_ENCODINGS: Mapping[int, Callable[[Any], bytes]] = {
    0: lambda value: struct.pack("<?", value),
    1: lambda value: struct.pack("<i", value),
    2: lambda value: struct.pack("<q", value),
    6: lambda value: value.encode() if isinstance(value, str) else value,
}


class ColumnChunk(NamedTuple):
    """What a footer records about a column in a row group.

    Attributes:
        name: of the column; of a nested one, its path.
        physical_type: number of the Parquet type.
        statistics: by field number.
    """

    name: str
    physical_type: int
    statistics: Mapping[int, Any]

    def has_statistics_of(self, values: pa.ChunkedArray) -> bool:
        """Return whether null count, minimum and maximum are those of the values, as far as they are recorded."""
        recorded = self.statistics
        if recorded.get(_NULL_COUNT, values.null_count) != values.null_count:
            return False
        encode = _ENCODINGS.get(self.physical_type)
        if encode is None or not {_MAX_VALUE, _MIN_VALUE} & set(recorded) or pa.types.is_timestamp(values.type):
            return True
        extremes = pc.min_max(values)
        expected = {_MIN_VALUE: extremes["min"].as_py(), _MAX_VALUE: extremes["max"].as_py()}
        return all(
            number in recorded and value is not None and recorded[number] == encode(value)
            for number, value in expected.items()
        )


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
    """Read all row groups of a file, and check pages against their checksums if they have any.

    Args:
        file: the file.
        faults: the faults that are found are appended here.

    Yields:
        Every row group that can be read, one contiguous chunk per column. Its values may be damaged: see the faults.

    Raises:
        StorageError: a bucket does not answer.
    """
    rows = file.part.rows
    try:
        with damage_errors():
            size = _size(file.place)
            footer, opened = read_footer(file.place, size), _open(file.place, checked=True)
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
        yield from _read_groups(file, opened, footer, faults)


def read_footer(place: str, size: int) -> list[list[ColumnChunk]]:
    """Parse the footer of a Parquet file.

    Args:
        place: place of the file.
        size: its size in bytes.

    Returns:
        By row group, its columns.

    Raises:
        ValueError: there is no footer, or it contradicts itself (or LookupError or TypeError).
    """
    tail = _read_end(place, size, min(size, _TAIL_BYTES))
    length = int.from_bytes(tail[-8:-4], "little")
    if tail[-4:] != _MAGIC or length + 8 > size:
        raise ValueError("it has no Parquet footer")
    complete = tail if length + 8 <= len(tail) else _read_end(place, size, length + 8)
    footer, _ = _struct(complete[-8 - length : -8], 0)
    leaves = [element[_TYPE] for element in footer[_SCHEMA] if not element.get(_CHILDREN)]
    groups = [[_column_chunk(chunk[_META]) for chunk in group[_COLUMNS]] for group in footer.get(_GROUPS, ())]
    if any([column.physical_type for column in columns] != leaves for columns in groups):
        raise ValueError("its footer contradicts itself")
    return groups


def _read_groups(
    file: TableFile, opened: pq.ParquetFile, footer: Sequence[Sequence[ColumnChunk]], faults: list[Fault]
) -> Iterator[pa.Table]:
    start = 0
    for number in range(opened.num_row_groups):
        count = opened.metadata.row_group(number).num_rows
        group = _read_group(file, opened, number, start, faults)
        if group is not None:
            if not (faults and faults[-1].file == file.place):
                faults += _check_polars(file, start, count)
            if len(group) != count:
                text = f"row group {number + 1} has {len(group):,} rows of {count:,}"
                faults.append(file.fault("rows", text, count))
            faults += _check_statistics(file, footer, number, group)
            yield group
        start += count


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
        with damage_errors(), _open(file.place, checked=False) as unchecked:
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


def _check_polars(file: TableFile, start: int, count: int) -> Iterator[Fault]:
    """Read rows with Polars as well, as queries do: each library overlooks some damage that the other reports.

    In a bucket, long columns are left out, as they would be downloaded twice.
    """
    in_bucket = storage.is_bucket(file.place)
    try:
        with damage_errors():
            rows = storage.scan_parquet([file.place]).slice(start, count)
            rows.select(pl.exclude("pixels", "vector") if in_bucket else pl.all()).collect()
    except DamagedError as error:
        yield file.fault("unreadable", f"by Polars: {error}", count)


def _check_statistics(
    file: TableFile, footer: Sequence[Sequence[ColumnChunk]], number: int, group: pa.Table
) -> Iterator[Fault]:
    for column in footer[number]:
        if column.name not in group.column_names:
            continue
        try:
            with damage_errors():
                matches = column.has_statistics_of(group[column.name])
        except DamagedError:
            matches = False
        if not matches:
            text = f"row group {number + 1} of {len(footer)}, column {column.name}: statistics of other values"
            yield file.fault("statistics", text, len(group))


def _unopened(file: TableFile, reason: str) -> Fault:
    """Make the fault of a file that cannot be opened, and state if its size is wrong."""
    kind = "missing" if reason == "is missing" else "unreadable"
    if kind == "unreadable":
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


def _open(place: str, *, checked: bool) -> pq.ParquetFile:
    return storage.open_parquet(place, page_checksum_verification=checked)


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


def _column_chunk(meta: Mapping[int, Any]) -> ColumnChunk:
    return ColumnChunk(b".".join(meta[_PATH]).decode(), meta[_TYPE], meta.get(_STATISTICS, {}))


def _read_end(place: str, size: int, count: int) -> bytes:
    if storage.is_bucket(place):
        return storage.read_range(place, size - count, count)
    with Path(place).open("rb") as stream:
        stream.seek(size - count)
        return stream.read(count)


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        head, at = data[at], at + 1
        step, kind = head >> 4, head & 15
        if step:
            number += step
        else:
            number, at = _number(data, at)
        fields[number], at = (kind == 1, at) if kind in (1, 2) else _value(data, at, kind)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (1, 2, 3):
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _number(data, at)
    if kind == 7:  # noqa: PLR2004 - a double
        return struct.unpack_from("<d", data, at)[0], at + 8
    if kind == 8:  # noqa: PLR2004 - bytes
        length, at = _varint(data, at)
        if at + length > len(data):
            raise ValueError("its footer is cut off")
        return data[at : at + length], at + length
    if kind in (9, 10):
        return _list(data, at)
    if kind == 12:  # noqa: PLR2004 - a struct
        return _struct(data, at)
    raise ValueError(f"its footer has a field of an unknown type ({kind})")


def _list(data: bytes, at: int) -> tuple[Sequence[Any], int]:
    count, kind, at = data[at] >> 4, data[at] & 15, at + 1
    if count == 15:  # noqa: PLR2004 - a longer list, whose length follows
        count, at = _varint(data, at)
    values = []
    for _ in range(count):
        value, at = _value(data, at, kind)
        values.append(value)
    return values, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:  # noqa: PLR2004 - the last byte
            return value, at
