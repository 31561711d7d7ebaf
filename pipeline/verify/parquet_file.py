"""Read a Parquet file through: is it there, is it whole, and if not, which of its rows are hurt?

Read what the footer of a Parquet file tells of its columns.

pyarrow tells it too, but ends the process where a footer contradicts itself. A footer is a struct in Thrift's compact
protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), whose fields are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
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
from pipeline.verify.faults import MOST, DamagedError, Fault, damage_named

_MAGIC, _TAIL = b"PAR1", 2**16
# Fields by number, of FileMetaData, SchemaElement, RowGroup, ColumnChunk, ColumnMetaData and Statistics.
_SCHEMA, _GROUPS, _TYPE, _CHILDREN, _COLUMNS, _META, _PATH, _STATISTICS = 2, 4, 1, 5, 1, 3, 3, 12
_NULLS, _MOST, _LEAST = 3, 5, 6
# Parquet's types by number, as its statistics spell their values; of floats, whose order is another matter, none.
_SPELLED: Mapping[int, Callable[[Any], bytes]] = {
    0: lambda value: struct.pack("<?", value),
    1: lambda value: struct.pack("<i", value),
    2: lambda value: struct.pack("<q", value),
    6: lambda value: value.encode() if isinstance(value, str) else value,
}


class Told(NamedTuple):
    """What a footer tells of a column in a row group.

    Attributes:
        name: of the column; of a nested one, its path.
        kind: Parquet's type, by number.
        statistics: by number of the field.
    """

    name: str
    kind: int
    statistics: Mapping[int, Any]

    def holds(self, values: pa.ChunkedArray) -> bool:
        """Tell whether these may be the values: nulls, the least and the greatest; queries skip rows by them."""
        held = self.statistics
        if held.get(_NULLS, values.null_count) != values.null_count:
            return False
        spelled = _SPELLED.get(self.kind)
        if spelled is None or not {_MOST, _LEAST} & set(held) or pa.types.is_timestamp(values.type):
            return True
        extremes = pc.min_max(values)
        told = {_LEAST: extremes["min"].as_py(), _MOST: extremes["max"].as_py()}
        return all(
            number in held and value is not None and held[number] == spelled(value) for number, value in told.items()
        )


def read_footer(place: str, size: int) -> list[list[Told]]:
    """Read what a footer tells of every column of every row group.

    Args:
        place: of the file.
        size: its bytes.

    Raises:
        ValueError: the footer contradicts itself, or is none (`LookupError` and `TypeError` likewise).
    """
    tail = _end(place, size, min(size, _TAIL))
    length = int.from_bytes(tail[-8:-4], "little")
    if tail[-4:] != _MAGIC or length + 8 > size:
        raise ValueError("it has no Parquet footer")
    whole = tail if length + 8 <= len(tail) else _end(place, size, length + 8)
    told, _ = _struct(whole[-8 - length : -8], 0)
    leaves = [element[_TYPE] for element in told[_SCHEMA] if not element.get(_CHILDREN)]
    groups = (
        [[_column(chunk[_META]) for chunk in group[_COLUMNS]] for group in told[_GROUPS]] if _GROUPS in told else []
    )
    if any([column.kind for column in columns] != leaves for columns in groups):
        raise ValueError("its footer contradicts itself")
    return groups


def _column(meta: Mapping[int, Any]) -> Told:
    return Told(b".".join(meta[_PATH]).decode(), meta[_TYPE], meta.get(_STATISTICS, {}))


def _end(place: str, size: int, count: int) -> bytes:
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
            raise ValueError("its footer is cut")
        return data[at : at + length], at + length
    if kind in (9, 10):
        return _list(data, at)
    if kind == 12:  # noqa: PLR2004 - a struct
        return _struct(data, at)
    raise ValueError(f"its footer has a field of no kind ({kind})")


def _list(data: bytes, at: int) -> tuple[Sequence[Any], int]:
    count, kind, at = data[at] >> 4, data[at] & 15, at + 1
    if count == 15:  # noqa: PLR2004 - longer ones tell their length behind it
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


class Named(NamedTuple):
    """A file of a table.

    Attributes:
        root: the lake's place.
        table: name of the table.
        part: the file, as its commit tells of it.
    """

    root: str
    table: str
    part: Part

    @property
    def place(self) -> str:
        """Where it is."""
        return f"{self.root}/{self.table}/{self.part.path}"

    def fault(self, kind: str, text: str, rows: int, images: list[str] | None = None) -> Fault:
        """Make a fault of this file."""
        return Fault(kind, text, self.table, self.place, dict(self.part.partition), rows, tuple(images or ()))


def read_through(file: Named, faults: list[Fault]) -> Iterator[pa.Table]:
    """Read all of a file, its pages held against their checksums where they have them.

    Args:
        file: the file.
        faults: what is wrong is added here.

    Yields:
        Row groups, one contiguous chunk a column, as far as they can be read, be they as they were or not.
    """
    rows = file.part.rows
    try:
        with damage_named():
            size = _size(file.place)
            told, opened = read_footer(file.place, size), _opened(file.place, checked=True)
    except DamagedError as error:
        faults.append(_lost(file, str(error)))
        return
    with opened:
        if size != file.part.size:
            faults.append(file.fault("size", f"has {size:,} bytes, its commit says {file.part.size:,}", rows))
        if not _columns_fit(opened, schemas.TABLES[file.table].file_schema):
            faults.append(file.fault("columns", f"its columns are not those of table {file.table}", rows))
            return
        if opened.metadata.num_rows != rows:
            text = f"holds {opened.metadata.num_rows:,} rows, its commit says {rows:,}"
            faults.append(file.fault("rows", text, abs(opened.metadata.num_rows - rows)))
        yield from _groups(file, opened, told, faults)


def _groups(
    file: Named, opened: pq.ParquetFile, told: Sequence[Sequence[Told]], faults: list[Fault]
) -> Iterator[pa.Table]:
    start = 0
    for number in range(opened.num_row_groups):
        count = opened.metadata.row_group(number).num_rows
        group = _read_group(file, opened, number, start, faults)
        if group is not None and not (faults and faults[-1].file == file.place):
            faults += _unread_by_polars(file, start, count)
        if group is not None:
            if len(group) != count:
                faults.append(
                    file.fault("rows", f"row group {number + 1} holds {len(group):,} rows of {count:,}", count)
                )
            faults += _wrong_statistics(file, told, number, group)
            yield group
        start += count


def _unread_by_polars(file: Named, start: int, count: int) -> Iterator[Fault]:
    """Read rows with Polars too, which queries do: each reader passes over damage that the other trips over.

    Of a bucket, without the long columns: they would travel twice.
    """
    far = storage.is_bucket(file.place)
    try:
        with damage_named():
            rows = storage.scan_parquet([file.place]).slice(start, count)
            rows.select(pl.exclude("pixels", "vector") if far else pl.all()).collect()
    except DamagedError as error:
        yield file.fault("unreadable", f"Polars says: {error}", count)


def _lost(file: Named, said: str) -> Fault:
    """Tell of a file that cannot be opened, and whether it was cut."""
    kind = "missing" if said == "is missing" else "unreadable"
    if kind == "unreadable":
        size = _size(file.place)
        if size != file.part.size:
            said = f"has {size:,} bytes, its commit says {file.part.size:,}, and {said}"
    return file.fault(kind, said, file.part.rows)


def _size(place: str) -> int:
    if not storage.is_bucket(place):
        return Path(place).stat().st_size
    found = storage.look(place)
    if found is None:
        raise FileNotFoundError(place)
    return found.size


def _opened(place: str, *, checked: bool) -> pq.ParquetFile:
    return storage.open_parquet(place, page_checksum_verification=checked)


def _columns_fit(opened: pq.ParquetFile, declared: pa.Schema) -> bool:
    """Files of an older imagelake lack columns that came since; those are null in their rows."""
    try:
        with damage_named():
            found = opened.schema_arrow
            there = [column for column in declared if column.name in found.names]
            for text in (text for column in found for text in (column.metadata or {}).values()):
                # What tells of a column is for people, and still Polars does not read on where it is no text.
                text.decode()
            fits = found.equals(pa.schema(there))
    except DamagedError:
        return False
    return fits and all(column.nullable for column in declared if column.name not in found.names)


def _read_group(file: Named, opened: pq.ParquetFile, number: int, start: int, faults: list[Fault]) -> pa.Table | None:
    """Read a row group, without regard to checksums where it cannot be read with it."""
    try:
        return _group(opened, number)
    except DamagedError as error:
        said = str(error)
    count = opened.metadata.row_group(number).num_rows
    hurt = [name for name in opened.schema_arrow.names if not _reads(opened, number, name)]
    where = f"row group {number + 1} of {opened.num_row_groups} (rows {start:,} to {start + count - 1:,}), "
    where += f"{'columns' if len(hurt) > 1 else 'column'} {', '.join(hurt) or 'unknown'}: "
    paths = _paths(opened, number, hurt) if file.table == "images" else []
    try:
        with damage_named(), _opened(file.place, checked=False) as unchecked:
            group = _group(unchecked, number)
    except DamagedError:
        faults.append(file.fault("unreadable", where + said, count, paths))
        return None
    faults.append(file.fault("checksum", where + "a page is not what its checksum says", count, paths))
    return group


def _group(opened: pq.ParquetFile, number: int, columns: list[str] | None = None) -> pa.Table:
    with damage_named():
        rows = opened.read_row_group(number, columns=columns, use_threads=False)
        rows.validate(full=True)
        return rows.combine_chunks()


def _reads(opened: pq.ParquetFile, number: int, column: str) -> bool:
    try:
        _group(opened, number, [column])
    except DamagedError:
        return False
    return True


def _paths(opened: pq.ParquetFile, number: int, hurt: list[str]) -> list[str]:
    """Name the first images of a row group: columns are apart, so that of the paths may be whole."""
    if "path" in hurt:
        return []
    paths: list[str] = _group(opened, number, ["path"])["path"].slice(0, MOST).to_pylist()
    return paths


def _wrong_statistics(file: Named, told: Sequence[Sequence[Told]], number: int, group: pa.Table) -> Iterator[Fault]:
    for column in told[number]:
        if column.name not in group.column_names:
            continue
        try:
            with damage_named():
                right = column.holds(group[column.name])
        except DamagedError:
            right = False
        if not right:
            text = f"row group {number + 1} of {len(told)}, column {column.name}: statistics of other values"
            yield file.fault("statistics", text, len(group))
