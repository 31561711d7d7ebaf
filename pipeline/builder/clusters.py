"""index, pairs -> clusters: cluster images under the rules whose input changed, and count how clusters changed.

The lake stores pairs and clusters of the rules in `dedup.rules` of the recipe. `dedup/stored_rules.py` reads the
clusters of stricter thresholds.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import polars as pl

import schemas
from pipeline.builder.state import DAMAGED, Todo, find_outdated, input_versions, shards_state, unit_digest
from pipeline.dedup.clusters import cluster_by_keys, cluster_changes, say_changes
from pipeline.dedup.rules import keys_version
from pipeline.dedup.stored_rules import decide_clusters, link_images
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit
from pipeline.progress import SILENT, Progress, plural
from pipeline.recipe import Recipe
from pipeline.verdicts.standing import EMPTY, Resolved

_NO_SETTINGS: Mapping[str, Sequence[str]] = MappingProxyType({})
# Buckets of the index, and rows of the index that are enough for a task of their own.
_BUCKETS = 256
_ROWS_PER_TASK = 2**16


def active_rules(snapshot: Snapshot, recipe: Recipe, *, prune: bool) -> tuple[str, ...]:
    """List the rules that a build keeps up to date: those of the recipe and, unless pruned, all others of the lake."""
    stored = () if prune else snapshot.metadata("clusters").units
    return tuple(dict.fromkeys([*recipe.dedup.rules, *stored]))


def cluster_settings(recipe: Recipe, rules: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return, by rule, how its pairs become clusters.

    Args:
        recipe: what to build.
        rules: rules that compare pairs; see `pipeline.builder.index.pairwise_rules`.

    Returns:
        By rule, `clusters` and `between` of the recipe's `[dedup]`, then the fingerprint of the user's vectors, if any.
    """
    settings = recipe.dedup.clusters, recipe.dedup.between
    return {rule: (*settings, *filter(None, [vectors])) for rule, vectors in rules.items()}


def cluster_units(
    snapshot: Snapshot, rules: Iterable[str], settings: Mapping[str, Sequence[str]], verdicts: Resolved = EMPTY
) -> dict[str, dict[str, Any]]:
    """Return, by rule, the settings and the fingerprint of its clusters."""
    state: Any = shards_state(snapshot)
    if verdicts.links_digest:
        # Without verdicts it is what it was in lakes that never had any.
        state = [state, verdicts.links_digest]
    specs = {rule: [rule, keys_version(rule), *settings.get(rule, ["keys"])] for rule in rules}
    return {rule: {"spec": spec, "fingerprint": unit_digest("dedup", spec, state)} for rule, spec in specs.items()}


def plan_clusters(
    snapshot: Snapshot,
    rules: Sequence[str],
    settings: Mapping[str, Sequence[str]],
    verdicts: Resolved,
    *,
    images_change: bool,
) -> list[Todo]:
    """List the rules that the next build would cluster by, and why.

    Args:
        snapshot: the lake.
        rules: made by `active_rules`.
        settings: made by `cluster_settings`.
        verdicts: what people decided, also what is still in the journal.
        images_change: whether the next build would read or drop images.
    """
    units = cluster_units(snapshot, rules, settings, verdicts)
    changed = dict.fromkeys(rules, "the images change") if images_change else None
    return find_outdated("dedup", units, snapshot.metadata("clusters"), changed=changed)


def cluster_images(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rules: Iterable[str],
    settings: Mapping[str, Sequence[str]] = _NO_SETTINGS,
    progress: Progress = SILENT,
    engine: Engine = HERE,
    verdicts: Resolved = EMPTY,
) -> tuple[list[Todo], list[Commit]]:
    """Cluster the images under every rule that is out of date.

    Returns:
        What was done, why, and how the clusters changed; then the commit to make. Both are empty if nothing is out of
        date.
    """
    units = cluster_units(snapshot, rules, settings, verdicts)
    metadata = snapshot.metadata("clusters")
    todo = find_outdated("dedup", units, metadata)
    if not todo:
        return [], []
    written: list[Part] = []
    changes: dict[str, dict[str, int]] = {}
    effects: dict[str, dict[str, int]] = {}
    for rule in (item.unit for item in todo if item.unit in units):
        progress.step(f"cluster by {rule}")
        spec = units[rule]["spec"]
        by_keys = spec[2] == "keys"
        rows = _cluster_by_keys(snapshot, rule, engine) if by_keys else _link_pairs(snapshot, rule, spec, metadata)
        if verdicts.links_digest:
            rows, effects[rule] = _decide(snapshot, rule, rows, verdicts)
        if rule in metadata.units and DAMAGED not in metadata.units[rule]:
            changes[rule] = cluster_changes(_scan_rule(snapshot, "clusters", rule).collect(), rows)
        written += writer.write("clusters", rows.to_arrow().cast(schemas.TABLES["clusters"].schema), {"rule": rule})
    replaced = {item.unit for item in todo}
    for rule, unit in units.items():
        # Clusters that were not made again keep the counts of their last change.
        counts = changes.get(rule) or metadata.units.get(rule, {}).get("changes")
        if counts:
            unit["changes"] = counts
        stored = {} if rule in replaced else metadata.units.get(rule, {})
        if verdicts.links_digest:
            unit["verdicts"] = effects.get(rule) or stored.get("verdicts", {})
    updated = Metadata("dedup", units, input_versions(snapshot, "index", "pairs"))
    commit = Commit("clusters", written, updated, lambda partition: partition["rule"] in replaced)
    return [_with_changes(item, changes, effects) for item in todo], [commit]


