"""index, pairs -> links: what a rule that compares says belongs together, for clusters, splits and verify alike.

A rule is stored where the recipe's `dedup.rules` names it. What a stricter threshold finds is among the stored pairs:
a split may sanitize by photo:0.7 where photo:0.6 is stored, and its clusters are linked from those pairs when they are
read (decision 0022).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import polars as pl

from pipeline.dedup.rules import parse_rule
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
    from pipeline.dedup.linked import link  # noqa: PLC0415 - scipy, only where clusters are not stored

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
