"""Read the pairs and clusters that a lake stores, also of a rule with a stricter threshold than the stored one.

The pairs of a stricter threshold are among the stored ones: a split may sanitize by photo:0.7 if photo:0.6 is stored.
Clusters of photo:0.7 are then linked from those pairs when they are read (decision 0022).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import polars as pl

from pipeline.dedup.decided import Decided, Outcome, apply_decisions, key_links
from pipeline.dedup.rules import parse_rule
from pipeline.recipe.rules import rule_with_pairs_of, threshold_of

# Scans the rows of one rule, given the name of a table.
ScanRule = Callable[[str], pl.LazyFrame]
# Scans the rows of one rule, given the names of a table and of the rule.
ScanTable = Callable[[str, str], pl.LazyFrame]

# How images become clusters: "components" joins all that pairs connect, "stars" joins those that are paired with one
# representative, "keys" joins those with equal keys in the index.
Method = Literal["components", "stars", "keys"]

_METHODS: Mapping[str, Method] = {"components": "components", "stars": "stars", "keys": "keys"}


class StoredRule(NamedTuple):
    """The rule under which the lake stores the pairs or clusters of a rule.

    Attributes:
        rule: the rule itself, or a looser one whose stored pairs include its pairs.
        min_score: only stored pairs with this score or more are pairs of the rule; None if all are.
        method: how the stored rule makes clusters; "keys" if it has no pairs.
    """

    rule: str
    min_score: float | None
    method: Method


def find_stored_rule(rule: str, units: Mapping[str, Mapping[str, Any]]) -> StoredRule:
    """Find the stored rule for a rule: the rule itself, even if nothing is stored, or a looser one.

    Args:
        rule: a rule, stored or not.
        units: units of the clusters table's metadata.
    """
    name = rule_with_pairs_of(rule, units)
    if name is None:
        return StoredRule(rule, None, "keys")
    threshold = threshold_of(rule)
    min_score = None if name == rule or threshold is None else threshold.least
    spec = units[name].get("spec") or ("", "", "components")
    return StoredRule(name, min_score, _METHODS.get(spec[2], "components"))


def filter_pairs(min_score: float | None, pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the pairs with a score of at least `min_score`; all if it is None.

    The comparison has the precision of stored scores. They were rounded to float32, and rounding keeps the order, so
    no pair of the stricter rule is lost.
    """
    return pairs if min_score is None else pairs.filter(pl.col("score") >= pl.lit(min_score, pl.Float32))


def read_clusters(
    stored: StoredRule, scan: ScanTable, decided: Decided, method: Literal["components"] | None = None
) -> pl.LazyFrame:
    """Read the clusters of a rule, or link them from the pairs of a looser rule.

    Args:
        stored: made by `find_stored_rule`.
        scan: scans clusters, pairs or index, only rows of one rule.
        decided: what people decided about pairs. Stored clusters were changed by it when they were made.
        method: how pairs make clusters; None for the method of the stored rule.

    Returns:
        At least the columns cluster_id and image_id.
    """
    if stored.method == "keys" or (stored.min_score is None and method in (None, stored.method)):
        return scan("clusters", stored.rule)

    def scan_rule(table: str) -> pl.LazyFrame:
        rows = scan(table, stored.rule)
        return filter_pairs(stored.min_score, rows) if table == "pairs" else rows

    clusters = link_images(stored.rule, scan_rule, method or stored.method)
    return decide_clusters(stored.rule, clusters, decided, scan_rule)[0].lazy()


def decide_clusters(
    rule: str, clusters: pl.DataFrame, decided: Decided, scan: ScanRule
) -> tuple[pl.DataFrame, Outcome]:
    """Change the clusters of a rule by what people decided; see `apply_decisions`.

    Args:
        rule: the rule.
        clusters: columns cluster_id and image_id.
        decided: what people decided about pairs.
        scan: scans index or pairs, only rows of this rule.
    """
    by_keys = parse_rule(rule).comparison is None
    return apply_decisions(clusters, decided, lambda images: _links_among(rule, images, scan, by_keys=by_keys))


def _links_among(rule: str, images: pl.DataFrame, scan: ScanRule, *, by_keys: bool) -> pl.DataFrame:
    """List the links of a rule among some images: columns left_id, right_id and score; null if they have equal keys."""
    inside = images.lazy().select("image_id")

    def among(table: str) -> pl.LazyFrame:
        rows = scan(table)
        for column in ["image_id"] if table == "index" else ["left_id", "right_id"]:
            rows = rows.join(inside, left_on=column, right_on="image_id", how="semi")
        return rows

    if by_keys:
        return key_links(among("index").select("key", "signature", "image_id").collect(), images)
    pairs = among("pairs").select("left_id", "right_id", "score").collect()
    return pl.concat([pairs, cluster_edges(rule, among, among("pairs").clear())], how="diagonal")


def link_images(
    rule: str, scan: ScanRule, method: Literal["components", "stars"], pairs: pl.LazyFrame | None = None
) -> pl.DataFrame:
    """Cluster the images of a rule that compares pairs.

    Args:
        rule: as in `cluster_edges`.
        scan: as in `cluster_edges`.
        method: how to cluster; see `components.link`.
        pairs: as in `cluster_edges`.

    Returns:
        As `components.link`.
    """
    from pipeline.dedup.components import link, link_batches  # noqa: PLC0415 - scipy, only where clusters are not stored

    edges = _scan_edges(rule, scan, pairs)
    return link(edges.collect(), method) if method == "stars" else link_batches(edges)


def cluster_edges(rule: str, scan: ScanRule, pairs: pl.LazyFrame | None = None) -> pl.DataFrame:
    """List the edges that connect images into clusters: pairs and, if the rule has them, equal signatures.

    Args:
        rule: a rule that compares pairs.
        scan: scans index or pairs, only rows of this rule.
        pairs: pairs to read instead of all pairs of the rule; None for all.

    Returns:
        Columns left_id and right_id, the smaller id first. Of images with equal signatures, the one with the smallest
        id is connected with each other one.
    """
    return _scan_edges(rule, scan, pairs).collect()


def _scan_edges(rule: str, scan: ScanRule, pairs: pl.LazyFrame | None) -> pl.LazyFrame:
    edges = (scan("pairs") if pairs is None else pairs).select("left_id", "right_id")
    comparison = parse_rule(rule).comparison
    if comparison is None or not comparison.equal_signatures:
        return edges
    equal = (
        scan("index")
        .filter(pl.col("signature") != 0)
        .select("image_id", left_id=pl.col("image_id").min().over("key", "signature"))
        .filter(pl.col("image_id") != pl.col("left_id"))
        .select("left_id", right_id="image_id")
    )
    # Collected here, because edges may be read in several parts.
    return pl.concat([edges, equal.collect().lazy()])
