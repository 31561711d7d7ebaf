"""Tables of baseline models: scores, misses (misclassified test images), models and predictions."""

import pyarrow as pa

from schemas.table import IMAGE_ID, Table, column

_RELEASE = column("release", pa.int64(), "release that the images were read from")
_PROBABILITY = column(
    "probability",
    pa.float64(),
    "probability of the predicted class; null if the model has no probabilities",
    unit="0 to 1",
    null=True,
)

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
                "settings of the [[baseline]] as JSON; null in rows written by an older imagelake",
                null=True,
            ),
            column("train_size", pa.int64(), "number of training images", unit="images"),
            column(
                "role",
                pa.string(),
                "role that was measured: train (the training images), valid or test; null means test, in rows written "
                "by an older imagelake",
                null=True,
            ),
            column(
                "eval_on",
                pa.string(),
                "part of the role: original, sanitized, overlap, or cross-validated (each training image is predicted "
                "by a model that was not trained on it)",
            ),
            column(
                "rule",
                pa.string(),
                "rule by which test images overlap with train; null means all rules that sanitize the split",
                null=True,
            ),
            column("metric", pa.string(), "name of the measured value; docs/reference/scores.md lists all metrics"),
            column("label", pa.string(), "class that the value belongs to; null means all classes", null=True),
            column("predicted", pa.string(), "predicted class, for a cell of a confusion matrix", null=True),
            column(
                "point",
                pa.float64(),
                "epoch or fold (counting from 1), threshold, or target precision that the value belongs to; else null",
                null=True,
            ),
            column("value", pa.float64(), "the measured value", unit="as the metric defines it"),
            column("seed", pa.int64(), "seed of the model"),
            column("seconds", pa.float64(), "wall time of the fit", unit="seconds"),
            column(
                "memory",
                pa.int64(),
                "peak memory of the process during the fit; null if not measured",
                unit="bytes",
                null=True,
            ),
            _RELEASE,
        ]
    ),
)

MISSES = Table(
    name="misses",
    doc="one row per misclassified test image of a model",
    schema=pa.schema(
        [
            column("run_id", pa.string(), "run in the scores table that the model belongs to"),
            column("model", pa.string(), "name of the model"),
            column("split_name", pa.string(), "split that the model was trained and scored on"),
            column("train_size", pa.int64(), "number of training images: the largest of the run", unit="images"),
            column("seed", pa.int64(), "seed of the model: the first of the run"),
            IMAGE_ID,
            column("label", pa.string(), "class of the image"),
            column("predicted", pa.string(), "class that the model predicted"),
            _PROBABILITY,
            column(
                "margin",
                pa.float64(),
                "score of the predicted class minus score of the true class",
                unit="as the model's scores; 0 to 1 for probabilities",
            ),
            column("kept", pa.bool_(), "true if the image is in the sanitized split"),
            column(
                "nearest_id",
                pa.binary(),
                "image_id of the training image with the smallest Euclidean distance; the first in the split if equal",
                unit="16 bytes",
                null=True,
            ),
            column("nearest_label", pa.string(), "class of the nearest training image", null=True),
            column(
                "distance",
                pa.float64(),
                "root mean squared pixel difference to the nearest training image",
                unit="0 to 255",
                null=True,
            ),
            _RELEASE,
        ]
    ),
)

MODELS = Table(
    name="models",
    doc="one row per trained model: the first seed of every train size of a run",
    schema=pa.schema(
        [
            column("run_id", pa.string(), "run in the scores table that the model belongs to"),
            column("model", pa.string(), "name of the model"),
            column("split_name", pa.string(), "split that the model was trained on"),
            column("train_size", pa.int64(), "number of training images", unit="images"),
            column("seed", pa.int64(), "seed of the model"),
            column("settings", pa.string(), "settings of the [[baseline]] as JSON"),
            column("classes", pa.list_(pa.field("element", pa.string())), "class names, in the order of the scores"),
            column("height", pa.int64(), "height of the images that the model takes", unit="pixels"),
            column("width", pa.int64(), "width of the images that the model takes", unit="pixels"),
            column("channels", pa.int64(), "channels of the images that the model takes"),
            column(
                "weights",
                pa.binary(),
                "the fitted numbers as an npz archive, which numpy.load reads without pickle; no pixels",
                unit="bytes of a file",
            ),
            _RELEASE,
        ]
    ),
)

PREDICTIONS = Table(
    name="predictions",
    doc="one row per image that a model predicted, for the key predict of a [[baseline]]",
    partition_by=("run_id", "split_name"),
    schema=pa.schema(
        [
            IMAGE_ID,
            column("role", pa.string(), "role of the image: train, valid or test"),
            column("predicted", pa.string(), "class that the model predicted"),
            _PROBABILITY,
            column(
                "class_scores",
                pa.list_(pa.field("element", pa.float64())),
                "score of every class, in the order of the column classes of models; null unless the recipe has "
                "predict_scores = true",
                unit="as the model's scores; 0 to 1 for probabilities",
                null=True,
            ),
            column("model", pa.string(), "name of the model"),
            column("train_size", pa.int64(), "number of training images: the largest of the run", unit="images"),
            _RELEASE,
            column("run_id", pa.string(), "run in the scores table that the model belongs to"),
            column("split_name", pa.string(), "split of the predicted images"),
        ]
    ),
)
