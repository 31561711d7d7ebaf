"""Stratify over several labels an image: every role gets its share of every label, as closely as whole groups allow.

References:
    Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-Label Data (iterative stratification).
"""

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


def assign_label_sets(spec: SplitPart, pool: Pool, values: pl.DataFrame, previous: Roles | None) -> Stratified:
    """Give every group a role by iterative stratification.

    The label with the fewest images left is next. Each of its groups goes to the role that lacks most images of the
    label; if several do, to the one that lacks most images. Groups with the same labels are interchangeable, so they
    are distributed together, in the random order of the seed: the result is that of the algorithm of the paper, a group
    at a time. Groups without a label come last. The result does not depend on names of files.

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
    # What no role requests is a part like the roles, so that the roles are stratified nevertheless.
    parts = np.array([*asked.values(), count - sum(asked.values())], dtype=np.float64)
    members = _members(pool, values)
    names = members["value"].unique().sort()
    total = _label_counts(members, names)
    lacking = np.outer(parts / max(1, count), total)
    room = parts.copy()
    role = np.full(len(pool.order), NO_ROLE, dtype=np.int8)
    free = np.ones(len(pool.order), dtype=np.bool_)
    if previous is not None:
        role, free = previous.copy(), previous == NO_ROLE
    kinds = _kinds(pool, members, names)
    left = np.zeros(len(names), dtype=np.int64)
    by_label: dict[int, list[int]] = {}
    for at, kind in enumerate(kinds):
        _settle(kind, role, free, lacking, room)
        kinds[at] = kind._replace(groups=kind.groups[free[kind.groups]])
        left[kind.labels] += kind.counts * len(kinds[at].groups)
        for label in kind.labels.tolist():
            by_label.setdefault(label, []).append(at)
    done = np.zeros(len(kinds), dtype=np.bool_)
    while left.any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for at in by_label[rarest]:
            if not done[at]:
                done[at] = True
                kind = kinds[at]
                per_group = int(kind.counts[kind.labels == rarest][0])
                _distribute(kind, lacking[:, rarest], per_group, role, lacking, room)
                left[kind.labels] -= kind.counts * len(kind.groups)
    for at, kind in enumerate(kinds):
        if not done[at]:
            _distribute(kind, room, kind.size, role, lacking, room)
    assigned = Assigned(role, {}, np.full(len(role), previous is None))
    without = count - members["image_id"].n_unique()
    return Stratified(assigned, asked, _account(pool, role, members, asked, count), without)


def _distribute(  # noqa: PLR0913, PLR0917 - the state of the algorithm
    kind: _Kind, wanted: Numbers, step: int, role: Roles, lacking: Numbers, room: Numbers
) -> None:
    """Distribute groups of one kind over the roles; `role`, `lacking` and `room` are updated in place.

    Args:
        kind: the groups.
        wanted: (R + 1,) images that every role lacks; each group goes to the role that lacks most.
        step: how much less a role lacks with one more group.
        role: (G,) int8.
        lacking: (R + 1, L), images of every label that every role lacks.
        room: (R + 1,), images that every role lacks.
    """
    number = len(kind.groups)
    if not number:
        return
    roles = len(wanted)
    taken = np.tile(np.arange(number), (roles, 1))
    first = (wanted[:, None] - step * taken).ravel()
    second = (room[:, None] - kind.size * taken).ravel()
    owner = np.repeat(np.arange(roles), number)
    best = np.lexsort((owner, -second, -first))[:number]
    shares = np.bincount(owner[best], minlength=roles)
    # The last part is of no role.
    role[kind.groups] = np.repeat([*range(roles - 1), NO_ROLE], shares)
    lacking[:, kind.labels] -= np.outer(shares, kind.counts)
    room -= shares * kind.size


def _settle(kind: _Kind, role: Roles, free: NDArray[np.bool_], lacking: Numbers, room: Numbers) -> None:
    """Subtract the groups that keep their role from what the roles lack."""
    kept = role[kind.groups[~free[kind.groups]]]
    shares = np.bincount(kept, minlength=len(room)) if len(kept) else np.zeros(len(room), dtype=np.int64)
    lacking[:, kind.labels] -= np.outer(shares, kind.counts)
    room -= shares * kind.size


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
