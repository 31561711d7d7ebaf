"""splits, arrays -> scores: train and score every baseline whose settings or split changed."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import schemas
from pipeline.baselines.score import Examples, score
from pipeline.errors import BaselineError
from pipeline.flow.state import Todo, stale, unit_digest
from pipeline.handle import Lake
from pipeline.hashing import digest_of, flat
from pipeline.lake.commits import Meta, commit, read_meta, versions
from pipeline.lake.parts import write_part
from pipeline.lake.reading import scan_table
from pipeline.lake.releases import newest
from pipeline.progress import SILENT, Progress
from pipeline.recipe import BaselinePart, Recipe


def run_units(root: str, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """By run, its fingerprint, which is its run_id too, and how it is made.

    A recipe speaks for every model and split that it names together: their other runs go. Scores of what it does not
    name stay as they were measured, for the release they name, until pruned.
    """
    asked = _named(recipe)
    spoken = {(part.model, part.split) for part in asked.values()}
    held = {} if prune else read_meta(root, "scores").units
    stay = {
        name: dict(unit)
        for name, unit in held.items()
        if name not in asked and (unit["spec"]["model"], unit["spec"]["split"]) not in spoken
    }
    rows = {name: unit["rows"] for name, unit in read_meta(root, "splits").units.items()}
    made = {
        name: {"spec": spec, "fingerprint": unit_digest("baselines", spec, rows.get(spec["split"]))}
        for name, spec in ((name, part.model_dump(mode="json")) for name, part in asked.items())
    }
    return {**stay, **made}


def _named(recipe: Recipe) -> dict[str, BaselinePart]:
    return {
        f"{part.model} on {part.split} ({digest_of(part.model_dump(mode='json'))[:6]})": part
        for part in recipe.baseline
    }


def plan_runs(root: str, recipe: Recipe, *, prune: bool, redrawn: Collection[str]) -> list[Todo]:
    """Tell which baselines the next build would train, and why; it trains none whose split comes out as it was."""
    changed = {name: "if its split changes" for name, part in _named(recipe).items() if part.split in redrawn}
    return stale("baselines", run_units(root, recipe, prune=prune), read_meta(root, "scores"), changed=changed)


def run_baselines(root: str, units: Mapping[str, Mapping[str, Any]], progress: Progress = SILENT) -> list[Todo]:
    """Train and score every baseline that is out of date, in one commit.

    Args:
        root: the lake's folder.
        units: made by `run_units`.
        progress: where to show it.

    Returns:
        What was done, and why; empty where nothing was out of date, and then nothing was committed.

    Raises:
        BaselineError: a baseline cannot be trained on its split.
    """
    todo = stale("baselines", units, read_meta(root, "scores"))
    if not todo:
        return []
    again = {item.unit for item in todo}
    old = scan_table(root, "scores", None).collect().to_dicts()
    rows = []
    for name, unit in units.items():
        if name in again:
            progress.step(f"train {name}")
            rows += _score(root, unit)
        else:
            rows += [row for row in old if row["run_id"] == unit["fingerprint"]]
    part = write_part(root, "scores", {}, pa.Table.from_pylist(rows, schema=schemas.TABLES["scores"].schema))
    held = versions(root)
    meta = Meta("baselines", units, {name: held[name] for name in ("images", "splits")})
    commit(root, "scores", [part] if part else [], lambda _: True, meta)
    return todo


def _score(root: str, unit: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = BaselinePart.model_validate(unit["spec"])
    lake = Lake.working(root)
    train, _ = _examples(lake, spec.split, "train", sanitized=True)
    test, kept = _examples(lake, spec.split, "test", sanitized=False)
    sizes = train.pixels.shape[1], test.pixels.shape[1]
    if sizes[0] != sizes[1]:
        raise BaselineError(
            f"{spec.model} on split '{spec.split}': its train images have {sizes[0]} values each, its test images "
            f"{sizes[1]}. Set decode.size, so that all are of one size, or take the baseline out."
        )
    parts = {
        "original": test,
        "sanitized": Examples(test.pixels[kept], test.labels[kept]),
        "overlap": Examples(test.pixels[~kept], test.labels[~kept]),
    }
    known = {"run_id": unit["fingerprint"], "release": newest(root) + 1}
    return [{**row, **known} for row in score(spec, train, parts)]


def _examples(lake: Lake, split: str, role: str, *, sanitized: bool) -> tuple[Examples, NDArray[np.bool_]]:
    """Read the labelled images of a role, and whether sanitizing kept each."""
    pixels, labels = lake.arrays(split, role, sanitized=sanitized, normalised=True)
    kept = lake.members(split, role, sanitized=sanitized)["kept"].to_numpy()
    named = labels >= 0
    if not named.all():
        pixels, labels, kept = pixels[named], labels[named], kept[named]
    return Examples(flat(pixels), labels), kept
