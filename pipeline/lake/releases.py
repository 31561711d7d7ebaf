"""Releases: sets of table versions that belong together. One row in `releases` makes a finished build visible."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

import schemas
from pipeline.errors import NoReleaseError
from pipeline.lake.commits import Meta, commit, ensure_table, versions
from pipeline.lake.parts import write_part
from pipeline.lake.reading import scan_table


def list_releases(root: str) -> pl.DataFrame:
    """List every release of a lake, oldest first.

    Returns:
        Rows of the releases table; none where nothing was finished yet.
    """
    return scan_table(root, "releases", None).sort("release").collect()


def newest(root: str) -> int:
    """Number of the newest release; 0 where there is none."""
    numbers: list[int] = list_releases(root)["release"].to_list()
    return numbers[-1] if numbers else 0


def release_versions(root: str, number: int | None = None) -> tuple[int, dict[str, int]]:
    """Tell which table versions a release is made of.

    Args:
        root: the lake's folder.
        number: the release; None for the newest.

    Returns:
        The release's number, and version by table name.

    Raises:
        NoReleaseError: there is no such release, or none at all.
    """
    rows = list_releases(root)
    if rows.is_empty():
        raise NoReleaseError(f"{root} holds no finished build. Check the path, or run: imagelake build RECIPE.toml")
    numbers: list[int] = rows["release"].to_list()
    wanted = numbers[-1] if number is None else number
    found = rows.filter(pl.col("release") == wanted)
    if found.is_empty():
        raise NoReleaseError(
            f"{root} has no release {wanted}; it has {numbers[0]} to {numbers[-1]}. See: imagelake history {root}"
        )
    return wanted, {item["table"]: item["version"] for item in found["versions"].to_list()[0]}


def publish(root: str, recipe_digest: str, note: str, recipe: Mapping[str, Any]) -> int | None:
    """Make the tables as they stand the newest release, unless they and the recipe are those of the last one.

    Args:
        root: the lake's folder.
        recipe_digest: digest of the recipe that was built.
        note: what the build did.
        recipe: the recipe itself, kept with the commit so that the lake tells how it is made.

    Returns:
        The new release's number; None where nothing had changed and so nothing was committed.
    """
    past = list_releases(root)
    for name in schemas.TABLES:
        ensure_table(root, name)
    current = {name: version for name, version in versions(root).items() if name != "releases"}
    if not past.is_empty() and release_versions(root)[1] == current and past["recipe_digest"].last() == recipe_digest:
        return None
    number = newest(root) + 1
    row = {
        "release": number,
        "versions": [{"table": name, "version": version} for name, version in sorted(current.items())],
        "recipe_digest": recipe_digest,
        "created_at": datetime.now(UTC),
        "note": note,
    }
    part = write_part(root, "releases", {}, pa.Table.from_pylist([row], schema=schemas.TABLES["releases"].schema))
    commit(
        root,
        "releases",
        [part] if part else [],
        lambda _: False,
        Meta("release", {"recipe": recipe}, current),
    )
    return number
