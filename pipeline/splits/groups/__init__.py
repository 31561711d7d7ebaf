"""Draw a split without leaks: images that clusters link form groups, and each group goes to one role as a whole.

`pool` collects the groups and how many images each role requests; `assign` gives every group a role; this
module turns that into the rows of the split, how far each role is from its request, and which images moved.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.draw import DrawnBy, rank_rows
from pipeline.splits.groups.assign import NO_ROLE, Assigned, Roles, assign, previous_group_roles
from pipeline.splits.groups.in_order import assign_in_order
from pipeline.splits.groups.pool import Counts, Pool, make_pool
from pipeline.splits.previous import IDENTITY, Moves, PreviousSplit, previous_roles

_DROP_REASONS = {"image_id": pl.Binary, "dropped_by": pl.String, "dropped_for": pl.Binary, "reason": pl.String}


class Drawn(NamedTuple):
    """A split of whole groups.

    Attributes:
        rows: columns role, rank, image_id, label, label_index, dataset, split, kept, dropped_by, dropped_for, reason.
        deviation: columns role, label, requested, got: images that every role requested and got, see `_deviation`.
        moves: how many images moved since the previous split; None if there is none.
        labels: for `stratify`, columns role, label, requested, got for every value of the attribute; else None.
        unset: for `order` and `stratify`, the images without a value.
        early: for `order`, by role, images that are earlier than the latest of the roles before it.
    """

    rows: pl.DataFrame
    deviation: pl.DataFrame
    moves: Moves | None
    labels: pl.DataFrame | None = None
    unset: int = 0
    early: Mapping[str, int] = MappingProxyType({})


def draw_groups(  # noqa: PLR0913, PLR0917 - what a split is made of
    spec: SplitPart,
    images: pl.DataFrame,
    clusters: Mapping[str, pl.DataFrame],
    previous: PreviousSplit | None = None,
    by: DrawnBy = "file_digest",
    attribute: pl.DataFrame | None = None,
) -> Drawn:
    """Draw every role of a split with `groups`, `order` or `stratify`.

    Images that clusters of any of the rules connect form a group. A group goes to one role as a whole, so no cluster
    has kept rows in two roles. The exception are protected images, which are never left out: they may be in two sources
    that no single role draws from.

    Sizes and shares are met as closely as whole groups allow, label by label. The result depends on the files of
    images, clusters, the seed and the previous split only. A picture keeps its role, also under another name or label,
    unless a new link joins groups of two roles, which then go to the first of these in `keep`, or a changed setting
    requires it (see `assign`). A split with another seed, other rules, roles or sources is drawn anew.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns image_id, label, dataset, split, file_digest, content_hash; any order.
        clusters: rows of the clusters table (cluster_id and image_id are read), by rule of `spec.groups`. For rules
            with pairs these must be components, because pairs may link two stars.
        previous: the split of the previous release, if there is one.
        by: the column that the random numbers are made from.
        attribute: columns image_id and value, of the attribute of `order` or `stratify`; None without these.

    Returns:
        The rows of the split, and an account of the draw.

    Raises:
        SplitError: a source that the split names does not exist, the roles of one source request more images than it
            has, or a role with a size gets no image.
    """
    pool = make_pool(spec, images, clusters, by)
    before = _previous_names(pool, images, previous)
    roles = _role_numbers(pool, before)
    if attribute is None:
        assigned = assign(spec, pool, previous and previous.spec, roles)
    elif spec.order:
        ordered = assign_in_order(spec, pool, attribute)
        assigned = ordered.assigned
    else:
        # Imports scipy.sparse, which takes a sixth of a second.
        from pipeline.splits.groups.label_sets import assign_label_sets  # noqa: PLC0415 - only to stratify

        kept = previous_group_roles(spec, pool, previous and previous.spec, roles)
        stratified = assign_label_sets(spec, pool, attribute, kept)
        assigned = stratified.assigned
    rows = _split_rows(spec, pool, assigned.role, clusters)
    _check_no_role_is_empty(spec, pool, rows)
    moves = previous and _moves(pool, assigned, rows, before, previous)
    if attribute is None:
        return Drawn(rows, _deviation(spec, pool, assigned, rows), moves)
    if spec.order:
        return Drawn(rows, _totals(ordered.requested, rows), moves, None, ordered.without, ordered.early)
    return Drawn(rows, _totals(stratified.requested, rows), moves, stratified.labels, stratified.without)


def _split_rows(spec: SplitPart, pool: Pool, role: Roles, clusters: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Make the rows of all groups that have a role.

    An image that its group's role may not draw is left out: it gets a row in the first role in `keep` that may draw it,
    dropped for a kept image of another role in its cluster, by the first rule with such an image. If it is linked only
    through other images, it is dropped for the smallest such image of its group, by the first rule that links it to
    anything.

    A protected image is never left out. It stays in a role that may draw it. If that is not the role of its group, the
    unprotected images of the group are dropped.

    Args:
        spec: the recipe's `[[split]]`.
        pool: what the split can draw from.
        role: (G,) int8, the role of every group, or NO_ROLE.
        clusters: rows of the clusters table, by rule of `spec.groups`.

    Returns:
        Columns role, rank, image_id, label, label_index, dataset, split, kept, dropped_by, dropped_for, reason; ordered
        as `draw_roles` does.
    """
    group_role = role[pool.group]
    may_draw = np.take_along_axis(pool.drawable, np.maximum(group_role, 0)[None, :], axis=0)[0]
    in_group_role = (group_role != NO_ROLE) & may_draw
    own_role = np.where(in_group_role, group_role, pool.drawable.argmax(axis=0))
    is_torn = np.zeros(len(role), dtype=np.bool_)
    is_torn[pool.group[pool.protected & ~in_group_role]] = True
    kept = pool.protected | (in_group_role & ~is_torn[pool.group])
    rows = pool.images.with_columns(
        number=pl.Series(own_role, dtype=pl.Int8), group=pl.Series(pool.group), kept=pl.Series(kept)
    ).filter(pl.Series(group_role != NO_ROLE))
    marked = rows.join(_drop_reasons(rows, spec, clusters), on="image_id", how="left").drop("group")
    by_role = {name: marked.filter(number=number).drop("number") for number, name in enumerate(pool.roles)}
    return rank_rows(spec, by_role)


