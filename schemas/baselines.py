"""One row per measured value.

One row per test image that a model got wrong.
"""

import pyarrow as pa

from schemas.table import IMAGE_ID, Table, column

SCORES = Table(
    name="scores",
    doc="one row per measured value of a model",
    schema=pa.schema(
        [
            column("run_id", pa.string(), "digest of the model, its settings and the split it was trained on"),
            column("model", pa.string(), "name of the model"),
            column("split_name", pa.string(), "split that the model was trained and scored on"),
            column(
                "settings",
                pa.string(),
                "the [[baseline]] it is of, as JSON; null in rows of an older imagelake",
                null=True,
            ),
            column("train_size", pa.int64(), "training images used", unit="images"),
            column(
                "role",
                pa.string(),
                "role that was measured: train (the images that were trained on), valid or test; null in rows of an "
                "older imagelake: test",
                null=True,
            ),
            column(
                "eval_on",
                pa.string(),
                "part of the role: original, sanitized, overlap, or cross-validated (each image of train judged by a "
                "model that was not trained on it)",
            ),
            column(
                "rule",
                pa.string(),
                "rule by which test images overlap with train; null: all rules that sanitize the split",
                null=True,
            ),
            column("metric", pa.string(), "what was measured: docs/scores.md lists them all"),
            column("label", pa.string(), "class that the value is of; null: all classes", null=True),
            column("predicted", pa.string(), "of a cell of a confusion matrix, the class that was said", null=True),
            column(
                "point",
                pa.float64(),
                "epoch or fold, counting from 1, threshold, or wanted precision that the value is of; null: none",
                null=True,
            ),
            column("value", pa.float64(), "the measured value", unit="as the metric defines it"),
            column("seed", pa.int64(), "seed of the model"),
            column("seconds", pa.float64(), "wall time of the fit", unit="seconds"),
            column(
                "memory",
                pa.int64(),
                "most memory that the process held while fitting; null: not measured",
                unit="bytes",
                null=True,
            ),
            column("release", pa.int64(), "release the arrays were read for"),
        ]
    ),
)

MISSES = Table(
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
