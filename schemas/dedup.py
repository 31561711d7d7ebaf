"""One row per blocking key of an image under a rule.

One row per verified pair; rules decided by keys alone write none.

One row per image in a cluster of two or more.

One row per basis that was fitted to this lake's images.
"""

import pyarrow as pa

from schemas.table import DATASET, IMAGE_ID, LABEL, RULE, SHARD, SPLIT, Table, column

INDEX = Table(
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

PAIRS = Table(
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

CLUSTERS = Table(
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

BASES = Table(
    name="bases",
    doc="one row per basis that a family of rules fitted to this lake's images, and keeps for later ones",
    schema=pa.schema(
        [
            column("family", pa.string(), "rules that use it, such as photo for photo:0.5"),
            column("version", pa.int32(), "version of the descriptor that it belongs to"),
            column("images", pa.int64(), "images it was fitted to", unit="images"),
            column("basis", pa.binary(), "the basis", unit="float32, little-endian, as the family lays it out"),
        ]
    ),
)
