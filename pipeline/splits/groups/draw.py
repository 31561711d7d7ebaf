"""Draw a split that cannot leak: whole groups of linked images, each into one role.

groups with roles -> rows of the split: who is in, and who is left out for whom.

What came of a draw of whole groups: how far from what was asked it is, and who moved.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.draw import in_order
from pipeline.splits.groups.assign import Assigned, assign
from pipeline.splits.groups.pool import NONE, Before, Counts, Pool, Roles, make_pool

_WHY = ("dropped_by", "dropped_for", "reason")


def rows_of(spec: SplitPart, pool: Pool, role: Roles, clusters: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Lay out the images of all groups that have a role.

    An image that its group's role may not draw is left out: a row of the first role in `keep` that may, dropped for a
    kept image of another role in its cluster, by the first rule that has one. Where it is linked only through others,
    it is dropped for the smallest such image of its group, by the first rule that links it to anything.

    A protected image is never left out. It stays in a role that may draw it, and where that is not its group's, the
    unprotected images of the group are dropped.

    Args:
        spec: the recipe's `[[split]]`.
        pool: what it may draw from.
        role: (G,) int8, made by `assign`.
        clusters: rows of the clusters table, by rule of `spec.groups`.

    Returns:
        Columns role, rank, image_id, label, label_index, dataset, split, kept, dropped_by, dropped_for, reason; ordered
        as `draw_roles` does.
    """
    given = role[pool.group]
    at_home = (given != NONE) & np.take_along_axis(pool.drawable, np.maximum(given, 0)[None, :], axis=0)[0]
    own = np.where(at_home, given, pool.drawable.argmax(axis=0))
    torn = np.zeros(len(role), dtype=np.bool_)
    torn[pool.group[pool.protected & ~at_home]] = True
    kept = pool.protected | (at_home & ~torn[pool.group])
    rows = pool.images.with_columns(
        number=pl.Series(own, dtype=pl.Int8), group=pl.Series(pool.group), kept=pl.Series(kept)
    ).filter(pl.Series(given != NONE))
    marked = rows.join(_why(rows, spec, clusters), on="image_id", how="left").drop("group")
    parts = {name: marked.filter(number=number).drop("number") for number, name in enumerate(pool.roles)}
    return in_order(spec, parts)


def _why(rows: pl.DataFrame, spec: SplitPart, clusters: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Say of every dropped row by which rule and for which image it went: columns image_id and _WHY."""
    kept, dropped = rows.filter("kept"), rows.filter(~pl.col("kept")).select("image_id", "number", "group")
    direct, linked = [], []
    for place, rule in enumerate(spec.groups):
        named = clusters[rule].select("image_id", "cluster_id")
        inside = dropped.join(named, on="image_id")
        by_rule = {"place": pl.lit(place), "dropped_by": pl.lit(rule)}
        direct.append(_nearest(inside, kept.join(named, on="image_id"), "cluster_id").with_columns(**by_rule))
        company = rows.join(named, on="image_id").filter(pl.len().over("cluster_id") > 1).select("image_id")
        linked.append(inside.join(company, on="image_id", how="semi").select("image_id", **by_rule))
    through = _nearest(dropped, kept, "group").join(_first(linked), on="image_id")
    found = _first([*direct, through.with_columns(place=pl.lit(len(spec.groups)))])
    return found.select("image_id", "dropped_by", "dropped_for", reason=pl.lit("overlap"))


def _nearest(dropped: pl.DataFrame, kept: pl.DataFrame, by: str) -> pl.DataFrame:
    """Find, for rows, the smallest kept image of another role with the same `by`: image_id and dropped_for."""
    smallest = kept.group_by(by, other="number").agg(dropped_for=pl.col("image_id").min())
    return (
        dropped.join(smallest, on=by)
        .filter(pl.col("other") != pl.col("number"))
        .group_by("image_id")
        .agg(pl.col("dropped_for").min())
    )


def _first(found: list[pl.DataFrame]) -> pl.DataFrame:
    """Keep of every image the row with the smallest `place`."""
    columns = [name for name in ("image_id", "dropped_by", "dropped_for", "place") if name in found[0].columns]
    rows = pl.concat([frame.select(columns) for frame in found])
    return rows.sort("image_id", "place").unique("image_id", keep="first", maintain_order=True)


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
