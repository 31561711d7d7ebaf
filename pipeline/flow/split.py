"""images, clusters -> splits: draw and sanitize every split whose settings or input changed."""

from collections.abc import Collection, Mapping
from typing import Any

import polars as pl
import xxhash

import schemas
from pipeline.errors import SplitError
from pipeline.flow.state import Todo, shards_digest, stale, unit_digest
from pipeline.lake.commits import Meta, commit, read_meta, versions
from pipeline.lake.parts import write_part
from pipeline.lake.reading import scan_table
from pipeline.progress import SILENT, Progress
from pipeline.recipe import Recipe, SplitPart
from pipeline.splits.draw import draw_roles, from_source
from pipeline.splits.sanitize import sanitize


def split_units(root: str, recipe: Recipe, *, prune: bool) -> dict[str, dict[str, Any]]:
    """By split, its fingerprint and how it is drawn: the recipe's splits, and unless pruned those the lake has."""
    held = {} if prune else {name: unit["spec"] for name, unit in read_meta(root, "splits").units.items()}
    specs = {**held, **{part.name: part.model_dump(mode="json", by_alias=True) for part in recipe.split}}
    shards = scan_table(root, "shards", None).collect()
    clusters = read_meta(root, "clusters").units
    return {
        name: {
            "spec": spec,
            "fingerprint": unit_digest(
                "splits", spec, [_pools(spec, shards), [clusters.get(rule) for rule in spec["sanitize"]]]
            ),
        }
        for name, spec in specs.items()
    }


def _pools(spec: Mapping[str, Any], shards: pl.DataFrame) -> str:
    """Digest the shards that a split may draw from: others do not concern it."""
    pools = [from_source(part.source_split) for part in SplitPart.model_validate(spec).roles.values()]
    return shards_digest(shards.filter(pl.any_horizontal(pools)))


def plan_splits(root: str, units: Mapping[str, Mapping[str, Any]], *, images_change: bool) -> list[Todo]:
    """Tell which splits the next build would draw, and why."""
    changed = dict.fromkeys(units, "images change") if images_change else None
    return stale("splits", units, read_meta(root, "splits"), changed=changed)


def run_splits(
    root: str, recipe: Recipe, units: Mapping[str, Mapping[str, Any]], progress: Progress = SILENT
) -> list[Todo]:
    """Draw and sanitize every split that is out of date, in one commit.

    Args:
        root: the lake's folder.
        recipe: the recipe, to tell its own splits from those of earlier ones.
        units: made by `split_units`.
        progress: where to show it.

    Returns:
        What was done, and why; empty where nothing was out of date, and then nothing was committed.

    Raises:
        SplitError: a split asks for more than there is.
    """
    todo = stale("splits", units, read_meta(root, "splits"))
    if not todo:
        return []
    asked = {part.name for part in recipe.split}
    images = scan_table(root, "images", None).select("image_id", "label", "dataset", "split", "content_hash").collect()
    touched = {item.unit for item in todo}
    drawn: dict[str, pl.DataFrame] = {}
    for name in (name for name in units if name in touched):
        progress.step(f"draw split {name}")
        drawn[name] = _draw(root, name, units[name]["spec"], images, asked)
    parts = [
        write_part(root, "splits", {"split_name": name}, rows.to_arrow().cast(schemas.TABLES["splits"].file_schema))
        for name, rows in drawn.items()
    ]
    known = read_meta(root, "splits").units
    made = {
        name: {**unit, "rows": _digest(drawn[name], images) if name in drawn else known[name]["rows"]}
        for name, unit in units.items()
    }
    held = versions(root)
    meta = Meta("splits", made, {name: held[name] for name in ("images", "clusters") if name in held})
    commit(root, "splits", [part for part in parts if part], lambda p: p["split_name"] in touched, meta)
    return todo


def _draw(root: str, name: str, spec: Mapping[str, Any], images: pl.DataFrame, asked: Collection[str]) -> pl.DataFrame:
    try:
        return _rows(root, spec, images)
    except SplitError as error:
        if images.is_empty():
            raise SplitError(f"{error} {_all_rejected(root)}") from error
        if name in asked:
            raise
        raise SplitError(f"{error} This split is of an earlier recipe: build with --prune to drop it.") from error


def _all_rejected(root: str) -> str:
    rejects = scan_table(root, "rejects", None).select("reason", "path", "detail").collect()
    if rejects.is_empty():
        return "The lake holds no images."
    reason, path, detail = rejects.row(0)
    return f"All {len(rejects)} files were rejected, the first ('{path}') as {reason}: {detail}."


def _rows(root: str, spec: Mapping[str, Any], images: pl.DataFrame) -> pl.DataFrame:
    part = SplitPart.model_validate(spec)
    clusters = {
        rule: scan_table(root, "clusters", None).filter(pl.col("rule") == rule).collect() for rule in part.sanitize
    }
    return sanitize(part, draw_roles(part, images.drop("content_hash")), clusters)


def _digest(rows: pl.DataFrame, images: pl.DataFrame) -> str:
    """Digest what a trainer sees of a split: who is where, kept or not, under which class, and what it shows."""
    shown = rows.join(images.select("image_id", "content_hash"), on="image_id", how="left", maintain_order="left")
    digest = xxhash.xxh3_128()
    for name in ("image_id", "content_hash"):
        digest.update(b"".join(shown[name].to_list()))
    for name in ("rank", "label_index", "kept"):
        digest.update(shown[name].cast(pl.Int64).fill_null(-1).to_numpy().tobytes())
    digest.update(repr(rows.group_by("role", maintain_order=True).len().rows()).encode())
    return digest.hexdigest()
