"""One row per blocking key of an image under a rule."""

import pyarrow as pa

from schemas.table import DATASET, IMAGE_ID, LABEL, RULE, SHARD, SPLIT, Table, column

TABLE = Table(
    name="index",
    doc="one row per blocking key of an image",
    partition_by=("rule", "dataset", "split", "shard"),
    schema=pa.schema(
        [
            column(
                "bucket",
                pa.int16(),
                "top eight bits of the key: images that can meet share it",
                unit="0 to 255",
            ),
            column("key", pa.int64(), "blocking key: only images that share it are compared"),
            column("signature", pa.int64(), "what is compared once keys agree; for hash rules the other 64 bits"),
            column(
                "vector",
                pa.binary(),
                "what a rule that compares numbers reads of the image; null for rules decided by keys",
                unit="as the rule defines it",
                null=True,
            ),
            IMAGE_ID,
            LABEL,
            RULE,
            DATASET,
            SPLIT,
            SHARD,
        ]
    ),
)
