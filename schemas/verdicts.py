"""The verdicts table: what people decided about pictures and pairs of pictures."""

import pyarrow as pa

from schemas.table import Table, column

# Verdicts about a pair, about one picture, and about either; "withdrawn" takes back an earlier one.
PAIR_VERDICTS = ("same", "different")
PICTURE_VERDICTS = ("keep", "drop", "label", "wrong_label")
NOT_SURE, WITHDRAWN = "not_sure", "withdrawn"

VERDICTS = Table(
    name="verdicts",
    doc="one row per decision of a person; rows are only added, and the newest about a picture or pair counts",
    schema=pa.schema(
        [
            column("verdict_id", pa.binary(), "identifies the decision", unit="16 bytes"),
            column("created_at", pa.timestamp("us", tz="UTC"), "when it was made", unit="UTC"),
            column("who", pa.string(), "who made it"),
            column(
                "verdict",
                pa.string(),
                "of a pair: same, different; of a picture: keep, drop, label (it is the one in `label`), wrong_label; "
                "of either: not_sure; withdrawn takes back the verdict in `withdraws`",
            ),
            column(
                "file_digest",
                pa.binary(),
                "images.file_digest of the picture; of a pair, the smaller one. Null if the lake did not have it",
                unit="32 bytes",
                null=True,
            ),
            column(
                "content_hash",
                pa.binary(),
                "images.content_hash of the picture, by which it is found if no image has its file_digest; null for "
                "withdrawn",
                unit="16 bytes",
                null=True,
            ),
            column(
                "other_file_digest",
                pa.binary(),
                "as file_digest, of the other picture of a pair; null if the verdict is about one picture",
                unit="32 bytes",
                null=True,
            ),
            column(
                "other_content_hash",
                pa.binary(),
                "as content_hash, of the other picture of a pair; null if the verdict is about one picture",
                unit="16 bytes",
                null=True,
            ),
            column("label", pa.string(), "the right label, of the verdict label; else null", null=True),
            column("rule", pa.string(), "rule under which the pair was shown; null if none", null=True),
            column("score", pa.float32(), "score of the pair at that time; null if none", null=True),
            column("note", pa.string(), "remark of the person; null if none", null=True),
            column(
                "withdraws",
                pa.binary(),
                "verdict_id of the verdict that this row takes back; else null",
                unit="16 bytes",
                null=True,
            ),
        ]
    ),
)
