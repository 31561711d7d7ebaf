"""One row per decoded image.

One row per file that did not become an image.

One row per shard: what has been decoded, from which bytes, by which decoder.
"""

import pyarrow as pa

from schemas.table import DATASET, FILE_SIZE, IMAGE_ID, LABEL, PATH, SHARD, SPLIT, Table, column

IMAGES = Table(
    name="images",
    doc="one row per decoded image",
    partition_by=("dataset", "split", "shard"),
    schema=pa.schema(
        [
            IMAGE_ID,
            PATH,
            LABEL,
            column("height", pa.int32(), "rows of pixels", unit="pixels"),
            column("width", pa.int32(), "columns of pixels", unit="pixels"),
            column("channels", pa.int16(), "1 for gray, 3 for RGB", unit="channels"),
            column(
                "pixels",
                pa.binary(),
                "canonical pixels, row by row, channels last",
                unit="height * width * channels bytes of uint8, 0 to 255",
            ),
            column(
                "content_hash",
                pa.binary(),
                "what the image shows: xxh3-128 of (height, width, channels, pixels)",
                unit="16 bytes",
            ),
            column("pixel_sum", pa.int64(), "sum of all pixel values: means need no pixel", unit="0 to 255 a value"),
            column("pixel_squares", pa.int64(), "sum of all squared pixel values", unit="0 to 65,025 a value"),
            FILE_SIZE,
            DATASET,
            SPLIT,
            SHARD,
        ]
    ),
)

REJECTS = Table(
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

SHARDS = Table(
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
