"""Turn pixels into rows of the index table: the entries by which a rule compares images."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.arrow_binary import from_binary, to_binary
from pipeline.dedup.rules import Entries, Rule

# Raise this if a rule's keys change for the same pixels. Every lake then indexes its images again.
KEYS_VERSION = "2"


def index_table(rule: Rule, image_ids: pa.Array, labels: pa.Array, pixels: NDArray[np.uint8]) -> pa.Table:
    """Index a batch of images under a rule.

    Args:
        rule: the rule.
        image_ids: binary, in the order of the pixels.
        labels: string, in the order of the pixels.
        pixels: (n, height, width, channels) uint8.

    Returns:
        Rows of the index table without its partition columns, in the order of the pixels.
    """
    return table_of(rule.index(pixels), image_ids, labels)


def table_of(entries: Entries, image_ids: pa.Array, labels: pa.Array) -> pa.Table:
    """Write entries as rows of the index table without its partition columns, in the order of the entries."""
    count, width = entries.vector.shape
    bucket = ((entries.key >> np.int64(56)) & np.int64(0xFF)).astype(np.int16)
    vector = to_binary(entries.vector) if width else pa.nulls(count, pa.binary())
    columns = [pa.array(bucket), pa.array(entries.key), pa.array(entries.signature), vector, image_ids, labels]
    return pa.Table.from_arrays(columns, schema=schemas.TABLES["index"].file_schema)


def entries_of(rows: pa.Table) -> Entries:
    """Read entries from rows of the index table, in the order of the rows. All vectors must have the same width."""
    key, signature = (rows[name].to_numpy() for name in ("key", "signature"))
    vector = pa.concat_arrays(rows["vector"].chunks) if rows.num_rows else pa.array([], pa.binary())
    width = 0 if vector.null_count == len(vector) else len(vector[0].as_py())
    return Entries(key, signature, from_binary(vector, width) if width else np.empty((len(key), 0), np.uint8))


def sort_index(tables: list[pa.Table]) -> pa.Table:
    """Concatenate the batches of a shard and order them by bucket, key and image_id."""
    return pa.concat_tables(tables).sort_by([("bucket", "ascending"), ("key", "ascending"), ("image_id", "ascending")])
