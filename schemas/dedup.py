"""Tables of duplicate detection: index (blocking keys), pairs, clusters and bases (fitted projections)."""

import pyarrow as pa

from schemas.table import DATASET, IMAGE_ID, LABEL, RULE, SHARD, SPLIT, Table, column

INDEX = Table(
    name="index",
    doc="one row per image and rule, with the key and the features by which the rule compares images",
    partition_by=("rule", "dataset", "split", "shard"),
    schema=pa.schema(
        [
            column(
                "bucket",
                pa.int16(),
                "top eight bits of the key: images with equal keys are in one bucket",
                unit="0 to 255",
            ),
            column("key", pa.int64(), "blocking key: in most rules, only images with equal keys are compared"),
            column(
                "signature",
                pa.int64(),
                "compared if keys are equal; for rules with a 128-bit hash, its second half",
            ),
            column(
                "vector",
                pa.binary(),
                "features of the image for rules that compute a score; null for rules that compare keys only",
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
    doc="one row per verified pair of duplicates, or if a rule finds more than dedup.max_pairs, per pair that links "
    "two of its clusters; rules that compare keys only have no rows",
    partition_by=("rule",),
    schema=pa.schema(
        [
            column("left_id", pa.binary(), "the smaller image_id of the pair", unit="16 bytes"),
            column("right_id", pa.binary(), "the larger image_id of the pair", unit="16 bytes"),
            column("score", pa.float32(), "similarity of the two images", unit="as the rule defines it"),
            RULE,
        ]
    ),
)

CLUSTERS = Table(
    name="clusters",
    doc="one row per image in a cluster of two images or more",
    partition_by=("rule",),
    schema=pa.schema(
        [
            column(
                "cluster_id",
                pa.binary(),
                "image_id of the cluster's representative: its smallest image_id, or the centre of a star",
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
    doc="one row per basis that was fitted to images of this lake; a rule family uses it for all later images too",
    schema=pa.schema(
        [
            column("family", pa.string(), "rule family that uses the basis, such as photo for photo:0.5"),
            column("version", pa.int32(), "version of the descriptor that the basis belongs to"),
            column("images", pa.int64(), "number of images that the basis was fitted to", unit="images"),
            column(
                "basis", pa.binary(), "values of the basis", unit="float32, little-endian, in the layout of the family"
            ),
        ]
    ),
)
