"""One row per measured value."""

import pyarrow as pa

from schemas.table import Table, column

TABLE = Table(
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
