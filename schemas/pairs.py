"""One row per verified pair; rules decided by keys alone write none."""

import pyarrow as pa

from schemas.table import RULE, Table, column

TABLE = Table(
    name="pairs",
    doc="one row per pair that a rule, after verification, calls the same picture",
    partition_by=("rule",),
    schema=pa.schema(
        [
            column("left_id", pa.binary(), "the smaller image_id of the two", unit="16 bytes"),
            column("right_id", pa.binary(), "the larger image_id of the two", unit="16 bytes"),
            column("score", pa.float32(), "the rule's measure of likeness", unit="as the rule defines it"),
            RULE,
        ]
    ),
)
