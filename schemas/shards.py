"""One row per shard: what has been decoded, from which bytes, by which decoder."""

import pyarrow as pa

from schemas.table import DATASET, SHARD, SPLIT, Table, column

TABLE = Table(
    name="shards",
    doc="one row per slice of a source that is decoded and replaced as one",
    schema=pa.schema(
        [
            DATASET,
            SPLIT,
            SHARD,
            column("uri", pa.string(), "the source, as the recipe spells it"),
            column("fingerprint", pa.string(), "digest of the source's names, sizes and times in this shard"),
            column("rows", pa.int64(), "images decoded", unit="images"),
            column("rejects", pa.int64(), "files that did not become images", unit="files"),
            column("decoder", pa.string(), "decoder and the decode settings it ran with"),
        ]
    ),
)
