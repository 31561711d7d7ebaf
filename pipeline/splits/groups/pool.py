"""images -> the pool: what a split may draw from, as arrays, with who may go where."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.recipe import SplitPart
from pipeline.splits.draw import check_sources, class_names, from_source, places
from pipeline.splits.groups.link import Numbers, link
from pipeline.splits.sanitize import is_protected

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
