"""Fitted models as rows of the table `models`: their weights as an npz archive, and what is needed to use them."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.baselines.model import Model, StoredModel
from pipeline.baselines.models import LOADERS
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
        "settings": json.dumps(part.model_dump(mode="json", exclude_none=True), sort_keys=True),
        "classes": list(names),
        "height": shape[0],
        "width": shape[1],
        "channels": shape[2],
        "weights": out.getvalue(),
    }


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
