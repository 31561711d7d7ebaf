"""Draw the images of every role: quotas by class, an order by seed, neither dependent on how files are listed."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from pipeline.errors import SplitError
from pipeline.recipe import RolePart, SplitPart
from pipeline.stable_order import order_keys

# Roles that share a source draw in this order, so that a larger train set takes nothing from valid and test.
_DRAWING_ORDER = ("test", "valid", "train")


def draw_roles(spec: SplitPart, images: pl.DataFrame) -> pl.DataFrame:
    """Draw every role of a split.

    An image's place depends on its id and the seed alone: a new image takes at most its own place.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns image_id, label, dataset, split; any order.

    Returns:
        Columns role, rank, image_id, label, label_index, dataset, split; ordered by role (as the recipe's roles stand)
        and rank. The rank is a random order, so classes are mixed and every prefix is a random sample. Label indices
        follow the sorted class names.

    Raises:
        SplitError: a source split is not there, a class has too few images for its quota (all classes are counted), or
            `protected` or `trusted` names what no role draws from.
    """
    check_sources(spec, images)
    images = images.sort("image_id")
    pool = images.with_columns(place=places(images["image_id"], spec.seed, f"draw {spec.name}"))
    drawn: dict[str, pl.DataFrame] = {}
    # Roles of a fixed size first: "all" is what they leave.
    for role in sorted(spec.roles, key=lambda role: (spec.roles[role].size == "all", _DRAWING_ORDER.index(role))):
        drawn[role] = _draw(spec, role, pool, list(drawn.values()))
    return in_order(spec, {role: rows.drop("place") for role, rows in drawn.items()})


def in_order(spec: SplitPart, drawn: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Put the rows of every role in the order of the split, and number their labels.

    Args:
        spec: the recipe's `[[split]]`.
        drawn: by role, columns image_id and label, and any others; any order.

    Returns:
        Columns role, rank, image_id, label, label_index, then the others; ordered as `draw_roles` says.
    """
    rows = pl.concat([_ranked(spec, role, drawn[role]) for role in spec.roles])
    names = class_names(rows["label"])
    index = pl.DataFrame(
        {"label": names, "label_index": range(len(names))},
        schema={"label": pl.String, "label_index": pl.Int32},
    )
    first = ("role", "rank", "image_id", "label", "label_index")
    return rows.join(index, on="label", how="left", maintain_order="left").select(*first, pl.exclude(first))


def class_names(labels: pl.Series) -> list[str]:
    """Sort class names: by value where all are whole numbers, else by letter; a missing label is no class."""
    names = labels.drop_nulls().unique().to_list()
    return (
        sorted(names, key=lambda name: (int(name), name)) if all(name.isdecimal() for name in names) else sorted(names)
    )


def quotas(size: int, names: Sequence[str | None]) -> dict[str | None, int]:
    """Share a role's size out evenly; what does not divide goes to the first classes, one each."""
    each, left = divmod(size, len(names))
    return {name: each + (position < left) for position, name in enumerate(names)}


def _draw(spec: SplitPart, role: str, images: pl.DataFrame, taken: Sequence[pl.DataFrame]) -> pl.DataFrame:
    part = spec.roles[role]
    source = images.filter(from_source(part.source_split))
    free = source
    for rows in taken:
        free = free.join(rows.select("image_id"), on="image_id", how="anti")
    if part.size == "all":
        if free.is_empty():
            raise SplitError(
                f"split '{spec.name}': {role} takes all of '{part.source_split}', but the other roles leave nothing. "
                "Give them sizes."
            )
        return free
    # Without any label there is one class, of images without a name; else those without one have no quota to fill.
    wanted = quotas(part.size, class_names(source["label"]) or [None])
    quota = pl.DataFrame(
        {"label": list(wanted), "quota": list(wanted.values())},
        schema={"label": pl.String, "quota": pl.Int64},
    )
    fitting = free.join(quota, on="label", nulls_equal=True)
    have = dict(fitting.group_by("label").len().rows())
    if any(have.get(name, 0) < count for name, count in wanted.items()):
        raise SplitError(too_few(spec.name, role, part, wanted, have))
    return fitting.filter(pl.col("place").rank("ordinal").over("label") <= pl.col("quota")).drop("quota")


def from_source(source_split: str) -> pl.Expr:
    """Select the rows of a source split, by columns dataset and split: "train", or "notmnist/train" for one dataset."""
    dataset, _, split = source_split.rpartition("/")
    return (pl.col("split") == split) & ((pl.col("dataset") == dataset) if dataset else pl.lit(value=True))


def check_sources(spec: SplitPart, images: pl.DataFrame) -> None:
    """Check that every source that a split names is there, so that no word of it is without effect.

    Raises:
        SplitError: a role's source has no images, or no role draws from what `protected` or `trusted` name.
    """
    sources = images.select("dataset", "split").unique()
    for role, part in spec.roles.items():
        if sources.filter(from_source(part.source_split)).is_empty():
            raise SplitError(
                f"split '{spec.name}': {role} takes from '{part.source_split}', which has no images. "
                f"There are: {_listed(sources)}."
            )
    drawn = sources.filter(pl.any_horizontal(from_source(part.source_split) for part in spec.roles.values()))
    known = {*drawn["dataset"], *(f"{dataset}/{split}" for dataset, split in drawn.rows())}
    for does, named in (("protects", set(spec.protected) - set(drawn["dataset"])), ("trusts", {*spec.trusted} - known)):
        if named:
            raise SplitError(
                f"split '{spec.name}' {does} '{min(named)}', but no role draws from it. "
                f"The roles draw from: {_listed(drawn)}."
            )


def _listed(sources: pl.DataFrame) -> str:
    return ", ".join(sorted(f"{dataset}/{split}" for dataset, split in sources.rows())) or "none"


def too_few(
    name: str, role: str, part: RolePart, wanted: Mapping[str | None, int], have: Mapping[str | None, int]
) -> str:
    """Say what a role asks for and what there is, by label."""
    counts = ", ".join(f"{label or 'unlabelled'} {have.get(label, 0)} of {count}" for label, count in wanted.items())
    most = min(have.get(label, 0) for label in wanted) * len(wanted)
    return (
        f"split '{name}': {role} asks for {sum(wanted.values())} images from '{part.source_split}', more than its "
        f'classes have left: {counts}. Ask for at most {most}, or size = "all".'
    )


def _ranked(spec: SplitPart, role: str, rows: pl.DataFrame) -> pl.DataFrame:
    order = places(rows["image_id"], spec.seed, f"rank {spec.name} {role}")
    return (
        rows.with_columns(order=order)
        .sort("order", "image_id")
        .select(
            pl.lit(role).alias("role"),
            pl.int_range(pl.len(), dtype=pl.Int64).alias("rank"),
            pl.exclude("order"),
        )
    )


def places(image_ids: pl.Series, seed: int, purpose: str) -> pl.Series:
    """Give every image a random number of its own to sort by: UInt64, in the order of `image_ids`."""
    ids = np.frombuffer(b"".join(image_ids.to_list()), dtype=np.uint8).reshape(-1, 16)
    return pl.Series(order_keys(ids, seed, purpose))
