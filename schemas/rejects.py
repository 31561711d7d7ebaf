"""One row per file that did not become an image."""

import pyarrow as pa

from schemas.table import DATASET, FILE_SIZE, LABEL, PATH, SHARD, SPLIT, Table, column

TABLE = Table(
    name="rejects",
    doc="one row per file that did not become an image",
    partition_by=("dataset", "split"),
    schema=pa.schema(
        [
            PATH,
            LABEL,
            column("reason", pa.string(), "reason code: empty, truncated, not_an_image, wrong_size, ..."),
            column("detail", pa.string(), "what exactly was wrong, for a person"),
            FILE_SIZE,
            SHARD,
            DATASET,
            SPLIT,
        ]
    ),
)
