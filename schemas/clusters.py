"""One row per image in a cluster of two or more."""

import pyarrow as pa

from schemas.table import DATASET, IMAGE_ID, LABEL, RULE, SPLIT, Table, column

TABLE = Table(
    name="clusters",
    doc="one row per image in a cluster of two or more",
    partition_by=("rule",),
    schema=pa.schema(
        [
            column(
                "cluster_id",
                pa.binary(),
                "smallest image_id of the cluster: its representative",
                unit="16 bytes",
            ),
            IMAGE_ID,
            LABEL,
            DATASET,
            SPLIT,
            RULE,
        ]
    ),
)
