"""Pairs that reach from one cluster into another, and there into another role: who goes, and for whom.

Clusters that are stars hold only images that are paired with one representative, so two images that a rule calls the
same may stand in different stars. What the stars leave of overlap is found by the pairs themselves.
"""

from collections.abc import Iterator

import polars as pl

from pipeline.recipe import SplitPart


def reaching_across(spec: SplitPart, kept: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Choose the rows that go so that no pair has kept rows in two roles.

    Rows of the role that stands first in `keep` stay, and what is paired with them in other roles goes; then the same
    for the next role, with what is left. Protected rows come before all roles, and never go.

    Args:
        spec: the recipe's `[[split]]`.
        kept: kept rows: image_id, role, rank, protected.
        pairs: columns left_id and right_id.

    Returns:
        Columns image_id, keeper (the first row by rank that each is paired with) and why (overlap): rows that go.
    """
    both = pl.concat(
        [pairs.select(image_id="left_id", other="right_id"), pairs.select(image_id="right_id", other="left_id")]
    )
    gone = pl.DataFrame(schema={"image_id": pl.Binary, "keeper": pl.Binary, "why": pl.String})
    for stays in _in_turn(spec):
        left = kept.join(gone, on="image_id", how="anti")
        keepers = left.filter(stays).select(keeper="image_id", home="role", place="rank")
        lost = (
            left.filter(~pl.col("protected"))
            .join(both, on="image_id")
            .join(keepers, left_on="other", right_on="keeper", coalesce=False)
            .filter(pl.col("role") != pl.col("home"))
            .sort("place", "keeper")
            .unique("image_id", keep="first", maintain_order=True)
            .select("image_id", "keeper", why=pl.lit("overlap"))
        )
        gone = pl.concat([gone, lost])
    return gone


def _in_turn(spec: SplitPart) -> Iterator[pl.Expr]:
    yield pl.col("protected")
    for role in spec.keep:
        yield pl.col("role") == role