def _drop_reasons(rows: pl.DataFrame, spec: SplitPart, clusters: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Find the rule and the image for which every row is dropped: image_id, dropped_by, dropped_for, reason."""
    kept, dropped = rows.filter("kept"), rows.filter(~pl.col("kept")).select("image_id", "number", "group")
    if dropped.is_empty():
        return pl.DataFrame(schema=_DROP_REASONS)
    direct, linked = [], []
    for position, rule in enumerate(spec.groups):
        members = clusters[rule].select("image_id", "cluster_id")
        in_cluster = dropped.join(members, on="image_id")
        by_rule = {"priority": pl.lit(position), "dropped_by": pl.lit(rule)}
        nearest = _smallest_kept(in_cluster, kept.join(members, on="image_id"), "cluster_id")
        direct.append(nearest.with_columns(**by_rule))
        not_alone = rows.join(members, on="image_id").filter(pl.len().over("cluster_id") > 1).select("image_id")
        linked.append(in_cluster.join(not_alone, on="image_id", how="semi").select("image_id", **by_rule))
    indirect = _smallest_kept(dropped, kept, "group").join(_first_by_priority(linked), on="image_id")
    found = _first_by_priority([*direct, indirect.with_columns(priority=pl.lit(len(spec.groups)))])
    return found.select("image_id", "dropped_by", "dropped_for", reason=pl.lit("overlap"))


def _smallest_kept(dropped: pl.DataFrame, kept: pl.DataFrame, by: str) -> pl.DataFrame:
    """Find, for each row, the smallest kept image of another role with the same `by`: image_id and dropped_for."""
    smallest = kept.group_by(by, other="number").agg(dropped_for=pl.col("image_id").min())
    return (
        dropped.join(smallest, on=by)
        .filter(pl.col("other") != pl.col("number"))
        .group_by("image_id")
        .agg(pl.col("dropped_for").min())
    )


def _first_by_priority(found: list[pl.DataFrame]) -> pl.DataFrame:
    """Keep the row with the smallest `priority` of every image."""
    columns = [name for name in ("image_id", "dropped_by", "dropped_for", "priority") if name in found[0].columns]
    rows = pl.concat([frame.select(columns) for frame in found])
    return rows.sort("image_id", "priority").unique("image_id", keep="first", maintain_order=True)


def _check_no_role_is_empty(spec: SplitPart, pool: Pool, rows: pl.DataFrame) -> None:
    # A share of few images or of large groups may be empty; the deviation reports that.
    without_share = {role for role, part in spec.roles.items() if part.share is None}
    for role in sorted(without_share - set(rows["role"])):
        source = spec.roles[role].source_split
        if spec.roles[role].size == "all":
            raise SplitError(
                f"split '{spec.name}': {role} takes all of '{source}', but the other roles leave nothing. "
                "Give them sizes or shares."
            )
        sizes = np.bincount(pool.group[pool.drawable[pool.roles.index(role)]])
        raise SplitError(
            f"split '{spec.name}': {role} gets nothing: no group of '{source}' that is left is close enough to the "
            f"requested size. The largest has {sizes.max()} images. Request more images, or group by stricter rules."
        )


def _deviation(spec: SplitPart, pool: Pool, assigned: Assigned, rows: pl.DataFrame) -> pl.DataFrame:
    """Count what every role requested and what it got. A role that takes all requests the images of no other role.

    Returns:
        Columns role, label, requested (images) and got (images kept, without those left out), Int64; ordered by
        role, in the order of the recipe, and class; rows where both are 0 are left out.
    """
    requested = pl.concat(
        pl.DataFrame(
            {"role": role, "label": pool.names, "requested": _requested(pool, assigned, pool.roles.index(role))},
            schema_overrides={"label": pl.String},
        )
        for role in spec.roles
    )
    got = rows.filter("kept").group_by("role", "label").agg(got=pl.len().cast(pl.Int64))
    return (
        requested.join(got, on=["role", "label"], how="left", nulls_equal=True, maintain_order="left")
        .with_columns(pl.col("got").fill_null(0))
        .filter((pl.col("requested") > 0) | (pl.col("got") > 0))
    )


def _totals(requested: Mapping[str, int], rows: pl.DataFrame) -> pl.DataFrame:
    """Compare what every role requests, without regard to classes, with what it got; columns as in `_deviation`."""
    got: dict[str, int] = dict(rows.filter("kept").group_by("role").len().rows())
    described = [(role, None, count, got.get(role, 0)) for role, count in requested.items()]
    schema = {"role": pl.String, "label": pl.String, "requested": pl.Int64, "got": pl.Int64}
    return pl.DataFrame(described, schema=schema, orient="row")


def _requested(pool: Pool, assigned: Assigned, number: int) -> Counts:
    if number in assigned.requested:
        return np.maximum(assigned.requested[number], 0)
    group_role = assigned.role[pool.group]
    in_other_role = np.zeros(len(group_role), dtype=np.bool_)
    for other, may_draw in enumerate(pool.drawable):
        in_other_role |= may_draw & (group_role == other) & (other != number)
    available = pool.drawable[number] & ~in_other_role
    return np.bincount(pool.label[available], minlength=len(pool.names)).astype(np.int64)


def _previous_names(pool: Pool, images: pl.DataFrame, previous: PreviousSplit | None) -> pl.Series:
    """Find the previous role of every image of the pool; null if it had none."""
    if previous is None:
        return pl.repeat(None, len(pool.images), dtype=pl.String, eager=True)
    ids = pool.images.select("image_id")
    return previous_roles(
        ids.join(images.select("image_id", *IDENTITY), on="image_id", how="left", maintain_order="left"), previous
    )


def _role_numbers(pool: Pool, names: pl.Series) -> Roles:
    """Return the numbers of roles by name: (n,) int8; NO_ROLE for null and for roles that the split no longer has."""
    numbers = dict(zip(pool.roles, range(len(pool.roles)), strict=True))
    roles: Roles = names.replace_strict(numbers, default=NO_ROLE, return_dtype=pl.Int8).fill_null(NO_ROLE).to_numpy()
    return roles


def _moves(pool: Pool, assigned: Assigned, rows: pl.DataFrame, before: pl.Series, previous: PreviousSplit) -> Moves:
    """Compare the split with the previous one. An image that is left out moved with its group."""
    kept = rows.filter("kept").select("image_id", now="role")
    now = pool.images.select("image_id").join(kept, on="image_id", how="left", maintain_order="left")["now"]
    had_role = before.is_not_null().to_numpy()
    stayed = had_role & (assigned.role != NO_ROLE)[pool.group]
    moved = stayed & now.ne_missing(before).to_numpy()
    return Moves(
        int(moved.sum()),
        int((moved & ~assigned.freed[pool.group]).sum()),
        len(previous.members) - int(stayed.sum()),
        int((now.is_not_null().to_numpy() & ~had_role).sum()),
    )
