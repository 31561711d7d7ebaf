"""The steps of `pipeline.builder.build.build` in one process, each timed.

Run by `flow.py` in its own process: `main` takes a recipe and prints seconds by step and the results, as JSON.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import sklearn.linear_model  # noqa: F401 - the notebook imports before its clock starts, so this does too
from stopwatch import Stopwatch

import pipeline.report  # noqa: F401 - as above
from pipeline import sources
from pipeline.builder.baselines import run_units, score_baselines
from pipeline.builder.build import local_engine, recipe_record
from pipeline.builder.clusters import cluster_images
from pipeline.builder.index import index_images
from pipeline.builder.ingest import commit_sources, decode_sources, plan_ingest
from pipeline.builder.publish import write_report
from pipeline.builder.splits import make_splits, split_units
from pipeline.builder.worker import Job
from pipeline.dedup.clusters import overlap_matrix
from pipeline.lake.releases import publish
from pipeline.lake.transaction import Commit, Transaction, transaction
from pipeline.lake.writers.heartbeats import registered
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.recipe import Recipe, read_recipe
from pipeline.verdicts.standing import EMPTY


def run(recipe: Recipe) -> dict[str, Any]:
    """Build a new lake in the order of `build`; return seconds by step and the results."""
    with registered(recipe.root) as writer, transaction(writer) as lake:
        return _run(recipe, lake)


def _run(recipe: Recipe, lake: Transaction) -> dict[str, Any]:
    watch, engine, writer = Stopwatch(), local_engine(), lake.writer

    def commit(changes: Iterable[Commit]) -> None:
        for change in changes:
            lake.commit(change)

    with watch("read"):
        plan = plan_ingest(lake.snapshot, recipe, sources.resolve(recipe), prune=False)
        with Progress("decode") as progress:
            commit_sources(lake, decode_sources(Job(writer, recipe.decode, recipe.dedup.rules), plan, engine, progress))
        commit(index_images(lake.snapshot, writer, recipe.dedup.rules, engine))
    # A build clusters by all rules in one commit; here each rule has its own, to be timed alone.
    for position, rule in enumerate(recipe.dedup.rules, start=1):
        with watch(f"overlap, {rule}"):
            commit(cluster_images(lake.snapshot, writer, recipe.dedup.rules[:position])[1])
    with watch("splits"):
        splits = split_units(lake.snapshot, recipe, EMPTY, prune=False, issues={})
        commit(make_splits(lake.snapshot, writer, recipe, splits)[1])
    with watch("arrays"):
        for role in ("train", "valid", "test"):
            Lake.working(lake.snapshot).arrays("main", role, normalised=True)
    with watch("baselines"):
        commit(score_baselines(lake.snapshot, writer, run_units(lake.snapshot, recipe, prune=False))[1])
    with watch("release"):
        publish(lake, recipe.digest, "bench", recipe_record(recipe))
    with watch("report"):
        published = Lake(recipe.root)
        write_report(published)
    return {"steps": watch.seconds, "found": _found(published), "accuracy": _accuracy(published)}


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
