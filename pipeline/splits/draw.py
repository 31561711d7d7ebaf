"""Draw the images of every role: quotas per class, in a random order that does not depend on how files are named.

An image's random number depends on the seed and on its file, not on its path. This module draws single images. `groups`
draws whole groups of linked images.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl

from pipeline.arrow_columns import from_binary
from pipeline.errors import SplitError
from pipeline.hashing import Words, mix64, order_keys
from pipeline.recipe import RolePart, SplitPart
from pipeline.splits.previous import IDENTITY

# Roles that share a source are drawn in this order, so that a larger train role takes nothing from valid and test.
_DRAWING_ORDER = ("test", "valid", "train")
# Shares may add up to 1 with this tolerance.
SHARE_TOLERANCE = 1e-9

# The column whose value decides an image's random number.
DrawnBy = Literal["file_digest", "content_hash"]


def draw_roles(spec: SplitPart, images: pl.DataFrame, by: DrawnBy = "file_digest") -> pl.DataFrame:
    """Draw every role of a split.

    Roles with a share come first. The random number of a file decides: the shares divide the range from 0 to 1, test
    first, then valid, then train, and an image has the role whose part contains its number. So its role depends on its
    file, the seed, the name of the split, and its source only, and equal files have one role. Then roles with a size
    are drawn from the other images, evenly over the classes, in the order of the random numbers; of equal files, the
    one with the smallest id is first. So a renamed file keeps its place, and adding an image changes at most one place.
    A role that takes all gets the images that are left.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns image_id (ids, or numbers in their order), label, dataset, split and `by`; any order.
        by: the column that the random numbers are made from: file_digest or content_hash.

    Returns:
        Columns role, rank, image_id, label, label_index, dataset, split; ordered by role (in the order of the recipe)
        and rank. The rank is a random order, so classes are mixed and every prefix is a random sample. Label indices
        follow the sorted class names.

    Raises:
        SplitError: a source split does not exist; a class has too few images for its quota (the message lists all
            classes); shares add up to more than 1; `protected` or `trusted` names a source that no role draws from.
    """
    check_sources(spec, images)
    images = with_picture(images.filter(in_pool(spec)), by).sort("image_id")
    pool = images.with_columns(key=pl.Series(random_keys(images["picture"], spec.seed, f"draw {spec.name}")))
    drawn = _draw_shares(spec, pool)
    # Roles of a fixed size first; "all" takes the images that are left.
    others = [role for role in _DRAWING_ORDER if role in spec.roles and role not in drawn]
    for role in sorted(others, key=lambda role: spec.roles[role].size == "all"):
        drawn[role] = _draw_role(spec, role, pool, list(drawn.values()))
    return rank_rows(spec, {role: rows.drop("key") for role, rows in drawn.items()})


def in_pool(spec: SplitPart) -> pl.Expr:
    """Select the images that a split may draw, by columns dataset and split."""
    return pl.any_horizontal(from_source(part.source_split) for part in spec.roles.values())


def draw_column(spec: SplitPart, images: pl.LazyFrame) -> DrawnBy:
    """Choose what a new split is drawn by: the digest of files, or the pixels if it may draw images without a digest.

    Args:
        spec: the recipe's `[[split]]`.
        images: columns dataset, split, file_digest.
    """
    missing = images.filter(in_pool(spec)).select(pl.col("file_digest").is_null().any()).collect().item()
    return "content_hash" if missing else "file_digest"


def with_picture(images: pl.DataFrame, by: DrawnBy) -> pl.DataFrame:
    """Replace file_digest and content_hash by the column `picture`: the first 16 bytes of one of them."""
    return images.with_columns(picture=pl.col(by).bin.slice(0, 16)).drop(IDENTITY, strict=False)


def rank_rows(spec: SplitPart, drawn: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Order the rows of every role randomly and number their labels.

    Args:
        spec: the recipe's `[[split]]`.
        drawn: by role, columns image_id, label and picture, and any others; any order.

    Returns:
        Columns role, rank, image_id, label, label_index, then the others but picture; ordered as `draw_roles` does.
    """
    rows = pl.concat([_rank_role(spec, role, drawn[role]) for role in spec.roles])
    names = class_names(rows["label"])
    index = pl.DataFrame({"label": names, "label_index": range(len(names))}).cast(
        {"label": rows.schema["label"], "label_index": pl.Int32}
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
    drawn = sources.filter(in_pool(spec))
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
        f"split '{name}': {role} requests {sum(wanted.values())} images from '{part.source_split}', more than its "
        f'classes have left: {counts}. Request at most {most}, or size = "all".'
    )


