"""Tables of issues: measurements of pictures, and the images that a person should look at."""

import pyarrow as pa

from schemas.table import IMAGE_ID, Table, column

_LEVEL = "gray level, 0 to 255"

MEASUREMENTS = Table(
    name="measurements",
    doc="one row per distinct picture, with what the scores of [issues] are made of; none in lakes without [issues]",
    schema=pa.schema(
        [
            column("content_hash", pa.binary(), "the picture: images.content_hash", unit="16 bytes"),
            column("low", pa.float32(), "level that 1 % of the pixels are at or below", unit=_LEVEL),
            column("high", pa.float32(), "level that 99 % of the pixels are at or below", unit=_LEVEL),
            column("uniform", pa.float32(), "share of pixels within 3 levels of the median", unit="0 to 1"),
            column("step", pa.float32(), "change over one pixel that 0.5 % of all places reach", unit=_LEVEL),
            column("rise", pa.float32(), "change over four pixels that 0.5 % of all places reach", unit=_LEVEL),
            column("edges", pa.float32(), "share of places with an edge", unit="0 to 1"),
            column("border", pa.float32(), "share of the area that is a border of one colour", unit="0 to 1"),
        ]
    ),
)

ISSUES = Table(
    name="issues",
    doc="one row per image and kind of issue whose score reaches the threshold of [issues]",
    partition_by=("kind",),
    schema=pa.schema(
        [
            IMAGE_ID,
            column("score", pa.float32(), "how strong the issue is; recipe keys of [issues] define it", unit="0 to 1"),
            column(
                "suggested_label",
                pa.string(),
                "label that the model prefers; null unless the kind is label",
                null=True,
            ),
            column(
                "agreement",
                pa.float32(),
                "share of the ten nearest other pictures that have the suggested label; null unless the kind is label",
                unit="0 to 1",
                null=True,
            ),
            column(
                "other_id",
                pa.binary(),
                "image_id of the nearest other picture: with the suggested label for kind label, of the same class for "
                "kind outlier; else null",
                unit="16 bytes",
                null=True,
            ),
            column("kind", pa.string(), "kind of issue, such as blurry: a key of [issues]"),
        ]
    ),
)
