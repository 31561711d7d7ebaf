"""Read the attributes that a lake stores: their types, digests and values, and the groups of equal values."""

import polars as pl

from pipeline.errors import SplitError
from pipeline.lake.snapshot import Snapshot
from pipeline.sources.attribute_types import EXIF, common_type, from_text

ATTRIBUTES = "attributes"


def attribute_types(snapshot: Snapshot) -> dict[str, str]:
    """Return the type of every attribute of the lake, by name; see `pipeline.sources.attribute_types.TYPES`."""
    kinds: dict[str, list[str]] = {}
    for unit in snapshot.metadata(ATTRIBUTES).units.values():
        for name, described in unit["names"].items():
            kinds.setdefault(name, []).append(described["type"])
    return {name: common_type(found) for name, found in sorted(kinds.items())}


def attribute_digests(snapshot: Snapshot, name: str) -> dict[str, str]:
    """Return, by dataset, the digest of all values of an attribute; splits that use it depend on them."""
    units = snapshot.metadata(ATTRIBUTES).units
    return {dataset: unit["names"][name]["digest"] for dataset, unit in units.items() if name in unit["names"]}


def read_values(snapshot: Snapshot, name: str, *, needed_by: str) -> pl.DataFrame:
    """Read the values of an attribute. `taken_at` and `camera` are read from originals if no file gives them.

    Args:
        snapshot: the lake.
        name: name of the attribute.
        needed_by: what needs it, for the message.

    Returns:
        Columns image_id and value, of the attribute's type; an image has a row for each of its values.

    Raises:
        SplitError: the lake has no such attribute.
    """
    types = attribute_types(snapshot)
    if name not in types and name in EXIF:
        of_originals = snapshot.scan("originals").select("image_id", value=name).drop_nulls().collect()
        if len(of_originals):
            return of_originals
    if name not in types:
        listed = ", ".join(types) or "none; add an [[attributes]] to the recipe"
        raise SplitError(f"{needed_by} needs the attribute '{name}', which no image has. Attributes: {listed}.")
    rows = snapshot.scan(ATTRIBUTES).filter(pl.col("name") == name)
    return rows.select("image_id", from_text(pl.col("value"), types[name])).collect()


def value_groups(values: pl.DataFrame) -> pl.DataFrame:
    """Make a group of the images that have one value, like rows of the clusters table.

    Args:
        values: columns image_id and value; an image with several values is in several groups.

    Returns:
        Columns cluster_id, the smallest image id of the group, and image_id. Values of a single image are left out.
    """
    return (
        values.with_columns(cluster_id=pl.col("image_id").min().over("value"))
        .filter(pl.len().over("value") > 1)
        .select("cluster_id", "image_id")
    )