def random_keys(pictures: pl.Series, seed: int, purpose: str) -> Words:
    """Compute a random number for every picture: (n,) uint64, in the order of `pictures`; see `order_keys`."""
    return order_keys(from_binary(pictures.to_arrow(), 16), seed, purpose)


def shares_error(spec: SplitPart, role: str, total: float) -> SplitError:
    """Make the error that the shares of the source of a role add up to more than 1."""
    return SplitError(
        f"split '{spec.name}': the shares of '{spec.roles[role].source_split}' add up to {total:g}. Reduce them to at "
        "most 1 in total."
    )


def _draw_shares(spec: SplitPart, pool: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Draw the roles that have a share. Test has the lowest numbers, so that no other share changes it."""
    # 53 bits, as many as a float64 has: below 1 in any case.
    number = (pool["key"].to_numpy() >> np.uint64(11)) * 2.0**-53
    end = np.zeros(len(pool))
    drawn = {}
    for role in _DRAWING_ORDER:
        share = spec.roles[role].share if role in spec.roles else None
        if share is None:
            continue
        may_draw = pool.select(from_source(spec.roles[role].source_split)).to_series().to_numpy()
        start, end = end, np.where(may_draw, end + share, end)
        end[np.abs(end - 1) <= SHARE_TOLERANCE] = 1
        if end.max(initial=0) > 1:
            raise shares_error(spec, role, float(end.max()))
        drawn[role] = pool.filter(pl.Series(may_draw & (start <= number) & (number < end)))
    return drawn


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
    quota = pl.DataFrame({"label": list(wanted), "quota": list(wanted.values())}).cast(
        {"label": source.schema["label"], "quota": pl.Int64}
    )
    fitting = free.join(quota, on="label", nulls_equal=True)
    available = dict(fitting.group_by("label").len().rows())
    if any(available.get(name, 0) < count for name, count in wanted.items()):
        raise SplitError(too_few_message(spec.name, role, part, wanted, available))
    return fitting.filter(pl.col("key").rank("ordinal").over("label") <= pl.col("quota")).drop("quota")


def _rank_role(spec: SplitPart, role: str, rows: pl.DataFrame) -> pl.DataFrame:
    rows = rows.sort("image_id")
    keys = random_keys(rows["picture"], spec.seed, f"rank {spec.name} {role}")
    copies = _count_copies(rows["picture"], keys)
    # Equal files must not be neighbours: a prefix would no longer be a random sample.
    return (
        rows.with_columns(order=pl.Series(np.where(copies == 0, keys, mix64(keys + copies))))
        .sort("order", "image_id")
        .select(
            pl.lit(role).alias("role"),
            pl.int_range(pl.len(), dtype=pl.Int64).alias("rank"),
            pl.exclude("order", "picture"),
        )
    )


def _count_copies(pictures: pl.Series, keys: Words) -> Words:
    """Count, for each picture, the equal ones before it: (n,) uint64. Equal pictures have equal keys."""
    copies = np.zeros(len(keys), np.uint64)
    ordered = np.sort(keys)
    repeated = np.isin(keys, ordered[1:][ordered[1:] == ordered[:-1]])
    among = pictures.filter(pl.Series(repeated)).to_frame("picture")
    copies[repeated] = among.select(pl.int_range(pl.len(), dtype=pl.UInt64).over("picture")).to_series().to_numpy()
    return copies


def _source_names(sources: pl.DataFrame) -> str:
    return ", ".join(sorted(f"{dataset}/{split}" for dataset, split in sources.rows())) or "none"
