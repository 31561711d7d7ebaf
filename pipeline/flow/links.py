"""index, pairs -> links: what a rule that compares says belongs together, for clusters, groups and verify alike."""

from collections.abc import Callable

import polars as pl

from pipeline.dedup.rules import parse_rule

# Scans a table of the lake for one rule.
ScanRule = Callable[[str], pl.LazyFrame]


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
