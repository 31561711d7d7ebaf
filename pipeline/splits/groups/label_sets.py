"""Stratify over several labels an image: every role gets its share of every label, as closely as whole groups allow.

References:
    Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-Label Data (iterative stratification).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.draw import SHARE_TOLERANCE, shares_error
from pipeline.splits.groups.assign import NO_ROLE, Assigned, Roles
from pipeline.splits.groups.pool import Counts, Pool

Numbers = NDArray[np.float64]

# Images that a part requests at least, so that fractions of them are defined.
_NOTHING = 1e-9


class Stratified(NamedTuple):
    """The roles of groups, stratified over the labels of an attribute.

    Attributes:
        assigned: the role of every group.
        asked: by role, the images that it requests.
        labels: columns role, label, asked, got: images with each label that every role requests and got.
        without: images of the pool without a label.
    """

    assigned: Assigned
    asked: dict[str, int]
    labels: pl.DataFrame
    without: int


class _Kind(NamedTuple):
    """Groups that have equally many images, and equally many of each label.

    Attributes:
        size: images of a group.
        labels: numbers of their labels.
        counts: images of a group with each of these labels.
        groups: the groups, in the random order of the seed.
    """

    size: int
    labels: Counts
    counts: Counts
    groups: Counts


@dataclass
class _Demand:
    """What every part of the images lacks: the roles in their order, then what no role requests.

    Attributes:
        size: (P,) float64, images that every part requests.
        total: (L,) int64, images of every label.
        lacking: (P, L) float64, images of every label that every part lacks.
        room: (P,) float64, images that every part lacks.
    """

    size: Numbers
    total: Counts
    lacking: Numbers
    room: Numbers

    def take(self, kind: _Kind, shares: Counts) -> None:
        """Subtract groups of a kind, (P,) of them for every part."""
        self.lacking[:, kind.labels] -= np.outer(shares, kind.counts)
        self.room -= shares * kind.size

    def shares_of(self, kind: _Kind) -> Counts:
        """Distribute the groups of a kind: (P,) int64, how many go to every part.

        Each group goes to the part that lacks most of it: of all its labels and of images in general, every one as a
        fraction of what the part requests. Each group that a part gets reduces this by the same step.
        """
        images = self.size.sum()
        weight = kind.counts / self.total[kind.labels]
        lacks = (self.lacking[:, kind.labels] @ weight + self.room * kind.size / images) / self.size
        number = len(kind.groups)
        if number == 1:
            # The same as below, for speed: with many labels, most kinds have one group.
            shares = np.zeros(len(lacks), dtype=np.int64)
            shares[lacks.argmax()] = 1
            return shares
        step = (kind.counts @ weight + kind.size**2 / images) / self.size
        offers = (lacks[:, None] - step[:, None] * np.arange(number)).ravel()
        owner = np.repeat(np.arange(len(lacks)), number)
        largest = np.argsort(-offers, kind="stable")[:number]
        return np.bincount(owner[largest], minlength=len(lacks)).astype(np.int64)


def assign_label_sets(spec: SplitPart, pool: Pool, values: pl.DataFrame, previous: Roles | None) -> Stratified:
    """Give every group a role by iterative stratification.

    The label with the fewest images left is next, and its groups are distributed. Groups with the same labels are
    interchangeable: they are distributed together, in the random order of the seed. Groups without a label come last.
    Where the paper looks at one label and at numbers of images, this looks at all labels of a group and at fractions of
    what a role requests. See docs/decisions/0041-order-and-label-sets.md.

    Args:
        spec: the recipe's `[[split]]`, with `stratify`. All roles draw from the same images.
        pool: what the split can draw from.
        values: columns image_id and value: the labels, of any type.
        previous: (G,) int8, the roles that groups keep, or NO_ROLE; None for a new draw.

    Raises:
        SplitError: the roles request more images than there are.
    """
    count = len(pool.group)
    asked = _requests(spec, pool, count)
    members = _members(pool, values)
    names = members["value"].unique().sort()
    total = _label_counts(members, names)
    # What no role requests is a part like the roles, so that the roles are stratified nevertheless.
    size = np.array([*asked.values(), count - sum(asked.values())], dtype=np.float64)
    demand = _Demand(np.maximum(size, _NOTHING), total, np.outer(size / max(1, count), total), size.copy())
    role = np.full(len(pool.order), NO_ROLE, dtype=np.int8) if previous is None else previous.copy()
    kinds = _kinds(pool, members, names)
    left = np.zeros(len(names), dtype=np.int64)
    by_label: dict[int, list[int]] = {}
    for at, kind in enumerate(kinds):
        if previous is not None:
            kept = role[kind.groups]
            # The last part is of no role, and has no groups yet.
            demand.take(kind, np.bincount(kept[kept != NO_ROLE], minlength=len(size)))
            kinds[at] = kind._replace(groups=kind.groups[kept == NO_ROLE])
        left[kind.labels] += kind.counts * len(kinds[at].groups)
        for label in kind.labels.tolist():
            by_label.setdefault(label, []).append(at)
    waiting = dict.fromkeys(range(len(kinds)))
    while left.any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for at in by_label[rarest]:
            if at in waiting:
                del waiting[at]
                _distribute(kinds[at], demand, role)
                left[kinds[at].labels] -= kinds[at].counts * len(kinds[at].groups)
    for at in waiting:
        _distribute(kinds[at], demand, role)
    assigned = Assigned(role, {}, np.full(len(role), previous is None))
    without = count - members["image_id"].n_unique()
    return Stratified(assigned, asked, _account(pool, role, members, asked, count), without)


def _distribute(kind: _Kind, demand: _Demand, role: Roles) -> None:
    """Give groups of one kind their roles; `demand` and `role` are updated in place."""
    if len(kind.groups):
        shares = demand.shares_of(kind)
        role[kind.groups] = np.repeat([*range(len(shares) - 1), NO_ROLE], shares)
        demand.take(kind, shares)


def _requests(spec: SplitPart, pool: Pool, count: int) -> dict[str, int]:
    """Return how many images every role requests, in the order of `pool.roles`."""
    asked: dict[str, int] = {}
    share, unlimited = 0.0, []
    for name in pool.roles:
        part = spec.roles[name]
        if part.share is not None:
            before, share = share, share + part.share
            if share > 1 + SHARE_TOLERANCE:
                raise shares_error(spec, name, share)
            asked[name] = round(min(1.0, share) * count) - round(before * count)
        else:
            asked[name] = 0 if part.size == "all" else int(part.size)
            unlimited += [name] if part.size == "all" else []
    rest = count - sum(asked.values())
    if rest < 0:
        raise SplitError(
            f"split '{spec.name}': its roles ask for {sum(asked.values()):,} images, but there are {count:,}. Ask for "
            "fewer, or for shares."
        )
    return {**asked, **dict.fromkeys(unlimited, rest)}


def _members(pool: Pool, values: pl.DataFrame) -> pl.DataFrame:
    """List the labels of every image of the pool: columns image_id, value (text) and group; each label once."""
    groups = pool.images.select("image_id", group=pl.Series(pool.group))
    texts = values.drop_nulls().select("image_id", pl.col("value").cast(pl.String)).unique()
    return groups.join(texts, on="image_id", how="inner", maintain_order="left").sort("image_id", "value")


def _label_counts(members: pl.DataFrame, names: pl.Series) -> Counts:
    counts = members.group_by("value").len().sort("value")
    return counts["len"].cast(pl.Int64).to_numpy() if len(names) else np.zeros(0, dtype=np.int64)


def _kinds(pool: Pool, members: pl.DataFrame, names: pl.Series) -> list[_Kind]:
    """List the kinds of groups: larger groups first, then by the random order of their first group."""
    numbers = pl.DataFrame({"value": names, "label": pl.int_range(len(names), eager=True)})
    sets = (
        members.join(numbers, on="value")
        .group_by("group", "label")
        .len("count")
        .sort("group", "label")
        .group_by("group", maintain_order=True)
        .agg("label", pl.col("count").cast(pl.Int64))
    )
    size = np.bincount(pool.group, minlength=len(pool.order))
    every = pl.DataFrame(
        {
            "group": pl.Series(np.arange(len(size)), dtype=pl.Int32),
            "size": pl.Series(size, dtype=pl.Int64),
            "order": pl.Series(pool.order, dtype=pl.Int64),
        }
    )
    kinds = (
        every.join(sets, on="group", how="left", maintain_order="left")
        .sort("order")
        .with_columns(pl.col("label", "count").fill_null([]))
        .with_columns(
            kind=pl.concat_str(
                pl.col("size").cast(pl.String),
                pl.col("label").list.eval(pl.element().cast(pl.String)).list.join(","),
                pl.col("count").list.eval(pl.element().cast(pl.String)).list.join(","),
                separator=";",
            )
        )
        .group_by("kind", maintain_order=True)
        .agg(pl.col("size").first(), pl.col("label").first(), pl.col("count").first(), "group", pl.col("order").min())
        .sort("size", "order", descending=[True, False])
    )
    return [
        _Kind(size, np.array(labels, np.int64), np.array(counts, np.int64), np.array(groups, np.int64))
        for size, labels, counts, groups in kinds.select("size", "label", "count", "group").iter_rows()
    ]


def _account(pool: Pool, role: Roles, members: pl.DataFrame, asked: dict[str, int], count: int) -> pl.DataFrame:
    """Compare what every role requests of every label with what it got."""
    total = members.group_by("value").len("all")
    numbers = members.with_columns(number=pl.Series(role[members["group"].to_numpy()], dtype=pl.Int8))
    got = numbers.group_by("number", "value").len("got")
    frames = [
        total.join(got.filter(number=number).drop("number"), on="value", how="left").select(
            role=pl.lit(name),
            label="value",
            asked=(pl.col("all") * asked[name] / max(1, count)).round().cast(pl.Int64),
            got=pl.col("got").fill_null(0).cast(pl.Int64),
        )
        for number, name in enumerate(pool.roles)
    ]
    return pl.concat(frames).sort("role", "label")
