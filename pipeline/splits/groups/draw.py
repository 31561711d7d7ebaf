"""Draw a split that cannot leak: whole groups of linked images, each into one role."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.groups.account import Moves, deviation, moves
from pipeline.splits.groups.assign import assign
from pipeline.splits.groups.pool import Pool, make_pool
from pipeline.splits.groups.rows import rows_of
from pipeline.splits.groups.stay import Before


class Drawn(NamedTuple):
    """A split of whole groups.

    Attributes:
        rows: columns role, rank, image_id, label, label_index, dataset, split, kept, dropped_by, dropped_for, reason.
        deviation: columns role, label, asked, got; see `account.deviation`.
        moves: who is no more where it was; None where the split is drawn anew.
    """

    rows: pl.DataFrame
    deviation: pl.DataFrame
    moves: Moves | None


def draw_groups(
    spec: SplitPart, images: pl.DataFrame, clusters: Mapping[str, pl.DataFrame], before: Before | None = None
) -> Drawn:
    """Draw every role of a split with `groups`.

    Images that clusters of any of the rules connect are a group. A group goes to one role as a whole, so no cluster has
    kept rows in two roles: unless protected images, which are never left out, are in two sources that no one role
    draws from.

    Sizes and shares are met as closely as whole groups allow, label by label. A draw depends on ids, clusters and the
    seed alone, and on the split as it was before: an image keeps its role unless a new link joins groups of two roles,
    which then go to the first of these in `keep`, or the recipe asks for less. A split of another seed, of other rules
    or sources is drawn anew.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns image_id, label, dataset, split; any order.
        clusters: rows of the clusters table (cluster_id and image_id are read), by rule of `spec.groups`. Clusters that
            are stars leave pairs between them, so a rule with pairs wants components here.
        before: the split as it was, if it was.

    Raises:
        SplitError: a source that the split names is not there, the roles of one ask for more than it has, or a role
            with a size gets nothing.
    """
    pool = make_pool(spec, images, clusters)
    assigned = assign(spec, pool, before)
    rows = rows_of(spec, pool, assigned.role, clusters)
    _check_none_is_empty(spec, pool, rows)
    return Drawn(rows, deviation(spec, pool, assigned, rows), moves(pool, assigned, rows))


def _check_none_is_empty(spec: SplitPart, pool: Pool, rows: pl.DataFrame) -> None:
    # A share of few images, or of large groups, may be none; what it got of what it asked for is reported.
    sized = {role for role, part in spec.roles.items() if part.share is None}
    for role in sorted(sized - set(rows["role"])):
        source = spec.roles[role].source_split
        if spec.roles[role].share is None and spec.roles[role].size == "all":
            raise SplitError(
                f"split '{spec.name}': {role} takes all of '{source}', but the other roles leave nothing. "
                "Give them sizes or shares."
            )
        sizes = np.bincount(pool.group[pool.drawable[pool.roles.index(role)]])
        raise SplitError(
            f"split '{spec.name}': {role} gets nothing: no group of '{source}' is left that comes near to what it asks "
            f"for. The largest has {sizes.max()} images. Ask for more, or group by stricter rules."
        )
