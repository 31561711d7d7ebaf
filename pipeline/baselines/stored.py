"""Fitted models as rows of the table `models`: their weights as an npz archive, and what is needed to use them."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.baselines.model import Model, Pixels, StoredModel
from pipeline.baselines.models import LOADERS
from pipeline.baselines.predict import BLOCK_ROWS
from pipeline.errors import BaselineError
from pipeline.recipe import BaselinePart, parse_baseline
from pipeline.recipe.baselines import PARTS

# The best evidence first: a score on images that the model has not seen.
_EVIDENCE = pl.Enum(["test sanitized", "test original", "valid sanitized", "valid original", "train original"])


class LoadedModel(NamedTuple):
    """A model of the table `models`, ready to predict.

    Attributes:
        model: the model.
        names: of the classes, in the order of its scores.
        shape: (height, width, channels) of the images that it takes.
        title: MODEL@SPLIT.
    """

    model: Model
    names: Sequence[str]
    shape: tuple[int, int, int]
    title: str


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
    listed = (
        pl.Series(scores).arr.to_list() if with_scores else pl.Series([None] * len(scores), dtype=pl.List(pl.Float64))
    )
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
    return LoadedModel(model, row["classes"], shape, f"{row['model']}@{row['split_name']}")


def choose_model(
    scan: Callable[[str], pl.LazyFrame], place: str, run: str | None = None, train_size: int | None = None
) -> dict[str, Any]:
    """Choose a model of a lake: the one of a name, else the best one.

    The best has the highest accuracy on the test role, else on valid, else on train. A sanitized role counts
    before the original one, because images that the model was trained on flatter it. A dummy (`never`) or a model
    of one class against the rest is chosen only by name.

    Args:
        scan: scans a table of the lake.
        place: the lake's place, for messages.
        run: MODEL@SPLIT, such as "lenet@main"; None for the best.
        train_size: number of training images; None for the largest of a run.

    Returns:
        The row of the table `models`.

    Raises:
        BaselineError: there is no such model.
    """
    models = scan("models").select(pl.exclude("weights")).collect()
    names = pl.concat_str("model", "split_name", separator="@")
    if models.is_empty():
        raise BaselineError(
            f"{place} keeps no model. Add a [[baseline]] to its recipe, or, if an older imagelake trained its models, "
            "build again."
        )
    if run is not None:
        found = models.filter(names == run)
        if found.is_empty():
            listed = ", ".join(models.select(names.unique().sort()).to_series())
            raise BaselineError(f"{place} has no model '{run}'. Models: {listed}.")
        models = found
    else:
        positive = pl.col("settings").str.json_path_match("$.positive")
        dummies = [name for name, part in PARTS.items() if part.dummy]
        models = models.filter(~pl.col("model").is_in(dummies), positive.is_null())
        if models.is_empty():
            raise BaselineError(f"{place} has no model of several classes. Name one of another kind with --run.")
    sizes = models["train_size"].unique().sort().to_list()
    if train_size is None:
        models = models.filter(pl.col("train_size") == pl.col("train_size").max().over("run_id"))
    else:
        models = models.filter(pl.col("train_size") == train_size)
    if models.is_empty():
        raise BaselineError(f"no model was trained on {train_size} images. Train sizes: {', '.join(map(str, sizes))}.")
    accuracies = (
        scan("scores")
        .filter(pl.col("metric") == "accuracy", pl.col("rule").is_null(), pl.col("label").is_null())
        .with_columns(evidence=pl.concat_str(pl.col("role").fill_null("test"), "eval_on", separator=" "))
        .filter(pl.col("evidence").is_in(_EVIDENCE.categories))
        .select("run_id", "train_size", "seed", pl.col("evidence").cast(_EVIDENCE), accuracy="value")
        .collect()
    )
    best = (
        models.join(accuracies, on=["run_id", "train_size", "seed"], how="left")
        .sort("evidence", "accuracy", "run_id", descending=[False, True, False], nulls_last=True)
        .row(0, named=True)
    )
    chosen = pl.col("run_id") == best["run_id"], pl.col("train_size") == best["train_size"]
    return scan("models").filter(*chosen).collect().row(0, named=True)
