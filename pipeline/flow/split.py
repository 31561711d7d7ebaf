"""images, clusters -> splits: draw and sanitize every split whose settings or input changed."""

from collections.abc import Mapping
from typing import Any

import polars as pl

import schemas
from pipeline.flow.state import Todo, shards_digest, stale, unit_digest
from pipeline.lake.commits import Meta, commit, read_meta, versions
from pipeline.lake.parts import write_part
from pipeline.lake.reading import scan_table
from pipeline.recipe import Recipe, SplitPart
from pipeline.splits.draw import draw_roles
from pipeline.splits.sanitize import sanitize


def split_units(root: str, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """By split, its fingerprint and how it is drawn: the recipe's splits, and unless pruned those the lake has."""
    held = {} if prune else {name: unit["spec"] for name, unit in read_meta(root, "splits").units.items()}
    specs = {**held, **{part.name: part.model_dump(mode="json", by_alias=True) for part in recipe.split}}
    state = shards_digest(scan_table(root, "shards", None).collect())
    clusters = read_meta(root, "clusters").units
    return {
        name: {
            "spec": spec,
            "fingerprint": unit_digest("splits", spec, [state, [clusters.get(rule) for rule in spec["sanitize"]]]),
        }
        for name, spec in specs.items()
    }


def plan_splits(root: str, units: Mapping[str, Mapping[str, Any]], *, images_change: bool) -> list[Todo]:
    """Tell which splits the next build would draw, and why."""
    changed = dict.fromkeys(units, "images change") if images_change else None
    return stale("splits", units, read_meta(root, "splits"), changed=changed)


def run_splits(root: str, units: Mapping[str, Mapping[str, Any]]) -> list[Todo]:
    """Draw and sanitize every split that is out of date, in one commit.

    Returns:
        What was done, and why; empty where nothing was out of date, and then nothing was committed.

    Raises:
        SplitError: a split asks for more than there is.
    """
    todo = stale("splits", units, read_meta(root, "splits"))
    if not todo:
        return []
    images = scan_table(root, "images", None).select("image_id", "label", "dataset", "split").collect()
    parts = [
        write_part(root, "splits", {"split_name": item.unit}, _rows(root, units[item.unit]["spec"], images))
        for item in todo
        if item.unit in units
    ]
    touched = {item.unit for item in todo}
    held = versions(root)
    meta = Meta("splits", units, {name: held[name] for name in ("images", "clusters")})
    commit(root, "splits", [part for part in parts if part], lambda p: p["split_name"] in touched, meta)
    return todo


def _rows(root: str, spec: Mapping[str, Any], images: pl.DataFrame) -> Any:  # noqa: ANN401 - pyarrow has no types
    part = SplitPart.model_validate(spec)
    clusters = {
        rule: scan_table(root, "clusters", None).filter(pl.col("rule") == rule).collect() for rule in part.sanitize
    }
    rows = sanitize(part, draw_roles(part, images), clusters)
    return rows.to_arrow().cast(schemas.TABLES["splits"].file_schema)
