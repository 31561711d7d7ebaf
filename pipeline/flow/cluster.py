"""index -> clusters: index images under rules that are new, cluster under rules whose input changed."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import polars as pl

import schemas
from pipeline.dedup.clusters import cluster_by_keys
from pipeline.dedup.index import KEYS_VERSION
from pipeline.engines import Engine
from pipeline.flow.state import Todo, shards_digest, stale, unit_digest
from pipeline.flow.work import ShardFile, index_shard
from pipeline.lake.commits import Meta, commit, files, read_meta, versions
from pipeline.lake.parts import Part, write_part
from pipeline.lake.reading import scan_table
from pipeline.progress import SILENT, Progress
from pipeline.recipe import Recipe


def wanted_rules(root: str, recipe: Recipe, *, prune: bool) -> tuple[str, ...]:
    """List the rules to keep up to date: the recipe's, and unless pruned those that the lake has already."""
    held = () if prune else read_meta(root, "clusters").units
    return tuple(dict.fromkeys([*recipe.dedup.rules, *held]))


def cluster_units(root: str, rules: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By rule, the fingerprint of the clusters that the lake's shards give."""
    state = shards_digest(scan_table(root, "shards", None).collect())
    return {rule: {"fingerprint": unit_digest("dedup", [rule, KEYS_VERSION], state)} for rule in rules}


def plan_clusters(root: str, rules: Iterable[str], *, images_change: bool) -> list[Todo]:
    """Tell which rules the next build would cluster by, and why."""
    rules = list(rules)
    changed = dict.fromkeys(rules, "images change") if images_change else None
    return stale("dedup", cluster_units(root, rules), read_meta(root, "clusters"), changed=changed)


def run_index(root: str, rules: tuple[str, ...], engine: Engine, progress: Progress = SILENT) -> bool:
    """Index every image under every rule, and drop the index of rules no longer wanted.

    Reads the pixels of images that lack a rule, and nothing where none does.

    Args:
        root: the lake's folder.
        rules: the rules that are wanted.
        engine: where to run.
        progress: where to show it.

    Returns:
        Whether anything was committed.
    """
    meta = read_meta(root, "index")
    current = meta.units.get("keys", {"fingerprint": KEYS_VERSION})["fingerprint"] == KEYS_VERSION
    held = {
        (p["rule"], p["dataset"], p["split"], p["shard"])
        for p in (part.partition for part in files(root, "index") if current)
    }
    lacking = [
        (part, without)
        for part in files(root, "images")
        if (without := tuple(rule for rule in rules if (rule, *part.partition.values()) not in held))
    ]
    dropped = {rule for rule, *_ in held} - set(rules)
    if current and not lacking and not dropped:
        return False
    made: list[Part] = []
    missing = [ShardFile(f"{root}/images/{part.path}", part.partition, without) for part, without in lacking]
    progress.stage("index", sum(part.rows for part, _ in lacking))
    for parts in engine.map(partial(index_shard, root), missing):
        made += parts
        progress.advance(parts[0].rows)
    units = {**meta.units, "keys": {"fingerprint": KEYS_VERSION}}
    done = Meta("index", units, {"images": versions(root)["images"]})
    commit(root, "index", made, lambda partition: not current or partition["rule"] in dropped, done)
    return True


def run_clusters(root: str, rules: Iterable[str], progress: Progress = SILENT) -> list[Todo]:
    """Cluster under every rule whose index changed, in one commit.

    Args:
        root: the lake's folder.
        rules: the rules that are wanted.
        progress: where to show it.

    Returns:
        What was done, and why; empty where nothing was out of date, and then nothing was committed.
    """
    units = cluster_units(root, rules)
    todo = stale("dedup", units, read_meta(root, "clusters"))
    if not todo:
        return []
    parts: list[Part] = []
    for rule in (item.unit for item in todo if item.unit in units):
        progress.step(f"cluster by {rule}")
        parts += _write(root, rule)
    touched = {item.unit for item in todo}
    meta = Meta("dedup", units, {"index": versions(root)["index"]})
    commit(root, "clusters", parts, lambda p: _rule(p) in touched, meta)
    return todo


def _write(root: str, rule: str) -> list[Part]:
    index = scan_table(root, "index", None).filter(pl.col("rule") == rule)
    rows = cluster_by_keys(index).collect().to_arrow()
    part = write_part(root, "clusters", {"rule": rule}, rows.cast(schemas.TABLES["clusters"].schema))
    return [] if part is None else [part]


def _rule(partition: Mapping[str, str]) -> str:
    return partition["rule"]
