"""Draw the images of every role: quotas per class, in a random order that does not depend on how files are listed.

This module draws single images. `groups` draws whole groups of linked images.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from pipeline.errors import SplitError
from pipeline.hashing import order_keys
from pipeline.recipe import RolePart, SplitPart

# Roles that share a source are drawn in this order, so that a larger train role takes nothing from valid and test.
_DRAWING_ORDER = ("test", "valid", "train")


def draw_roles(spec: SplitPart, images: pl.DataFrame) -> pl.DataFrame:
    """Draw every role of a split.

    An image's random key depends on its id and the seed only, so adding an image changes at most one place.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns image_id, label, dataset, split; any order.

    Returns:
        Columns role, rank, image_id, label, label_index, dataset, split; ordered by role (in the order of the recipe)
        and rank. The rank is a random order, so classes are mixed and every prefix is a random sample. Label indices
        follow the sorted class names.

    Raises:
        SplitError: a source split does not exist; a class has too few images for its quota (the message lists all
            classes); `protected` or `trusted` names a source that no role draws from.
    """
    check_sources(spec, images)
    images = images.sort("image_id")
    pool = images.with_columns(key=random_keys(images["image_id"], spec.seed, f"draw {spec.name}"))
    drawn: dict[str, pl.DataFrame] = {}
    # Roles of a fixed size first; "all" takes the images that are left.
    for role in sorted(spec.roles, key=lambda role: (spec.roles[role].size == "all", _DRAWING_ORDER.index(role))):
        drawn[role] = _draw_role(spec, role, pool, list(drawn.values()))
    return rank_rows(spec, {role: rows.drop("key") for role, rows in drawn.items()})


def rank_rows(spec: SplitPart, drawn: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Order the rows of every role randomly and number their labels.

    Args:
        spec: the recipe's `[[split]]`.
        drawn: by role, columns image_id and label, and any others; any order.

    Returns:
        Columns role, rank, image_id, label, label_index, then the others; ordered as `draw_roles` does.
    """
    rows = pl.concat([_rank_role(spec, role, drawn[role]) for role in spec.roles])
    names = class_names(rows["label"])
    index = pl.DataFrame(
        {"label": names, "label_index": range(len(names))}, schema={"label": pl.String, "label_index": pl.Int32}
    )
    first = ("role", "rank", "image_id", "label", "label_index")
    return rows.join(index, on="label", how="left", maintain_order="left").select(*first, pl.exclude(first))


def class_names(labels: pl.Series) -> list[str]:
    """Sort the distinct labels: by value if all are integers, else alphabetically. Missing labels are ignored."""
    names = labels.drop_nulls().unique().to_list()
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def quotas(size: int, names: Sequence[str | None]) -> dict[str | None, int]:
    """Distribute a role's size evenly over classes; the first classes get one more each if it does not divide."""
    quota, remainder = divmod(size, len(names))
    return {name: quota + (position < remainder) for position, name in enumerate(names)}


def from_source(source_split: str) -> pl.Expr:
    """Select the rows of a source split by columns dataset and split.

    Args:
        source_split: "train", or "notmnist/train" for one dataset.
    """
    dataset, _, split = source_split.rpartition("/")
    return (pl.col("split") == split) & ((pl.col("dataset") == dataset) if dataset else pl.lit(value=True))


def check_sources(spec: SplitPart, images: pl.DataFrame) -> None:
    """Check that every source that a split names exists and is used.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns dataset and split.

    Raises:
        SplitError: a role's source has no images, or no role draws from a source in `protected` or `trusted`.
    """
    sources = images.select("dataset", "split").unique()
    for role, part in spec.roles.items():
        if sources.filter(from_source(part.source_split)).is_empty():
            raise SplitError(
                f"split '{spec.name}': {role} takes from '{part.source_split}', which has no images. "
                f"There are: {_source_names(sources)}."
            )
    drawn = sources.filter(pl.any_horizontal(from_source(part.source_split) for part in spec.roles.values()))
    known = {*drawn["dataset"], *(f"{dataset}/{split}" for dataset, split in drawn.rows())}
    unused = {"protects": set(spec.protected) - set(drawn["dataset"]), "trusts": {*spec.trusted} - known}
    for verb, names in unused.items():
        if names:
            raise SplitError(
                f"split '{spec.name}' {verb} '{min(names)}', but no role draws from it. "
                f"The roles draw from: {_source_names(drawn)}."
            )


def too_few_message(
    name: str, role: str, part: RolePart, wanted: Mapping[str | None, int], available: Mapping[str | None, int]
) -> str:
    """Write the message that a role's source has too few images, with the counts of every label."""
    counts = ", ".join(f"{label or 'unlabelled'} {available.get(label, 0)} of {n}" for label, n in wanted.items())
    most = min(available.get(label, 0) for label in wanted) * len(wanted)
    return (
        f"split '{name}': {role} asks for {sum(wanted.values())} images from '{part.source_split}', more than its "
        f'classes have left: {counts}. Ask for at most {most}, or size = "all".'
    )


def random_keys(image_ids: pl.Series, seed: int, purpose: str) -> pl.Series:
    """Compute a random number for every image to sort by: UInt64, in the order of `image_ids`; see `order_keys`."""
    ids = np.frombuffer(b"".join(image_ids.to_list()), dtype=np.uint8).reshape(-1, 16)
    return pl.Series(order_keys(ids, seed, purpose))


def _draw_role(spec: SplitPart, role: str, pool: pl.DataFrame, taken: Sequence[pl.DataFrame]) -> pl.DataFrame:
    part = spec.roles[role]
    source = pool.filter(from_source(part.source_split))
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
    # If no image has a label, all are one class. Else images without a label are not drawn.
    wanted = quotas(part.size, class_names(source["label"]) or [None])
    quota = pl.DataFrame(
        {"label": list(wanted), "quota": list(wanted.values())}, schema={"label": pl.String, "quota": pl.Int64}
    )
    fitting = free.join(quota, on="label", nulls_equal=True)
    available = dict(fitting.group_by("label").len().rows())
    if any(available.get(name, 0) < count for name, count in wanted.items()):
        raise SplitError(too_few_message(spec.name, role, part, wanted, available))
    return fitting.filter(pl.col("key").rank("ordinal").over("label") <= pl.col("quota")).drop("quota")


def _rank_role(spec: SplitPart, role: str, rows: pl.DataFrame) -> pl.DataFrame:
    return (
        rows.with_columns(order=random_keys(rows["image_id"], spec.seed, f"rank {spec.name} {role}"))
        .sort("order", "image_id")
        .select(pl.lit(role).alias("role"), pl.int_range(pl.len(), dtype=pl.Int64).alias("rank"), pl.exclude("order"))
    )


def _source_names(sources: pl.DataFrame) -> str:
    return ", ".join(sorted(f"{dataset}/{split}" for dataset, split in sources.rows())) or "none"
