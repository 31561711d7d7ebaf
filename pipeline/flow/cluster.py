"""index -> clusters: index images under rules that are new, cluster under rules whose input changed."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import polars as pl

import schemas
from pipeline.dedup.changes import cluster_changes, say_changes
from pipeline.dedup.clusters import cluster_by_keys
from pipeline.dedup.index import KEYS_VERSION
from pipeline.dedup.linked import link
from pipeline.dedup.rules import parse_rule
from pipeline.engines import Engine
from pipeline.flow.state import Todo, shards_digest, stale, unit_digest
from pipeline.flow.work import ShardFile, index_shard
from pipeline.lake.commits import Meta, commit, files, read_meta, versions
from pipeline.lake.parts import Part, write_part
from pipeline.lake.reading import scan_table
from pipeline.progress import SILENT, Progress
from pipeline.recipe import Recipe

Method = Literal["components", "stars"]
_ROWS = schemas.TABLES["clusters"].schema


def wanted_rules(root: str, recipe: Recipe, *, prune: bool) -> tuple[str, ...]:
    """List the rules to keep up to date: the recipe's, and unless pruned those that the lake has already."""
    held = () if prune else read_meta(root, "clusters").units
    return tuple(dict.fromkeys([*recipe.dedup.rules, *held]))


def cluster_units(root: str, rules: Iterable[str], method: Method) -> dict[str, dict[str, Any]]:
    """By rule, the fingerprint of the clusters that the lake's shards give, and how pairs become clusters."""
    state = shards_digest(scan_table(root, "shards", None).collect())
    specs = {rule: [rule, KEYS_VERSION, method if parse_rule(rule).comparison else "keys"] for rule in rules}
    return {rule: {"spec": spec, "fingerprint": unit_digest("dedup", spec, state)} for rule, spec in specs.items()}


def plan_clusters(root: str, rules: Iterable[str], method: Method, *, images_change: bool) -> list[Todo]:
    """Tell which rules the next build would cluster by, and why."""
    rules = list(rules)
    changed = dict.fromkeys(rules, "images change") if images_change else None
    return stale("dedup", cluster_units(root, rules, method), read_meta(root, "clusters"), changed=changed)


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


def run_clusters(root: str, rules: Iterable[str], method: Method, progress: Progress = SILENT) -> list[Todo]:
    """Cluster under every rule whose index changed, in one commit.

    Args:
        root: the lake's folder.
        rules: the rules that are wanted.
        method: how pairs become clusters.
        progress: where to show it.

    Returns:
        What was done, why, and what became of the clusters that were there; empty where nothing was out of date, and
        then nothing was committed.
    """
    units = cluster_units(root, rules, method)
    held = read_meta(root, "clusters")
    todo = stale("dedup", units, held)
    if not todo:
        return []
    parts: list[Part] = []
    changes: dict[str, dict[str, int]] = {}
    for rule in (item.unit for item in todo if item.unit in units):
        progress.step(f"cluster by {rule}")
        rows = _clusters(root, rule, method)
        if rule in held.units:
            changes[rule] = cluster_changes(_of_rule(root, "clusters", rule).collect(), rows)
        part = write_part(root, "clusters", {"rule": rule}, rows.to_arrow().cast(_ROWS))
        parts += [] if part is None else [part]
    touched = {item.unit for item in todo}
    made = {rule: {**unit, **_counted(rule, changes, held)} for rule, unit in units.items()}
    meta = Meta("dedup", made, {"index": versions(root)["index"]})
    commit(root, "clusters", parts, lambda p: _rule(p) in touched, meta)
    return [_told(item, changes) for item in todo]


def _counted(rule: str, changes: Mapping[str, dict[str, int]], held: Meta) -> dict[str, Any]:
    """Keep, with a rule's clusters, what became of those before."""
    counts = changes.get(rule) or held.units.get(rule, {}).get("changes")
    return {"changes": counts} if counts else {}


def _told(item: Todo, changes: Mapping[str, dict[str, int]]) -> Todo:
    if item.unit not in changes:
        return item
    return item._replace(reason=f"{item.reason}; clusters: {say_changes(changes[item.unit])}")


def _clusters(root: str, rule: str, method: Method) -> pl.DataFrame:
    """Make the rows of the clusters table of one rule, ordered."""
    index = _of_rule(root, "index", rule)
    if parse_rule(rule).comparison is None:
        return cluster_by_keys(index).collect()
    linked = link(_of_rule(root, "pairs", rule).select("left_id", "right_id").collect(), method)
    known = index.select("image_id", "label", "dataset", "split", "rule")
    return (
        known.join(linked.lazy(), on="image_id")
        .collect()
        .sort("cluster_id", "image_id")
        .select(schemas.TABLES["clusters"].schema.names)
    )


def _of_rule(root: str, table: str, rule: str) -> pl.LazyFrame:
    return scan_table(root, table, None, lambda partition: _rule(partition) == rule)


def _rule(partition: Mapping[str, str]) -> str:
    return partition["rule"]
