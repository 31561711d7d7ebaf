"""One row per test image that a model got wrong."""

import pyarrow as pa

from schemas.table import IMAGE_ID, Table, column

TABLE = Table(
    name="misses",
    doc="one row per test image that a model got wrong",
    schema=pa.schema(
        [
            column("run_id", pa.string(), "run of the scores table that the model is of"),
            column("model", pa.string(), "name of the model"),
            column("split_name", pa.string(), "split that the model was trained and scored on"),
            column("train_size", pa.int64(), "training images used: the largest size of the run", unit="images"),
            column("seed", pa.int64(), "seed of the model: the first of the run"),
            IMAGE_ID,
            column("label", pa.string(), "class of the image"),
            column("predicted", pa.string(), "class that the model said"),
            column(
                "probability",
                pa.float64(),
                "what the model gave the class it said; null where it knows no probabilities",
                unit="0 to 1",
                null=True,
            ),
            column(
                "margin",
                pa.float64(),
                "how much more the model gave the class it said than the true one",
                unit="as the model's scores: of probabilities 0 to 1",
            ),
            column("kept", pa.bool_(), "whether the image is in the sanitized split"),
            column(
                "nearest_id",
                pa.binary(),
                "image_id of the training image with the least Euclidean distance; of equals the first in the split",
                unit="16 bytes",
                null=True,
            ),
            column("nearest_label", pa.string(), "class of that image", null=True),
            column(
                "distance",
                pa.float64(),
                "root of the mean squared difference of the pixels to it",
                unit="0 to 255",
                null=True,
            ),
            column("release", pa.int64(), "release the arrays were read for"),
        ]
    ),
)
