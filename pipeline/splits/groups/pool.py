"""Collect what a split can draw from: images, the groups they form, and how many images each role requests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import SplitError
from pipeline.recipe import SplitPart
from pipeline.splits.draw import (
    SHARE_TOLERANCE,
    DrawnBy,
    check_sources,
    class_names,
    from_source,
    quotas,
    random_keys,
    shares_error,
    too_few_message,
    with_picture,
)
from pipeline.splits.sanitize import is_protected

Numbers = NDArray[np.int32]
Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]

# In requested counts: images without a label are not counted, because the role's size is distributed over classes.
UNCOUNTED = -1


@dataclass(frozen=True)
class Pool:
    """The n images that any role may draw, the G groups they form, the L labels they have, and the R roles.

    Attributes:
        images: columns image_id, label, dataset, split, picture; ordered by image_id.
        roles: names of the roles in the order of `keep`; the number of a role is its position here.
        names: sorted class names; None comes last if there are images without a label.
        label: (n,) int32, position in `names`.
        group: (n,) int32, 0 to G - 1.
        key: (G,) uint64, random number of every group, computed from its smallest picture and the seed.
        order: (G,) int64, position of every group when sorted by `key`, groups with equal keys by their smallest image.
        drawable: (R, n), whether a role may draw an image.
        protected: (n,), whether an image is protected.
        allowed: (R, G), whether a group may go to a role: the role may draw one of its images, and one of its protected
            images if it has any.
    """

    images: pl.DataFrame
    roles: tuple[str, ...]
    names: tuple[str | None, ...]
    label: Numbers
    group: Numbers
    key: NDArray[np.uint64]
    order: Counts
    drawable: Mask
    protected: Mask
    allowed: Mask


def make_pool(
    spec: SplitPart, images: pl.DataFrame, clusters: Mapping[str, pl.DataFrame], by: DrawnBy = "file_digest"
) -> Pool:
    """Collect what a split can draw from.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns image_id, label, dataset, split, file_digest, content_hash; any order.
        clusters: rows of the clusters table, by rule of `spec.groups`.
        by: the column that the random numbers are made from.

    Returns:
        The pool.

    Raises:
        SplitError: a source that the split names does not exist.
    """
    check_sources(spec, images)
    roles = tuple(role for role in spec.keep if role in spec.roles)
    role_sources = {role: from_source(spec.roles[role].source_split) for role in roles}
    images = with_picture(images.filter(pl.any_horizontal(role_sources.values())), by).sort("image_id")
    group = link_groups(images, [clusters[rule] for rule in spec.groups])
    smallest = images.group_by(pl.Series(group).alias("group")).agg(pl.col("picture").min()).sort("group")
    key = random_keys(smallest["picture"], spec.seed, f"draw {spec.name}")
    order = np.empty(len(key), dtype=np.int64)
    order[np.argsort(key, kind="stable")] = np.arange(len(key))
    names: tuple[str | None, ...] = (*class_names(images["label"]), *([None] if images["label"].null_count() else []))
    drawable = np.stack([images.select(role_sources[role]).to_series().to_numpy() for role in roles])
    protected = images.select(is_protected(spec)).to_series().to_numpy()
    allowed = _allowed_groups(drawable, protected, group, len(key))
    return Pool(images, roles, names, _label_numbers(images, names), group, key, order, drawable, protected, allowed)


def link_groups(images: pl.DataFrame, clusters: Iterable[pl.DataFrame]) -> Numbers:
    """Put images into groups: the connected components of all clusters of all rules together.

    Images that are not in `images` link nothing: two clusters that share only such an image stay separate.

    Args:
        images: column image_id, ascending, each once.
        clusters: rows of the clusters table (cluster_id and image_id are read), one frame per rule.

    Returns:
        (n,) int32, 0 to groups - 1: the group of every image. Groups are numbered by their smallest image.
    """
    from scipy.sparse import coo_array  # noqa: PLC0415 - takes a sixth of a second, only for splits with groups
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 - as above

    numbered = images.select("image_id").with_row_index("number")
    edges = [
        rows.select("image_id", "cluster_id")
        .join(numbered, on="image_id")
        .select("number", first=pl.col("number").min().over("cluster_id"))
        for rows in clusters
    ]
    left = np.concatenate([np.empty(0, dtype=np.uint32), *(edge["number"].to_numpy() for edge in edges)])
    right = np.concatenate([np.empty(0, dtype=np.uint32), *(edge["first"].to_numpy() for edge in edges)])
    graph = coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(len(images), len(images)))
    count, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component, return_index=True)
    number = np.empty(count, dtype=np.int32)
    number[np.argsort(smallest)] = np.arange(count, dtype=np.int32)
    groups: Numbers = number[component]
    return groups


def requested_counts(spec: SplitPart, pool: Pool) -> dict[int, Counts]:
    """Compute how many images of each label the roles with a size or a share request.

    A size is distributed evenly over the classes, as in `draw_roles`. A share is proportional: it differs from share
    times the images of a label by less than two, and from share times all images by at most one. Shares of one source
    leave no gap between them: if they add up to 1, all images are requested. Roles that take all have no request.

    Args:
        spec: the recipe's `[[split]]`.
        pool: what the split can draw from.

    Returns:
        By number of the role, (L,) int64; UNCOUNTED for images without a label if a size is distributed over classes.

    Raises:
        SplitError: the roles of one source request more images than it has, regardless of groups.
    """
    available = {number: _label_counts(pool, number) for number in range(len(pool.roles))}
    by_source: dict[str, list[int]] = {}
    for number, role in enumerate(pool.roles):
        if spec.roles[role].share is not None or spec.roles[role].size != "all":
            by_source.setdefault(spec.roles[role].source_split, []).append(number)
    requested: dict[int, Counts] = {}
    for numbers in by_source.values():
        with_share = [number for number in numbers if spec.roles[pool.roles[number]].share is not None]
        with_size = [number for number in numbers if number not in with_share]
        requested.update(_share_counts(spec, pool, with_share, available))
        requested.update({number: _size_counts(spec, pool, number, available[number]) for number in with_size})
        _check_available(spec, pool, {number: requested[number] for number in numbers}, available)
    return requested


def requested_totals(spec: SplitPart, roles: Iterable[str], count: int) -> dict[str, int]:
    """Compute how many images each role requests in all, if all roles draw from the same images.

    Shares are rounded together, so that shares that add up to 1 request all images.

    Args:
        spec: the recipe's `[[split]]`; at most one role takes all.
        roles: names of its roles; shares are rounded in this order.
        count: number of images.

    Raises:
        SplitError: the roles request more images than there are.
    """
    requested: dict[str, int] = {}
    share = 0.0
    for name in roles:
        part = spec.roles[name]
        if part.share is None:
            requested[name] = 0 if part.size == "all" else part.size
            continue
        before, share = share, share + part.share
        if share > 1 + SHARE_TOLERANCE:
            raise shares_error(spec, name, share)
        requested[name] = round(min(1.0, share) * count) - round(before * count)
    rest = count - sum(requested.values())
    if rest < 0:
        raise SplitError(
            f"split '{spec.name}': its roles request {count - rest:,} images, but there are {count:,}. Request fewer, "
            "or use shares."
        )
    unlimited = [name for name in requested if spec.roles[name].share is None and spec.roles[name].size == "all"]
    return {**requested, **dict.fromkeys(unlimited, rest)}


def _label_numbers(images: pl.DataFrame, names: tuple[str | None, ...]) -> Numbers:
    numbers = pl.DataFrame(
        {"label": names, "number": range(len(names))}, schema={"label": pl.String, "number": pl.Int32}
    )
    return (
        images.select("label")
        .join(numbers, on="label", how="left", nulls_equal=True, maintain_order="left")["number"]
        .to_numpy()
    )


def _allowed_groups(drawable: Mask, protected: Mask, group: Numbers, groups: int) -> Mask:
    allowed = np.zeros((len(drawable), groups), dtype=np.bool_)
    has_protected = np.zeros(groups, dtype=np.bool_)
    has_protected[group[protected]] = True
    for role, may_draw in enumerate(drawable):
        allowed[role, group[may_draw & (protected | ~has_protected[group])]] = True
    return allowed


def _label_counts(pool: Pool, role: int) -> Counts:
    return np.bincount(pool.label[pool.drawable[role]], minlength=len(pool.names)).astype(np.int64)


def _size_counts(spec: SplitPart, pool: Pool, number: int, available: Counts) -> Counts:
    size = spec.roles[pool.roles[number]].size
    classes = [name for name, count in zip(pool.names, available, strict=True) if count and name is not None]
    counts = quotas(int(size), classes or [None])
    if classes:
        counts[None] = UNCOUNTED
    return np.array([counts.get(name, 0) for name in pool.names], dtype=np.int64)


def _share_counts(
    spec: SplitPart, pool: Pool, numbers: list[int], available: Mapping[int, Counts]
) -> dict[int, Counts]:
    """Round cumulative shares, label by label; each share is the difference between one sum and the next."""
    requested: dict[int, Counts] = {}
    share, previous = 0.0, np.zeros(len(pool.names), dtype=np.int64)
    for number in numbers:
        share += spec.roles[pool.roles[number]].share or 0.0
        if share > 1 + SHARE_TOLERANCE:
            raise shares_error(spec, pool.roles[number], share)
        ideal = np.minimum(share * available[number], available[number])
        total = np.maximum(np.floor(ideal).astype(np.int64), previous)
        missing = max(0, round(share * int(available[number].sum())) - int(total.sum()))
        by_remainder = np.argsort(total - ideal, kind="stable")
        total[by_remainder[total[by_remainder] < ideal[by_remainder]][:missing]] += 1
        requested[number], previous = total - previous, total
    return requested


def _check_available(
    spec: SplitPart, pool: Pool, requested: Mapping[int, Counts], available: Mapping[int, Counts]
) -> None:
    taken = np.zeros(len(pool.names), dtype=np.int64)
    for number, counts in requested.items():
        wanted = np.maximum(counts, 0)
        left = available[number] - taken
        if (wanted > left).any():
            role = pool.roles[number]
            listed = np.flatnonzero(wanted)
            wanted_by_name = {pool.names[i]: int(wanted[i]) for i in listed}
            left_by_name = {pool.names[i]: max(0, int(left[i])) for i in listed}
            raise SplitError(too_few_message(spec.name, role, spec.roles[role], wanted_by_name, left_by_name))
        taken += wanted
