"""Read a Parquet file through: is it there, is it whole, and if not, which of its rows are hurt?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import schemas
from pipeline import storage
from pipeline.flow.verify.check import MOST, DamagedError, Fault, damage_named
from pipeline.flow.verify.footer import Told, read_footer
from pipeline.lake.parts import Part


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
