"""The same in imagelake: the steps of `pipeline.builder.build.build` in one process, each timed.

Run by `flow.py` in a process of its own: `main` takes a recipe and prints seconds by step and what was found, as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import sklearn.linear_model  # noqa: F401 - the notebook imports before its clock starts, so this does too
from stopwatch import Stopwatch

import pipeline.report  # noqa: F401 - as above
from pipeline import sources
from pipeline.builder.baselines import run_baselines, run_units
from pipeline.builder.build import local_engine, remembered
from pipeline.builder.clusters import run_clusters
from pipeline.builder.index import run_index
from pipeline.builder.ingest import commit_sources, plan_ingest, read_sources
from pipeline.builder.publish import write_report
from pipeline.builder.splits import run_splits, split_units
from pipeline.builder.worker import Job
from pipeline.dedup.overlap import overlap_matrix
from pipeline.lake.releases import publish
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.recipe import Recipe, read_recipe


def run(recipe: Recipe) -> dict[str, Any]:
    """Build a new lake in the order of `build`; return seconds by step and what was found."""
    watch, engine, root = Stopwatch(), local_engine(), recipe.root
    with watch("read"):
        plan = plan_ingest(root, recipe, sources.resolve(recipe), prune=False)
        with Progress("decode") as progress:
            commit_sources(read_sources(root, Job(root, recipe.decode, recipe.dedup.rules), plan, engine, progress))
        run_index(root, recipe.dedup.rules, engine)
    # A build clusters by all rules in one commit; here each has its own, to stand beside its counterpart.
    for position, rule in enumerate(recipe.dedup.rules, start=1):
        with watch(f"overlap, {rule}"):
            run_clusters(root, recipe.dedup.rules[:position])
    with watch("splits"):
        splits = split_units(root, recipe, prune=False)
        run_splits(root, recipe, splits)
    with watch("arrays"):
        for role in ("train", "valid", "test"):
            Lake.working(root).arrays("main", role, normalised=True)
    with watch("baselines"):
        run_baselines(root, run_units(root, recipe, prune=False))
    with watch("release"):
        publish(root, recipe.digest, "bench", remembered(recipe))
    with watch("report"):
        write_report(root)
    lake = Lake(root)
    return {"steps": watch.seconds, "found": _found(lake), "accuracy": _accuracy(lake)}


def _found(lake: Lake) -> dict[str, Any]:
    images = lake.scan("images")
    counts = dict(images.group_by("split").len().collect().rows())
    overlap = overlap_matrix(lake.scan("clusters"), images.select("image_id", role="split"))
    seen = dict(overlap.filter(role="test", other="train").select("rule", "images").rows())
    rejects = lake.scan("rejects").select("path").collect().to_series().to_list()
    return {
        "images": [counts["train"], counts["test"]],
        "rejects": sorted("/".join(path.split("/")[-2:]) for path in rejects),
        "test images seen in train (exact)": seen.get("exact", 0),
        "test images seen in train (sign)": seen.get("sign", 0),
        "test images kept": len(lake.members("main", "test")),
    }


def _accuracy(lake: Lake) -> dict[str, list[float]]:
    measured = lake.scan("scores").filter(pl.col("rule").is_null(), metric="accuracy_mean", role="test")
    scores = measured.collect().pivot("eval_on", index="train_size", values="value").sort("train_size")
    return {str(size): parts for size, *parts in scores.select("train_size", "original", "sanitized", "overlap").rows()}


def main() -> None:
    """Run from the command line."""
    json.dump(run(read_recipe(Path(sys.argv[1]))), sys.stdout)
