"""Open every file of a release: is it there, is it whole, does it have its table's columns?"""

import pyarrow as pa

import schemas
from pipeline import storage
from pipeline.flow.verify.check import Check
from pipeline.handle import Lake
from pipeline.lake.commits import files


def files_are_whole(lake: Lake) -> Check:
    """Read the footer of every Parquet file of the release."""
    found = [
        (schemas.TABLES[name], f"{lake.root}/{name}/{part.path}", part.rows)
        for name, version in sorted(lake.versions.items())
        for part in files(lake.root, name, version)
    ]
    faults = [fault for table, file, rows in found if (fault := _fault(table, file, rows))]
    return Check("every file of the release is there and whole", len(found), faults)


def _fault(table: schemas.Table, file: str, rows: int) -> str:
    try:
        with storage.open_parquet(file) as opened:
            if not opened.schema_arrow.equals(table.file_schema):
                return f"{file}: its columns are not those of table {table.name}"
            if opened.metadata.num_rows != rows:
                return f"{file}: holds {opened.metadata.num_rows} rows, its commit says {rows}"
    except FileNotFoundError:
        return f"{file}: is missing"
    except (OSError, pa.ArrowException) as error:
        return f"{file}: cannot be read ({' '.join(str(error).split())[:200]})"
    return ""
