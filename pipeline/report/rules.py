"""Rules in the report: which there are, in what order, and what they mean in plain words."""

import polars as pl

_MEANING = {
    "exact": "equal pixels and equal shape",
    "sign": "every pixel on the same side of mid-gray: 127 and below, or 128 and above",
    "maxpool": "equal brightest pixels in every {0} x {0} block",
    "hamming": "64-bit perceptual hashes that differ in at most {0} bits",
    "cosine": "correlation between the pixels of {0} or above",
    "photo": "the same photograph, perhaps shifted, cropped, mirrored or recoloured, with a score of {0} or above",
    "embedding": "cosine between the vectors you brought ({0}) at least that",
}


def rule_order(rule: str) -> tuple[int, str]:
    """Sort key: the strictest family first, as DESIGN lists them, then by spelling."""
    family = rule.partition(":")[0]
    return (list(_MEANING).index(family) if family in _MEANING else len(_MEANING), rule)


def known_rules(clusters: pl.LazyFrame, index: pl.LazyFrame) -> list[str]:
    """List every rule that the lake was indexed by: a rule without a single cluster is a finding too.

    Args:
        clusters: the clusters table.
        index: the index table.

    Returns:
        Rules as the recipe spells them, in the order of `rule_order`.
    """
    both = pl.concat([clusters.select("rule"), index.select("rule")]).unique().collect()
    return sorted(both["rule"], key=rule_order)


def meaning(rule: str) -> str:
    """Say in plain words what a rule calls the same picture; empty for a rule this page does not know."""
    family, _, value = rule.partition(":")
    return _MEANING.get(family, "").format(value)