def cluster_buckets(snapshot: Snapshot, rule: str, buckets: range) -> pl.DataFrame:
    """Cluster the images whose keys are in some buckets. Runs in a worker.

    Args:
        snapshot: the lake.
        rule: a rule that groups images by equal keys.
        buckets: numbers of the buckets.

    Returns:
        Rows of the clusters table, sorted.
    """
    index = _scan_rule(snapshot, "index", rule)
    return cluster_by_keys(index.filter(pl.col("bucket").is_between(buckets[0], buckets[-1]))).collect()


def _cluster_by_keys(snapshot: Snapshot, rule: str, engine: Engine) -> pl.DataFrame:
    """Return sorted rows of the clusters table for a rule with keys. With several workers, each takes some buckets."""
    rows = sum(part.rows for part in snapshot.files("index", lambda partition: partition["rule"] == rule))
    tasks = max(1, min(engine.pieces, rows // _ROWS_PER_TASK, _BUCKETS))
    if tasks == 1:
        return cluster_by_keys(_scan_rule(snapshot, "index", rule)).collect()
    cuts = [_BUCKETS * number // tasks for number in range(tasks + 1)]
    work = partial(cluster_buckets, snapshot, rule)
    with closing(engine.map(work, map(range, cuts, cuts[1:]))) as found:
        return pl.concat(found).sort("rule", "cluster_id", "image_id")


def _link_pairs(snapshot: Snapshot, rule: str, spec: Sequence[str], metadata: Metadata) -> pl.DataFrame:
    """Return sorted rows of the clusters table for a rule with pairs."""
    pairs = _pairs_to_link(snapshot, rule, spec, metadata)
    method: Literal["components", "stars"] = "stars" if spec[2] == "stars" else "components"
    members = link_images(rule, lambda table: _scan_rule(snapshot, table, rule), method, pairs)
    if members.is_empty():
        return pl.Schema(schemas.TABLES["clusters"].schema).to_frame()
    images = _scan_rule(snapshot, "index", rule).select("image_id", "label", "dataset", "split", "rule")
    return (
        images.join(members.lazy(), on="image_id")
        .collect()
        .sort("cluster_id", "image_id")
        .select(schemas.TABLES["clusters"].schema.names)
    )


def _pairs_to_link(snapshot: Snapshot, rule: str, spec: Sequence[str], metadata: Metadata) -> pl.LazyFrame:
    """Return the pairs to link: all, or if pairs were only added, the new ones and one edge per old cluster member.

    A component is connected by edges from its first image to each other one as it is by all its pairs.
    """
    pairs = _scan_rule(snapshot, "pairs", rule)
    unit = metadata.units.get(rule, {})
    same_settings = unit.get("spec") == list(spec) and not unit.get("verdicts")
    if spec[2] != "components" or not same_settings or "pairs" not in metadata.inputs:
        return pairs
    then, now = (
        {part.path for part in state.files("pairs", lambda partition: partition["rule"] == rule)}
        for state in (snapshot.with_version("pairs", metadata.inputs["pairs"]), snapshot)
    )
    if not then <= now:
        return pairs
    members = _scan_rule(snapshot, "clusters", rule).select(left_id="cluster_id", right_id="image_id")
    old = members.filter(pl.col("left_id") != pl.col("right_id"))
    added = sorted(now - then)
    return pl.concat([old, snapshot.scan_files("pairs", added).select("left_id", "right_id")]) if added else old


def _decide(
    snapshot: Snapshot, rule: str, rows: pl.DataFrame, verdicts: Resolved
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Change rows of the clusters table by what people decided, and count what that changed."""
    clusters, outcome = decide_clusters(rule, rows, verdicts.decided, lambda table: _scan_rule(snapshot, table, rule))
    if not clusters.equals(rows.select("cluster_id", "image_id")):
        # A picture may have been linked that has no row in the index of the rule.
        images = snapshot.scan("images").select("image_id", "label", "dataset", "split", rule=pl.lit(rule))
        found = images.join(clusters.lazy(), on="image_id").collect()
        rows = found.sort("cluster_id", "image_id").select(schemas.TABLES["clusters"].schema.names)
    return rows, outcome._asdict()


def _with_changes(item: Todo, changes: Mapping[str, dict[str, int]], effects: Mapping[str, dict[str, int]]) -> Todo:
    phrases = [item.reason]
    if item.unit in changes:
        phrases.append(f"clusters: {say_changes(changes[item.unit])}")
    counts = effects.get(item.unit, {})
    said = {"linked": "linked", "apart": "kept apart", "overruled": "that are the same kept apart by other verdicts"}
    listed = [f"{plural(counts[name], 'pair')} {text}" for name, text in said.items() if counts.get(name)]
    if listed:
        phrases.append(f"verdicts: {', '.join(listed)}")
    return item._replace(reason="; ".join(phrases))


def _scan_rule(snapshot: Snapshot, table: str, rule: str) -> pl.LazyFrame:
    return snapshot.scan(table, lambda partition: partition["rule"] == rule)
