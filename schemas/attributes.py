"""The attributes table: facts about images that a recipe joins to them, such as the patient, the camera or the time."""

import pyarrow as pa

from schemas.table import DATASET, IMAGE_ID, Table, column

ATTRIBUTES = Table(
    name="attributes",
    doc="one row per image and value of an attribute; in SQL, the view attributes_wide has a column for each attribute",
    partition_by=("dataset",),
    schema=pa.schema(
        [
            IMAGE_ID,
            column("name", pa.string(), "name of the attribute, such as patient"),
            column(
                "value",
                pa.string(),
                "the value as text: numbers as written by Polars, true or false, dates and times in ISO 8601 (UTC). An "
                "image with several values of an attribute has several rows; an image without a value has none",
            ),
            column("type", pa.string(), "type of the attribute: text, int, float, bool, date or datetime"),
            DATASET,
        ]
    ),
)
