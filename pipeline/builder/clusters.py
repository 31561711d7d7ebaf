"""index, pairs -> clusters: cluster under rules whose input changed, and tell what became of the clusters before.

index, pairs -> links: what a rule that compares says belongs together, for clusters, splits and verify alike.

A rule is stored where the recipe's `dedup.rules` names it. What a stricter threshold finds is among the stored pairs:
a split may sanitize by photo:0.7 where photo:0.6 is stored, and its clusters are linked from those pairs when they are
read (decision 0022).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import polars as pl

import schemas
from pipeline.builder.state import DAMAGED, Todo, shards_state, stale, unit_digest
from pipeline.dedup.clusters import cluster_by_keys, cluster_changes, say_changes
from pipeline.dedup.index import KEYS_VERSION
from pipeline.dedup.rules import parse_rule
from pipeline.engines import Engine
from pipeline.engines.local import HERE
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit
from pipeline.progress import SILENT, Progress
from pipeline.recipe import Recipe
from pipeline.recipe.rules import rule_with_pairs_of, threshold_of

# Scans a table of the lake for one rule.
ScanRule = Callable[[str], pl.LazyFrame]
# Scans a table of the lake for a rule: the table's name, then the rule's.
ScanTable = Callable[[str, str], pl.LazyFrame]


class Stored(NamedTuple):
    """Where the lake has what a rule finds.

    Attributes:
        rule: the rule itself, or the one whose stored pairs include its pairs.
        least: the score from which on the stored pairs are the rule's; None where they are all.
        method: how the stored rule makes clusters of its pairs; "keys" where it has no pairs.
    """

    rule: str
    least: float | None
    method: Literal["components", "stars", "keys"]


def find_stored(rule: str, units: Mapping[str, Mapping[str, Any]]) -> Stored:
    """Find where the lake has what a rule finds: in its own rows, also where these are none, or in a looser rule's.

    Args:
        rule: a rule, stored or not.
        units: of the clusters table's commit.
    """
    name = rule_with_pairs_of(rule, units)
    if name is None:
        return Stored(rule, None, "keys")
    wanted = threshold_of(rule)
    least = None if name == rule or wanted is None else wanted.least
    ways: dict[str, Literal["components", "stars", "keys"]] = {"stars": "stars", "keys": "keys"}
    spec = units[name].get("spec") or ("", "", "components")
    return Stored(name, least, ways.get(spec[2], "components"))


def pairs_from(least: float | None, pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the pairs with a score of `least` or more, to the precision in which scores are stored; all for None.

    A score was rounded to float32, and rounding keeps the order: no pair of the stricter rule is lost.
    """
    return pairs if least is None else pairs.filter(pl.col("score") >= pl.lit(least, pl.Float32))


def clusters_of(stored: Stored, scan: ScanTable, method: Literal["components"] | None = None) -> pl.LazyFrame:
    """Read the clusters of a rule, or link them from the pairs of a looser one.

    Args:
        stored: made by `find_stored`.
        scan: scans clusters, pairs or index, rows of one rule only.
        method: how pairs make clusters; None for the way of the stored rule.

    Returns:
        Columns cluster_id and image_id at least.
    """
    if stored.method == "keys" or (stored.least is None and method in (None, stored.method)):
        return scan("clusters", stored.rule)
    from pipeline.dedup.components import link  # noqa: PLC0415 - scipy, only where clusters are not stored

    pairs = pairs_from(stored.least, scan("pairs", stored.rule))
    links = links_of(stored.rule, lambda table: scan(table, stored.rule), pairs)
    return link(links, method or stored.method).lazy()


def links_of(rule: str, scan: ScanRule, pairs: pl.LazyFrame | None = None) -> pl.DataFrame:
    """List what links images: pairs, and where the rule says so, images with equal signatures.

    Args:
        rule: a rule that compares.
        scan: scans index or pairs, rows of this rule only.
        pairs: links to read instead of all pairs; None for these.

    Returns:
        Columns left_id and right_id, the smaller id first. Of images with equal signatures the first is linked with
        each other one.
    """
    links = (scan("pairs") if pairs is None else pairs).select("left_id", "right_id")
    comparison = parse_rule(rule).comparison
    if comparison is None or not comparison.equal_signatures:
        return links.collect()
    alike = (
        scan("index")
        .filter(pl.col("signature") != 0)
        .select("image_id", left_id=pl.col("image_id").min().over("key", "signature"))
        .filter(pl.col("image_id") != pl.col("left_id"))
        .select("left_id", right_id="image_id")
    )
    return pl.concat([links, alike]).collect()


