"""What had a role before keeps it: the split of an earlier release is where the next one begins."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.recipe import RolePart, SplitPart
from pipeline.splits.groups.pool import Pool

Roles = NDArray[np.int8]

NONE = -1


class Before(NamedTuple):
    """A split as it was.

    Attributes:
        spec: how it was asked for.
        rows: columns image_id, role, dropped_by, reason: its rows of the splits table, in any order.
    """

    spec: SplitPart
    rows: pl.DataFrame


def still_holds(spec: SplitPart, before: Before | None) -> bool:
    """Tell whether a split goes on from what it was: of another seed, other groups or other sources it is another."""
    return before is not None and _identity(before.spec) == _identity(spec)


def roles_before(pool: Pool, before: Before) -> Roles:
    """Look up the role that every image of the pool had.

    Returns:
        (n,) int8: number of the role; NONE where an image was in none, or was left out when its group went to another.
    """
    left_out = (pl.col("reason") == "overlap") & pl.col("dropped_by").is_in(list(before.spec.groups))
    numbers = pl.DataFrame({"role": pool.roles, "number": range(len(pool.roles))}, schema_overrides={"number": pl.Int8})
    had = before.rows.filter(~left_out.fill_null(value=False)).select("image_id", "role").join(numbers, on="role")
    found = pool.images.select("image_id").join(had, on="image_id", how="left", maintain_order="left")
    roles: Roles = found["number"].fill_null(NONE).to_numpy()
    return roles


def groups_before(pool: Pool, had: Roles) -> Roles:
    """Give every group the role that its images had: of several, the first in `keep` that the group may go to.

    Returns:
        (G,) int8: number of the role, or NONE.
    """
    roles = np.full(len(pool.order), NONE, dtype=np.int8)
    for number in reversed(range(len(pool.roles))):
        held = np.zeros(len(pool.order), dtype=np.bool_)
        held[pool.group[had == number]] = True
        roles[held & pool.allowed[number]] = number
    return roles


def asks_for_less(now: RolePart, before: RolePart) -> bool:
    """Tell whether the recipe lowered what a role asks for, or asks in another way."""
    if now.share is not None and before.share is not None:
        return now.share < before.share
    if now.share is None and before.share is None and now.size != "all" and before.size != "all":
        return now.size < before.size
    return (now.share, now.size) not in ((before.share, before.size), (None, "all"))


def _identity(spec: SplitPart) -> object:
    return spec.name, spec.seed, sorted(spec.groups), {role: part.source_split for role, part in spec.roles.items()}
