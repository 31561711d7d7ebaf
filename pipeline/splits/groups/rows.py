"""groups with roles -> rows of the split: who is in, and who is left out for whom."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from pipeline.recipe import SplitPart
from pipeline.splits.draw import in_order
from pipeline.splits.groups.pool import Pool
from pipeline.splits.groups.stay import NONE, Roles

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
