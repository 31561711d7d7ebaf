"""Read what the footer of a Parquet file tells of its columns.

pyarrow tells it too, but ends the process where a footer contradicts itself. A footer is a struct in Thrift's compact
protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), whose fields are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage

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
