"""Pixels -> index: the blocking keys of images, sorted so that one bucket can be read alone."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.dedup.rules import Rule

# Raise when a rule's keys come out differently for the same pixels: every lake then indexes its images anew.
KEYS_VERSION = "2"


def index_table(rule: Rule, image_ids: pa.Array, labels: pa.Array, pixels: NDArray[np.uint8]) -> pa.Table:
    """Compute the keys of a batch of images under a rule.

    A 16-byte key becomes two 64-bit words: `key` to block by and `signature` to compare; both equal means equal keys.

    Args:
        rule: the rule.
        image_ids: binary, in the order of the pixels.
        labels: string, in the order of the pixels.
        pixels: (n, height, width, channels) uint8.

    Returns:
        Rows of the index table without its partition columns, in the order of the pixels.
    """
    words = np.ascontiguousarray(rule.keys(pixels)).view(">i8").astype(np.int64)
    key, signature = words[:, 0], words[:, 1]
    bucket = ((key >> np.int64(56)) & np.int64(0xFF)).astype(np.int16)
    vector = pa.nulls(len(key), pa.binary())
    columns = [pa.array(bucket), pa.array(key), pa.array(signature), vector, image_ids, labels]
    return pa.Table.from_arrays(columns, schema=schemas.TABLES["index"].file_schema)


def sort_index(tables: list[pa.Table]) -> pa.Table:
    """Join a shard's batches into one table, ordered by bucket, key and image_id."""
    return pa.concat_tables(tables).sort_by([("bucket", "ascending"), ("key", "ascending"), ("image_id", "ascending")])
