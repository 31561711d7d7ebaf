"""splits, images, models -> predictions: predict the images of splits with the models that the lake keeps.

A model is not trained again for this: its weights are in the table `models`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

import schemas
from pipeline import storage
from pipeline.baselines.predict import BLOCK_ROWS
from pipeline.baselines.stored import LoadedModel, load_model, predict_classes
from pipeline.builder.baselines import baselines_by_run
from pipeline.builder.state import Todo, find_outdated, input_versions, unit_digest
from pipeline.errors import BaselineError
from pipeline.hashing import flat
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.releases import newest_release
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit
from pipeline.pixels import gather, locate
from pipeline.progress import SILENT, Progress
from pipeline.recipe import ROLES, Recipe


def prediction_units(
    snapshot: Snapshot, recipe: Recipe, runs: Mapping[str, Mapping[str, Any]], *, prune: bool
) -> dict[str, dict[str, Any]]:
    """Return, by unit, what to predict and its fingerprint. A unit is a run and a split.

    Args:
        snapshot: the lake.
        recipe: what to build. It replaces all predictions of its runs. Those of other runs stay, unless pruned.
        runs: the runs that the lake will have, by name; made by `run_units`.
        prune: leave out predictions of runs that are not in the recipe.
    """
    rows = {name: unit.get("rows") for name, unit in snapshot.metadata("splits").units.items()}
    in_recipe = baselines_by_run(recipe)
    wanted: list[dict[str, Any]] = [
        {"run": run, "split": split, "roles": list(roles), "scores": part.predict_scores}
        for run, part in in_recipe.items()
        for split, roles in part.predicted_roles.items()
    ]
    if not prune:
        stored = [unit["spec"] for unit in snapshot.metadata("predictions").units.values()]
        wanted += [spec for spec in stored if spec["run"] in runs and spec["run"] not in in_recipe]
    return {
        f"{spec['run']} predicts {spec['split']}": {
            "spec": spec,
            "run_id": runs[spec["run"]]["fingerprint"],
            "fingerprint": unit_digest("predictions", spec, [runs[spec["run"]]["fingerprint"], rows[spec["split"]]]),
        }
        for spec in wanted
        if spec["split"] in rows
    }


def plan_predictions(
    snapshot: Snapshot,
    recipe: Recipe,
    runs: Mapping[str, Mapping[str, Any]],
    *,
    prune: bool,
    changed: Collection[str],
) -> list[Todo]:
    """List the predictions that the next build would make, and why.

    Args:
        snapshot: the lake.
        recipe: what to build.
        runs: made by `run_units`.
        prune: as in `prediction_units`.
        changed: names of the runs and splits that the next build makes again.
    """
    units = prediction_units(snapshot, recipe, runs, prune=prune)
    reasons = {
        name: "only if its run or split changes"
        for name, unit in units.items()
        if {unit["spec"]["run"], unit["spec"]["split"]} & set(changed)
    }
    return find_outdated("predictions", units, snapshot.metadata("predictions"), changed=reasons)


def predict_splits(
    snapshot: Snapshot, writer: Writer, units: Mapping[str, Mapping[str, Any]], progress: Progress = SILENT
) -> tuple[list[Todo], list[Commit]]:
    """Make the predictions that are out of date.

    Args:
        snapshot: the lake, with the models of every run.
        writer: writes the files.
        units: made by `prediction_units`.
        progress: shows the progress.

    Returns:
        What was done, and why; and the commit to make. Both are empty if nothing is out of date.

    Raises:
        BaselineError: the images of a split do not have the shape that the model takes.
        MissingExtraError: a model needs a library that is not installed.
    """
    stored = snapshot.metadata("predictions")
    todo = find_outdated("predictions", units, stored)
    if not todo:
        return [], []
    written, release = [], newest_release(snapshot) + 1
    schema = schemas.TABLES["predictions"].file_schema
    for item in todo:
        unit = units.get(item.unit)
        if unit is None:
            continue
        spec = unit["spec"]
        progress.step(f"predict {spec['split']} by {spec['run']}")
        row = _find_model(snapshot, unit["run_id"])
        rows = predict_split(snapshot, load_model(row), spec["split"], spec["roles"], with_scores=spec["scores"])
        rows = rows.with_columns(
            model=pl.lit(row["model"]), train_size=pl.lit(row["train_size"]), release=pl.lit(release)
        )
        partition = {"run_id": unit["run_id"], "split_name": spec["split"]}
        table = rows.select(schema.names).cast(pl.Schema(schema)).to_arrow().cast(schema)
        written += writer.write("predictions", table, partition)
    again = {(unit["run_id"], unit["spec"]["split"]) for unit in (units.get(item.unit) for item in todo) if unit}
    kept = {(unit["run_id"], unit["spec"]["split"]) for unit in units.values()} - again
    metadata = Metadata("predictions", units, input_versions(snapshot, "images", "splits", "models"))
    gone = Commit("predictions", written, metadata, lambda part: (part["run_id"], part["split_name"]) not in kept)
    return todo, [gone]


def _find_model(snapshot: Snapshot, run_id: str) -> dict[str, Any]:
    """Return the row of `models` of a run, of its largest train size.

    Raises:
        BaselineError: the lake keeps no such model.
        DamagedLakeError: a file of the models is missing or damaged.
    """
    storage.check_files(snapshot.file_places("models"))
    found = snapshot.scan("models").filter(pl.col("run_id") == run_id).sort("train_size").tail(1).collect()
    if found.is_empty():
        raise BaselineError(
            f"{snapshot.place} keeps no model of run {run_id}: an older imagelake trained it. Name the baseline in the "
            "recipe and build again, which trains it."
        )
    return found.row(0, named=True)


def predict_split(
    snapshot: Snapshot, loaded: LoadedModel, split: str, roles: Sequence[str], *, with_scores: bool = False
) -> pl.DataFrame:
    """Predict the images of a split, in the order of the files, so that each part of a file is read once.

    Args:
        snapshot: the lake.
        loaded: the model.
        split: name of the split.
        roles: roles to predict; empty for all.
        with_scores: also return the score of every class.

    Returns:
        Columns image_id, role, predicted, probability and class_scores, ordered by role and rank. The last two are null
        where there are none.

    Raises:
        BaselineError: the images do not have the shape that the model takes.
    """
    rows = (
        snapshot.scan("splits")
        .filter(pl.col("split_name") == split, pl.col("role").is_in(list(roles or ROLES)))
        .select("role", "rank", "image_id")
        .sort(pl.col("role").cast(pl.Enum(ROLES)), "rank")
        .collect()
    )
    located = locate(snapshot.file_places("images"), rows["image_id"])
    if len(rows) and located.shape != loaded.shape:
        found, needed = ("x".join(map(str, shape)) for shape in (located.shape, loaded.shape))
        raise BaselineError(
            f"split '{split}': its images are {found}, but the model takes {needed} (height x width x channels). Set "
            "decode.size in the recipe, so that all images get one size."
        )
    order = located.file_order()
    blocks = [
        predict_classes(loaded, flat(gather(located.take(order[at : at + BLOCK_ROWS]))), with_scores=with_scores)
        for at in range(0, len(order), BLOCK_ROWS)
    ]
    empty = predict_classes(loaded, np.empty((0, int(np.prod(loaded.shape))), np.uint8), with_scores=with_scores)
    found_rows = pl.concat([empty, *blocks])
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pl.concat([rows.select("image_id", "role"), found_rows[back]], how="horizontal")
