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
            column("train_size", pa.int64(), "training images used", unit="images"),
            column("eval_on", pa.string(), "part of the test role: original, sanitized or overlap"),
            column(
                "rule",
                pa.string(),
                "rule by which test images overlap with train; null: all rules that sanitize the split",
                null=True,
            ),
            column("metric", pa.string(), "what was measured, such as accuracy"),
            column("value", pa.float64(), "the measured value", unit="as the metric defines it"),
            column("seed", pa.int64(), "seed of the model"),
            column("seconds", pa.float64(), "wall time of the fit", unit="seconds"),
            column("release", pa.int64(), "release the arrays were read for"),
        ]
    ),
)
