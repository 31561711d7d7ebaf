"""Draw the images of every role: quotas by class, an order by seed, neither dependent on how files are listed."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from pipeline.errors import SplitError
from pipeline.mixing import order_keys
from pipeline.recipe import RolePart, SplitPart

# Roles that share a source draw in this order, so that a larger train set takes nothing from valid and test.
_DRAWING_ORDER = ("test", "valid", "train")


def draw_roles(spec: SplitPart, images: pl.DataFrame) -> pl.DataFrame:
    """Draw every role of a split.

    An image's place depends on its id and the seed alone: a new image takes at most its own place.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns image_id, label, dataset, split; any order.

    Returns:
        Columns role, rank, image_id, label, label_index; ordered by role (as the recipe's roles stand) and rank. The
        rank is a random order, so classes are mixed and every prefix is a random sample. Label indices follow the
        sorted class names.

    Raises:
        SplitError: a source split is not there, or a class has too few images for its quota; all classes are counted.
    """
    images = images.sort("image_id")
    pool = images.with_columns(place=_places(images["image_id"], spec.seed, f"draw {spec.name}"))
    drawn: dict[str, pl.DataFrame] = {}
    # Roles of a fixed size first: "all" is what they leave.
    for role in sorted(spec.roles, key=lambda role: (spec.roles[role].size == "all", _DRAWING_ORDER.index(role))):
        drawn[role] = _draw(spec, role, pool, list(drawn.values()))
    rows = pl.concat([_ranked(spec, role, drawn[role]) for role in spec.roles])
    names = class_names(rows["label"])
    index = pl.DataFrame(
        {"label": names, "label_index": range(len(names))},
        schema={"label": pl.String, "label_index": pl.Int32},
    )
    return rows.join(index, on="label", how="left", maintain_order="left").select(
        "role", "rank", "image_id", "label", "label_index"
    )


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
    if source.is_empty():
        there = sorted({f"{dataset}/{split}" for dataset, split in images.select("dataset", "split").unique().rows()})
        raise SplitError(
            f"split '{spec.name}': {role} takes from '{part.source_split}', which has no images. "
            f"There are: {', '.join(there) or 'none'}."
        )
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
        raise SplitError(_too_few(spec.name, role, part, wanted, have))
    return fitting.filter(pl.col("place").rank("ordinal").over("label") <= pl.col("quota")).drop("quota")


def from_source(source_split: str) -> pl.Expr:
    """Select the rows of a source split, by columns dataset and split: "train", or "notmnist/train" for one dataset."""
    dataset, _, split = source_split.rpartition("/")
    return (pl.col("split") == split) & ((pl.col("dataset") == dataset) if dataset else pl.lit(value=True))


def _too_few(
    name: str, role: str, part: RolePart, wanted: Mapping[str | None, int], have: Mapping[str | None, int]
) -> str:
    counts = ", ".join(f"{label or 'unlabelled'} {have.get(label, 0)} of {count}" for label, count in wanted.items())
    most = min(have.get(label, 0) for label in wanted) * len(wanted)
    return (
        f"split '{name}': {role} asks for {part.size} images from '{part.source_split}', more than its classes have "
        f'left: {counts}. Ask for at most {most}, or size = "all".'
    )


def _ranked(spec: SplitPart, role: str, rows: pl.DataFrame) -> pl.DataFrame:
    order = _places(rows["image_id"], spec.seed, f"rank {spec.name} {role}")
    return (
        rows.with_columns(order=order)
        .sort("order", "image_id")
        .select(
            pl.lit(role).alias("role"),
            pl.int_range(pl.len(), dtype=pl.Int64).alias("rank"),
            "image_id",
            "label",
        )
    )


def _places(image_ids: pl.Series, seed: int, purpose: str) -> pl.Series:
    ids = np.frombuffer(b"".join(image_ids.to_list()), dtype=np.uint8).reshape(-1, 16)
    return pl.Series(order_keys(ids, seed, purpose))
