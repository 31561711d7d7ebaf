"""The declaration of a table, and the columns that several tables share."""

from dataclasses import dataclass

import pyarrow as pa


def column(name: str, kind: pa.DataType, doc: str, *, unit: str = "", null: bool = False) -> pa.Field:
    """Declare a documented column.

    Args:
        name: column name.
        kind: Arrow type, one that Delta Lake keeps as it is (no unsigned, no fixed-size binary).
        doc: one line for people who query the table.
        unit: what a number counts or measures, or how bytes are laid out; empty where there is nothing to say.
        null: whether a row may have no value.

    Returns:
        The field, with `doc` and `unit` in its metadata.
    """
    return pa.field(name, kind, nullable=null, metadata={"doc": doc, "unit": unit})


@dataclass(frozen=True)
class Table:
    """A table's name, one line about its rows, its columns (key first), and how its files are partitioned.

    Attributes:
        name: also the folder below the lake's root.
        doc: what one row is.
        schema: every column, the partition columns last.
        partition_by: columns that live in the folder names, not in the files.
        released: whether a release names its version; else it is read at its newest one, whatever the release.
    """

    name: str
    doc: str
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    released: bool = True

    @property
    def file_schema(self) -> pa.Schema:
        """The columns that a Parquet file of this table holds: all but the partition columns."""
        return pa.schema([field for field in self.schema if field.name not in self.partition_by])


IMAGE_ID = column(
    "image_id", pa.binary(), "where the image came from: xxh3-128 of (dataset, split, path)", unit="16 bytes"
)
PATH = column("path", pa.string(), "path inside the source, '/'-separated, or the row number of an array file")
LABEL = column("label", pa.string(), "class name as the source spells it; null where it has none", null=True)
FILE_SIZE = column("file_size", pa.int64(), "size of the encoded file, or of the row's pixels", unit="bytes")
DATASET = column("dataset", pa.string(), "dataset name from the recipe")
SPLIT = column("split", pa.string(), "split the source belongs to, from the recipe")
SHARD = column("shard", pa.string(), "stable key of the slice of the source that is decoded and replaced as one")
RULE = column("rule", pa.string(), "what counts as the same picture, as the recipe spells it")
