"""One row per image in a named split; original and sanitized are both read from here."""

import pyarrow as pa

from schemas.table import IMAGE_ID, Table, column

SPLITS = Table(
    name="splits",
    doc="one row per image in a named split",
    partition_by=("split_name",),
    schema=pa.schema(
        [
            column("role", pa.string(), "train, valid or test"),
            column(
                "rank",
                pa.int64(),
                "position in the role, fixed by the seed",
                unit="0 to rows of the role - 1",
            ),
            IMAGE_ID,
            column("label_index", pa.int32(), "position of the label among the split's class names", null=True),
            column("kept", pa.bool_(), "true in the sanitized split; every row is in the original one"),
            column("dropped_by", pa.string(), "rule for which the row was dropped", null=True),
            column(
                "dropped_for",
                pa.binary(),
                "image_id for which the row was dropped",
                unit="16 bytes",
                null=True,
            ),
            column(
                "reason",
                pa.string(),
                "why the row was dropped: overlap (its cluster is in a role that keeps it), repeat (again in its own "
                "role), conflict (its cluster has several labels)",
                null=True,
            ),
            column("split_name", pa.string(), "name of the split in the recipe"),
        ]
    ),
)
