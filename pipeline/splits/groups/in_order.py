"""Give groups their roles in the order of an attribute: train before valid before test, as in data of a time series."""

from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.recipe import SplitPart
from pipeline.splits.groups.assign import NO_ROLE, Assigned
from pipeline.splits.groups.pool import Counts, Pool, requested_totals

# The place of images without a value: before all others.
_NO_VALUE = -1


class Ordered(NamedTuple):
    """The roles of groups in the order of an attribute.

    Attributes:
        assigned: the role of every group.
        requested: by role, the images that it requests.
        without: images of the pool without a value.
        early: by role, its images with a smaller value than the largest of the roles before it. A group is as late as
            its latest image, so there are some only if a group has several values.
    """

    assigned: Assigned
    requested: dict[str, int]
    without: int
    early: dict[str, int]


def assign_in_order(spec: SplitPart, pool: Pool, values: pl.DataFrame) -> Ordered:
    """Give every group a role by its largest value.

    Groups are ordered by the largest value of their images, equal ones by their smallest image id. Sizes and shares cut
    this order where a group's middle passes the requested number of images, so each cut is at most half a group off. A
    group without a value goes to the first role. If the roles request fewer images than there are, the first images of
    the order are left out.

    Args:
        spec: the recipe's `[[split]]`, with `order`. All roles draw from the same images.
        pool: what the split can draw from.
        values: columns image_id and value, of a type that has an order; the largest value of an image counts.

    Raises:
        SplitError: the roles request more images than there are.
    """
    place = _places(pool, values)
    groups = len(pool.order)
    latest = np.full(groups, _NO_VALUE, dtype=np.int64)
    np.maximum.at(latest, pool.group, place)
    in_order = np.argsort(latest, kind="stable")
    size = np.bincount(pool.group, minlength=groups)[in_order]
    middle = np.cumsum(size) - size / 2
    names = list(spec.roles)
    requested = requested_totals(spec, names, len(pool.group))
    sizes = [requested[name] for name in names]
    # Position 0 is before the first role: images that no role requests.
    ends = np.cumsum([len(pool.group) - sum(sizes), *sizes])
    position = np.searchsorted(ends, middle, side="right")
    numbers = np.array([NO_ROLE, *map(pool.roles.index, names), NO_ROLE], dtype=np.int8)
    role = np.empty(groups, dtype=np.int8)
    role[in_order] = numbers[position]
    role[latest == _NO_VALUE] = pool.roles.index(names[0])
    early, highest = {}, _NO_VALUE
    of_image = role[pool.group]
    for name in names:
        own = place[of_image == pool.roles.index(name)]
        early[name] = int(((own != _NO_VALUE) & (own < highest)).sum())
        highest = max(highest, int(own.max(initial=_NO_VALUE)))
    assigned = Assigned(role, {}, np.ones(groups, dtype=np.bool_))
    return Ordered(assigned, requested, int((place == _NO_VALUE).sum()), early)


def _places(pool: Pool, values: pl.DataFrame) -> Counts:
    """Return the place of the value of every image among all values: equal values have one place."""
    largest = values.drop_nulls().group_by("image_id").agg(pl.col("value").max())
    placed = largest.with_columns(place=pl.col("value").rank("dense").cast(pl.Int64))
    joined = pool.images.select("image_id").join(placed, on="image_id", how="left", maintain_order="left")
    places: Counts = joined["place"].fill_null(_NO_VALUE).to_numpy()
    return places
