"""images -> the pool: what a split may draw from, as arrays, with who may go where.

images, clusters -> groups: images that any rule links, by connected components.

What had a role before keeps it: the split of an earlier release is where the next one begins.

How many images of every label a role asks for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.errors import SplitError
from pipeline.recipe import RolePart, SplitPart
from pipeline.splits.draw import check_sources, class_names, from_source, places, quotas, too_few
from pipeline.splits.sanitize import is_protected

Numbers = NDArray[np.int32]


def link(images: pl.DataFrame, clusters: Iterable[pl.DataFrame]) -> Numbers:
    """Put images into groups: the connected components of all clusters of all rules together.

    Images that are not given link nothing: two clusters that share only such an image stay apart.

    Args:
        images: column image_id, ascending, each once.
        clusters: rows of the clusters table (cluster_id and image_id are read), a frame a rule.

    Returns:
        (n,) int32, 0 to groups - 1: the group of every image. Groups are numbered by their smallest image.
    """
    from scipy.sparse import coo_array  # noqa: PLC0415 - a sixth of a second, only for splits with groups
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    numbered = images.select("image_id").with_row_index("number")
    edges = [
        rows.select("image_id", "cluster_id")
        .join(numbered, on="image_id")
        .select("number", head=pl.col("number").min().over("cluster_id"))
        for rows in clusters
    ]
    left = np.concatenate([np.empty(0, dtype=np.uint32), *(edge["number"].to_numpy() for edge in edges)])
    right = np.concatenate([np.empty(0, dtype=np.uint32), *(edge["head"].to_numpy() for edge in edges)])
    graph = coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(len(images), len(images)))
    count, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component, return_index=True)
    number = np.empty(count, dtype=np.int32)
    number[np.argsort(smallest)] = np.arange(count, dtype=np.int32)
    groups: Numbers = number[component]
    return groups


Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Pool:
    """The n images that any role may draw, the G groups they are in, the L labels they have, the R roles.

    Attributes:
        images: columns image_id, label, dataset, split; by image_id.
        roles: names of the roles, in the order of `keep`: a role's number is its place here.
        names: classes in their order; last None, for images without a label, where there are any.
        label: (n,) int32, place in `names`.
        group: (n,) int32, 0 to G - 1.
        place: (G,) uint64, random number of every group, made from its smallest image and the seed.
        order: (G,) int64, its position by that number.
        drawable: (R, n), whether a role may draw an image.
        protected: (n,), whether an image is protected.
        allowed: (R, G), whether a group may go to a role: one of its images is drawable there, and one of its protected
            images if it has any.
    """

    images: pl.DataFrame
    roles: tuple[str, ...]
    names: tuple[str | None, ...]
    label: Numbers
    group: Numbers
    place: NDArray[np.uint64]
    order: NDArray[np.int64]
    drawable: Mask
    protected: Mask
    allowed: Mask


def make_pool(spec: SplitPart, images: pl.DataFrame, clusters: Mapping[str, pl.DataFrame]) -> Pool:
    """Collect what a split may draw from.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns image_id, label, dataset, split; any order.
        clusters: rows of the clusters table, by rule of `spec.groups`.

    Raises:
        SplitError: a source that the split names is not there.
    """
    check_sources(spec, images)
    roles = tuple(role for role in spec.keep if role in spec.roles)
    may = {role: from_source(spec.roles[role].source_split) for role in roles}
    images = images.filter(pl.any_horizontal(may.values())).sort("image_id")
    group = link(images, [clusters[rule] for rule in spec.groups])
    _, smallest = np.unique(group, return_index=True)
    place = places(images["image_id"].gather(smallest), spec.seed, f"draw {spec.name}").to_numpy()
    order = np.empty(len(place), dtype=np.int64)
    order[np.argsort(place, kind="stable")] = np.arange(len(place))
    names: tuple[str | None, ...] = (*class_names(images["label"]), *([None] if images["label"].null_count() else []))
    drawable = np.stack([images.select(may[role]).to_series().to_numpy() for role in roles])
    protected = images.select(is_protected(spec)).to_series().to_numpy()
    allowed = _allowed(drawable, protected, group, len(place))
    return Pool(images, roles, names, _codes(images, names), group, place, order, drawable, protected, allowed)


def _codes(images: pl.DataFrame, names: tuple[str | None, ...]) -> Numbers:
    codes = pl.DataFrame({"label": names, "code": range(len(names))}, schema={"label": pl.String, "code": pl.Int32})
    return (
        images.select("label")
        .join(codes, on="label", how="left", nulls_equal=True, maintain_order="left")["code"]
        .to_numpy()
    )


def _allowed(drawable: Mask, protected: Mask, group: Numbers, groups: int) -> Mask:
    allowed = np.zeros((len(drawable), groups), dtype=np.bool_)
    guarded = np.zeros(groups, dtype=np.bool_)
    guarded[group[protected]] = True
    for role, may in enumerate(drawable):
        allowed[role, group[may & (protected | ~guarded[group])]] = True
    return allowed


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


Counts = NDArray[np.int64]

UNCOUNTED = -1


def targets(spec: SplitPart, pool: Pool) -> dict[int, Counts]:
    """Share out what the roles with a size or a share ask for.

    A size is shared out evenly over the classes, as `draw_roles` does it. A share is proportional: less than two images
    from share times the label's images, and in all within one of the share of all. Shares of one source leave no gap
    between them: if they add up to 1, all images are asked for. Roles that take all have no target.

    Args:
        spec: the recipe's `[[split]]`.
        pool: what it may draw from.

    Returns:
        By number of the role, (L,) int64; UNCOUNTED for images without a label where a size is shared out over classes.

    Raises:
        SplitError: the roles of one source ask for more than it has, whatever the groups.
    """
    have = {number: _counts(pool, number) for number in range(len(pool.roles))}
    sources: dict[str, list[int]] = {}
    for number, role in enumerate(pool.roles):
        if spec.roles[role].share is not None or spec.roles[role].size != "all":
            sources.setdefault(spec.roles[role].source_split, []).append(number)
    asked: dict[int, Counts] = {}
    for numbers in sources.values():
        shared = [number for number in numbers if spec.roles[pool.roles[number]].share is not None]
        asked.update(_shares(spec, pool, shared, have))
        asked.update({number: _quotas(spec, pool, number, have[number]) for number in numbers if number not in shared})
        _check(spec, pool, {number: asked[number] for number in numbers}, have)
    return asked


def _counts(pool: Pool, role: int) -> Counts:
    return np.bincount(pool.label[pool.drawable[role]], minlength=len(pool.names)).astype(np.int64)


def _quotas(spec: SplitPart, pool: Pool, number: int, have: Counts) -> Counts:
    size = spec.roles[pool.roles[number]].size
    classes = [name for name, count in zip(pool.names, have, strict=True) if count and name is not None]
    each = quotas(int(size), classes or [None])
    if classes:
        each[None] = UNCOUNTED
    return np.array([each.get(name, 0) for name in pool.names], dtype=np.int64)


def _shares(spec: SplitPart, pool: Pool, numbers: list[int], have: Mapping[int, Counts]) -> dict[int, Counts]:
    """Round the sums of the first shares, label by label, so that each share is the step from one sum to the next."""
    asked: dict[int, Counts] = {}
    share, done = 0.0, np.zeros(len(pool.names), dtype=np.int64)
    for number in numbers:
        share += spec.roles[pool.roles[number]].share or 0.0
        if share > 1 + 1e-9:
            source = spec.roles[pool.roles[number]].source_split
            raise SplitError(f"split '{spec.name}': the shares of '{source}' add up to {share:g}. Ask for at most 1.")
        ideal = np.minimum(share * have[number], have[number])
        total = np.maximum(np.floor(ideal).astype(np.int64), done)
        missing = max(0, round(share * int(have[number].sum())) - int(total.sum()))
        by_remainder = np.argsort(total - ideal, kind="stable")
        total[by_remainder[total[by_remainder] < ideal[by_remainder]][:missing]] += 1
        asked[number], done = total - done, total
    return asked


def _check(spec: SplitPart, pool: Pool, asked: Mapping[int, Counts], have: Mapping[int, Counts]) -> None:
    taken = np.zeros(len(pool.names), dtype=np.int64)
    for number, counts in asked.items():
        wanted = np.maximum(counts, 0)
        left = have[number] - taken
        if (wanted > left).any():
            part = spec.roles[pool.roles[number]]
            listed = [i for i, count in enumerate(wanted) if count]
            raise SplitError(
                too_few(
                    spec.name,
                    pool.roles[number],
                    part,
                    {pool.names[i]: int(wanted[i]) for i in listed},
                    {pool.names[i]: max(0, int(left[i])) for i in listed},
                )
            )
        taken += wanted
