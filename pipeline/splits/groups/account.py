"""What came of a draw of whole groups: how far from what was asked it is, and who moved."""

from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.recipe import SplitPart
from pipeline.splits.groups.assign import Assigned
from pipeline.splits.groups.pool import Pool
from pipeline.splits.groups.stay import NONE
from pipeline.splits.groups.targets import Counts


class Moves(NamedTuple):
    """How many images of the split as it was are no more where they were, of those that are still there to be drawn.

    Attributes:
        moved: their group is in another role now; where that may not draw them, they are left out.
        forced: those among them that a new link moved, or a dataset that is protected now: the others moved because the
            recipe asks for less in the role that they had.
        left: they are in no role now, because the recipe asks for less.
    """

    moved: int
    forced: int
    left: int


def deviation(spec: SplitPart, pool: Pool, assigned: Assigned, rows: pl.DataFrame) -> pl.DataFrame:
    """Count what every role asked for and what it got.

    A role that takes all asks for every image of its source that is in no other role.

    Args:
        spec: the recipe's `[[split]]`.
        pool: what it may draw from.
        assigned: made by `assign`.
        rows: made by `rows_of`.

    Returns:
        Columns role, label, asked and got (images kept, so images left out are missing here), Int64; ordered by role,
        as the recipe's roles stand, and class; no row where both are 0.
    """
    asked = pl.concat(
        pl.DataFrame(
            {"role": role, "label": pool.names, "asked": _asked(pool, assigned, pool.roles.index(role))},
            schema_overrides={"label": pl.String},
        )
        for role in spec.roles
    )
    got = rows.filter("kept").group_by("role", "label").agg(got=pl.len().cast(pl.Int64))
    return (
        asked.join(got, on=["role", "label"], how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("got").fill_null(0))
        .filter((pl.col("asked") > 0) | (pl.col("got") > 0))
    )


def moves(pool: Pool, assigned: Assigned, rows: pl.DataFrame) -> Moves | None:
    """Count who is no more where it was; None where the split is drawn anew.

    Args:
        pool: what it may draw from.
        assigned: made by `assign`.
        rows: made by `rows_of`.
    """
    if assigned.had is None:
        return None
    numbers = pl.DataFrame({"role": pool.roles, "now": range(len(pool.roles))}, schema_overrides={"now": pl.Int8})
    now = rows.filter("kept").select("image_id", "role").join(numbers, on="role")
    found = pool.images.select("image_id").join(now, on="image_id", how="left", maintain_order="left")
    given = assigned.role[pool.group]
    there = assigned.had != NONE
    moved = there & (given != NONE) & (found["now"].fill_null(NONE).to_numpy() != assigned.had)
    return Moves(
        int(moved.sum()),
        int((moved & ~assigned.freed[pool.group]).sum()),
        int((there & (given == NONE)).sum()),
    )


def _asked(pool: Pool, assigned: Assigned, number: int) -> Counts:
    if number in assigned.asked:
        return np.maximum(assigned.asked[number], 0)
    given = assigned.role[pool.group]
    elsewhere = np.zeros(len(given), dtype=np.bool_)
    for other, may in enumerate(pool.drawable):
        elsewhere |= may & (given == other) & (other != number)
    mine = pool.drawable[number] & ~elsewhere
    return np.bincount(pool.label[mine], minlength=len(pool.names)).astype(np.int64)
