"""One row per decoded image."""

import pyarrow as pa

from schemas.table import DATASET, FILE_SIZE, IMAGE_ID, LABEL, PATH, SHARD, SPLIT, Table, column

TABLE = Table(
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
