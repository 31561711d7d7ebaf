"""The `Table` record, and the columns that several tables share."""

from dataclasses import dataclass

import pyarrow as pa


def column(name: str, kind: pa.DataType, doc: str, *, unit: str = "", null: bool = False) -> pa.Field:
    """Declare a documented column.

    Args:
        name: column name.
        kind: Arrow type. Delta Lake must preserve it, so unsigned and fixed-size types are excluded.
        doc: one line of documentation for people who query the table.
        unit: unit of a number, or layout of bytes; empty if neither applies.
        null: whether the column may contain nulls.

    Returns:
        The field, with `doc` and `unit` in its metadata.
    """
    return pa.field(name, kind, nullable=null, metadata={"doc": doc, "unit": unit})


@dataclass(frozen=True)
class Table:
    """The declaration of one table of a lake.

    Attributes:
        name: name of the table and of its folder below the lake's root.
        doc: one line that describes what a row is.
        schema: all columns: the key first, the partition columns last.
        partition_by: columns that are stored in folder names instead of in the files.
        released: whether a release fixes the table's version. If false, the newest version is read for every release.
    """

    name: str
    doc: str
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    released: bool = True

    @property
    def file_schema(self) -> pa.Schema:
        """The columns in the Parquet files of this table: all columns except the partition columns."""
        return pa.schema([field for field in self.schema if field.name not in self.partition_by])


IMAGE_ID = column(
    "image_id", pa.binary(), "identifies the origin of the image: xxh3-128 of (dataset, split, path)", unit="16 bytes"
)
PATH = column("path", pa.string(), "path inside the source, '/'-separated, or the row number in an array file")
LABEL = column(
    "label",
    pa.string(),
    "class name from the source, in Unicode form C, without white space at its ends, 7.0 as 7; null if the image has "
    "no label",
    null=True,
)
FILE_SIZE = column("file_size", pa.int64(), "size of the encoded file, or of the row's pixels", unit="bytes")
DATASET = column("dataset", pa.string(), "name of the dataset in the recipe")
SPLIT = column("split", pa.string(), "split of the source in the recipe, such as train")
SHARD = column("shard", pa.string(), "stable key of the part of a source that is decoded and replaced as a unit")
RULE = column("rule", pa.string(), "duplicate rule as written in the recipe, such as photo:0.5")