_METHODS: dict[str, Literal["components", "stars"]] = {"components": "components", "stars": "stars"}
_NO_WAYS: Mapping[str, Sequence[str]] = MappingProxyType({})
_ROWS = schemas.TABLES["clusters"].schema
# Buckets of the index, and rows of it that are worth a task of their own.
_BUCKETS, _ROWS_A_PIECE = 256, 2**16


def wanted_rules(snapshot: Snapshot, recipe: Recipe, *, prune: bool) -> tuple[str, ...]:
    """List the rules to keep up to date: the recipe's, and unless pruned those that the lake has already."""
    held = () if prune else snapshot.metadata("clusters").units
    return tuple(dict.fromkeys([*recipe.dedup.rules, *held]))


def ways_to_cluster(recipe: Recipe, compared: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """By rule that compares, how its pairs become clusters, of what, and the fingerprint of the user's vectors."""
    named = recipe.dedup.clusters, recipe.dedup.between
    return {rule: (*named, *filter(None, [vectors])) for rule, vectors in compared.items()}


def cluster_units(
    snapshot: Snapshot, rules: Iterable[str], ways: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """By rule, the fingerprint of the clusters that the lake's shards give, and how pairs become clusters."""
    state = shards_state(snapshot)
    specs = {rule: [rule, KEYS_VERSION, *ways.get(rule, ["keys"])] for rule in rules}
    return {rule: {"spec": spec, "fingerprint": unit_digest("dedup", spec, state)} for rule, spec in specs.items()}


def plan_clusters(
    snapshot: Snapshot, rules: Iterable[str], ways: Mapping[str, Sequence[str]], *, images_change: bool
) -> list[Todo]:
    """Tell which rules the next build would cluster by, and why."""
    rules = list(rules)
    changed = dict.fromkeys(rules, "images change") if images_change else None
    return stale("dedup", cluster_units(snapshot, rules, ways), snapshot.metadata("clusters"), changed=changed)


def cluster_images(  # noqa: PLR0913, PLR0917 - arguments of one step
    snapshot: Snapshot,
    writer: Writer,
    rules: Iterable[str],
    ways: Mapping[str, Sequence[str]] = _NO_WAYS,
    progress: Progress = SILENT,
    engine: Engine = HERE,
) -> tuple[list[Todo], list[Commit]]:
    """Cluster under every rule whose index changed.

    Args:
        snapshot: of the lake.
        writer: writes the files.
        rules: the rules that are wanted.
        ways: by rule that compares, how its pairs become clusters, and the fingerprint of the user's vectors, if any.
        progress: where to show it.
        engine: where to run.

    Returns:
        What was done, why, and what became of the clusters that were there; and the commit to make. Both are empty
        where nothing is out of date.
    """
    units = cluster_units(snapshot, rules, ways)
    held = snapshot.metadata("clusters")
    todo = stale("dedup", units, held)
    if not todo:
        return [], []
    parts: list[Part] = []
    changes: dict[str, dict[str, int]] = {}
    for rule in (item.unit for item in todo if item.unit in units):
        progress.step(f"cluster by {rule}")
        spec = units[rule]["spec"]
        rows = _by_keys(snapshot, rule, engine) if spec[2] == "keys" else _by_pairs(snapshot, rule, spec, held)
        if rule in held.units and DAMAGED not in held.units[rule]:
            changes[rule] = cluster_changes(_of_rule(snapshot, "clusters", rule).collect(), rows)
        parts += writer.write("clusters", rows.to_arrow().cast(_ROWS), {"rule": rule})
    touched = {item.unit for item in todo}
    made = {rule: {**unit, **_counted(rule, changes, held)} for rule, unit in units.items()}
    now = snapshot.versions
    metadata = Metadata("dedup", made, {name: now[name] for name in ("index", "pairs") if name in now})
    commit = Commit("clusters", parts, metadata, lambda p: _rule(p) in touched)
    return [_with_changes(item, changes) for item in todo], [commit]


def _counted(rule: str, changes: Mapping[str, dict[str, int]], held: Metadata) -> dict[str, Any]:
    """Keep, with a rule's clusters, what became of those before."""
    counts = changes.get(rule) or held.units.get(rule, {}).get("changes")
    return {"changes": counts} if counts else {}


def _with_changes(item: Todo, changes: Mapping[str, dict[str, int]]) -> Todo:
    if item.unit not in changes:
        return item
    return item._replace(reason=f"{item.reason}; clusters: {say_changes(changes[item.unit])}")


def cluster_buckets(snapshot: Snapshot, rule: str, buckets: range) -> pl.DataFrame:
    """Cluster the images whose keys lie in some buckets; runs in a worker.

    Args:
        snapshot: of the lake.
        rule: a rule that keys decide.
        buckets: which ones.

    Returns:
        Rows of the clusters table, ordered.
    """
    index = _of_rule(snapshot, "index", rule)
    return cluster_by_keys(index.filter(pl.col("bucket").is_between(buckets[0], buckets[-1]))).collect()


def _by_keys(snapshot: Snapshot, rule: str, engine: Engine) -> pl.DataFrame:
    """Make the rows of the clusters table of one rule, ordered; where the engine is many, by buckets."""
    rows = sum(part.rows for part in snapshot.files("index") if _rule(part.partition) == rule)
    pieces = max(1, min(engine.pieces, rows // _ROWS_A_PIECE, _BUCKETS))
    if pieces == 1:
        return cluster_by_keys(_of_rule(snapshot, "index", rule)).collect()
    cuts = [_BUCKETS * number // pieces for number in range(pieces + 1)]
    work = partial(cluster_buckets, snapshot, rule)
    with closing(engine.map(work, map(range, cuts, cuts[1:]))) as found:
        return pl.concat(found).sort("rule", "cluster_id", "image_id")


def _by_pairs(snapshot: Snapshot, rule: str, spec: Sequence[str], held: Metadata) -> pl.DataFrame:
    """Make the rows of the clusters table of one rule that compares, ordered."""
    index = _of_rule(snapshot, "index", rule)
    from pipeline.dedup.components import link  # noqa: PLC0415 - scipy, only where clusters are not stored

    links = links_of(rule, lambda table: _of_rule(snapshot, table, rule), _links(snapshot, rule, spec, held))
    linked = link(links, _METHODS[spec[2]])
    known = index.select("image_id", "label", "dataset", "split", "rule")
    return (
        known.join(linked.lazy(), on="image_id")
        .collect()
        .sort("cluster_id", "image_id")
        .select(schemas.TABLES["clusters"].schema.names)
    )


def _links(snapshot: Snapshot, rule: str, spec: Sequence[str], held: Metadata) -> pl.LazyFrame:
    """Read the pairs of a rule; where some were only added, those, and for the others the clusters that they made.

    A component is as well connected by its first image with each other as by all its pairs.
    """
    pairs = _of_rule(snapshot, "pairs", rule)
    if spec[2] != "components" or held.units.get(rule, {}).get("spec") != list(spec) or "pairs" not in held.inputs:
        return pairs
    then, now = (
        {part.path for part in snapshot.with_version("pairs", version).files("pairs") if _rule(part.partition) == rule}
        for version in (held.inputs["pairs"], snapshot.version("pairs"))
    )
    if not then <= now:
        return pairs
    made = _of_rule(snapshot, "clusters", rule).select(left_id="cluster_id", right_id="image_id")
    known = made.filter(pl.col("left_id") != pl.col("right_id"))
    new = sorted(now - then)
    if not new:
        return known
    return pl.concat([known, snapshot.scan_files("pairs", new).select("left_id", "right_id")])


def _of_rule(snapshot: Snapshot, table: str, rule: str) -> pl.LazyFrame:
    return snapshot.scan(table, lambda partition: _rule(partition) == rule)


def _rule(partition: Mapping[str, str]) -> str:
    return partition["rule"]
