"""Give groups their roles in the order of an attribute: train before valid before test, as in data of a time series."""

from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.draw import SHARE_TOLERANCE, shares_error
from pipeline.splits.groups.assign import NO_ROLE, Assigned
from pipeline.splits.groups.pool import Counts, Pool

# The place of images without a value: before all others.
_NO_VALUE = -1


class Ordered(NamedTuple):
    """The roles of groups in the order of an attribute.

    Attributes:
        assigned: the role of every group.
        asked: by role, the images that it requests.
        without: images of the pool without a value.
        early: by role, its images with a smaller value than the largest of the roles before it. A group is as late as
            its latest image, so there are some only if a group has several values.
    """

    assigned: Assigned
    asked: dict[str, int]
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
    asked, ends = _cuts(spec, names, len(pool.group))
    # Position 0 is before the first role: what no role requests.
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
    return Ordered(assigned, asked, int((place == _NO_VALUE).sum()), early)


def _places(pool: Pool, values: pl.DataFrame) -> Counts:
    """Return the place of the value of every image among all values: equal values have one place."""
    largest = values.drop_nulls().group_by("image_id").agg(pl.col("value").max())
    placed = largest.with_columns(place=pl.col("value").rank("dense").cast(pl.Int64))
    joined = pool.images.select("image_id").join(placed, on="image_id", how="left", maintain_order="left")
    places: Counts = joined["place"].fill_null(_NO_VALUE).to_numpy()
    return places


def _cuts(spec: SplitPart, names: list[str], count: int) -> tuple[dict[str, int], list[float]]:
    """Return how many images each role requests, and where the parts of the order end: those of no role, each role.

    Roles before one that takes all count from the start of the order, those after it from the end. If no role takes
    all, all count from the end.
    """
    parts = [spec.roles[name] for name in names]
    unlimited = [at for at, part in enumerate(parts) if part.share is None and part.size == "all"]
    sizes = [0 if at in unlimited else _request(spec, name, count) for at, name in enumerate(names)]
    if sum(sizes) > count:
        raise SplitError(
            f"split '{spec.name}': its roles ask for {sum(sizes):,} images in order, but there are {count:,}. Ask for "
            "fewer, or for shares."
        )
    rest = count - sum(sizes)
    if unlimited:
        sizes[unlimited[0]], rest = rest, 0
    return dict(zip(names, sizes, strict=True)), np.cumsum([rest, *sizes]).tolist()


def _request(spec: SplitPart, name: str, count: int) -> int:
    """Return the images that a role requests. Shares are rounded together, so that shares of 1 in total leave none."""
    part = spec.roles[name]
    if part.share is None:
        return int(part.size)
    earlier = list(spec.roles)[: list(spec.roles).index(name)]
    before = sum(spec.roles[other].share or 0.0 for other in earlier)
    if before + part.share > 1 + SHARE_TOLERANCE:
        raise shares_error(spec, name, before + part.share)
    return round(min(1.0, before + part.share) * count) - round(before * count)
