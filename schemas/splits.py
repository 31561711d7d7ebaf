"""The splits table. Its rows are the original split; the rows with `kept` are the sanitized split."""

import pyarrow as pa

from schemas.table import IMAGE_ID, Table, column

# As `dropped_by`, `reason` and `label_reason`: a person decided it.
VERDICT = "verdict"

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
                "position in the role, determined by the seed",
                unit="0 to rows of the role - 1",
            ),
            IMAGE_ID,
            column(
                "label_index",
                pa.int32(),
                "position of the label among the split's class names; null if the image has no label",
                null=True,
            ),
            column(
                "corrected_label",
                pa.string(),
                "label that a person gave the image, which counts instead of images.label; null if none did, or if the "
                "label is wrong and the right one is unknown",
                null=True,
            ),
            column(
                "label_reason",
                pa.string(),
                "verdict if corrected_label counts instead of images.label; else null",
                null=True,
            ),
            column("kept", pa.bool_(), "true if the row is in the sanitized split; all rows are in the original split"),
            column(
                "dropped_by",
                pa.string(),
                "rule or kind of issue that caused the row to be dropped, or verdict; null if kept",
                null=True,
            ),
            column(
                "dropped_for",
                pa.binary(),
                "image_id of the kept or conflicting image because of which the row was dropped; null if kept, or if "
                "the reason is verdict or issue",
                unit="16 bytes",
                null=True,
            ),
            column(
                "reason",
                pa.string(),
                "why the row was dropped: overlap (another role keeps an image of its cluster), repeat (its role has "
                "another image of its cluster), conflict (its cluster has several labels), verdict (a person decided "
                "to drop it), issue (it has an issue that the split drops); null if kept",
                null=True,
            ),
            column("split_name", pa.string(), "name of the split in the recipe"),
        ]
    ),
)
