"""Fitted models as rows of the table `models`: their weights as an npz archive, and what is needed to use them."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.baselines.model import Model, Pixels, StoredModel
from pipeline.baselines.models import LOADERS
from pipeline.baselines.predict import BLOCK_ROWS
from pipeline.recipe import BaselinePart, parse_baseline


class LoadedModel(NamedTuple):
    """A model of the table `models`, ready to predict.

    Attributes:
        model: the model.
        names: of the classes, in the order of its scores.
        shape: (height, width, channels) of the images that it takes.
    """

    model: Model
    names: Sequence[str]
    shape: tuple[int, int, int]


def model_row(part: BaselinePart, model: Model, names: Sequence[str], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the columns of `models` that depend on the fitted model alone. Equal models give equal bytes."""
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **{name: np.asarray(values) for name, values in model.weights.items()})
    return {
        "settings": json.dumps(part.run_settings, sort_keys=True),
        "classes": list(names),
        "height": shape[0],
        "width": shape[1],
        "channels": shape[2],
        "weights": out.getvalue(),
    }


def predict_classes(loaded: LoadedModel, pixels: Pixels, *, with_scores: bool = False) -> pl.DataFrame:
    """Predict the classes of images.

    Args:
        loaded: the model.
        pixels: (n, height * width * channels) uint8.
        with_scores: also return the score of every class.

    Returns:
        n rows in the order of `pixels`: predicted, the class; probability of it, null if the model has none;
        class_scores, the score of every class in the order of `loaded.names`, null without `with_scores`.
    """
    blocks = [loaded.model.scores(pixels[at : at + BLOCK_ROWS]) for at in range(0, len(pixels), BLOCK_ROWS)]
    scores = np.concatenate([np.empty((0, len(loaded.names))), *blocks])
    best = pl.Series(scores.max(axis=1)) if loaded.model.probable else pl.Series([None] * len(scores), dtype=pl.Float64)
    listed = pl.Series(scores).arr.to_list() if with_scores else pl.Series([None] * len(scores), dtype=pl.List(pl.Float64))
    return pl.DataFrame(
        {
            "predicted": pl.Series(loaded.names, dtype=pl.String).gather(scores.argmax(axis=1)),
            "probability": best,
            "class_scores": listed,
        }
    )


def load_model(row: Mapping[str, Any]) -> LoadedModel:
    """Make the model of a row of `models`. It predicts what the fitted model predicted.

    Raises:
        MissingExtraError: the model needs a library that is not installed.
    """
    part = parse_baseline(json.loads(row["settings"]))
    with np.load(io.BytesIO(row["weights"]), allow_pickle=False) as archive:
        weights = {name: archive[name] for name in archive.files}
    shape = (row["height"], row["width"], row["channels"])
    model = LOADERS[part.model](StoredModel(part, weights, len(row["classes"]), shape))
    return LoadedModel(model, row["classes"], shape)
