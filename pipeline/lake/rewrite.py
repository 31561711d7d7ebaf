"""Mend a table whose files are damaged: take them out, and make releases again from what their commits tell."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

import schemas
from pipeline.lake.commits import Meta, commit, commit_time, files, metas, read_meta
from pipeline.lake.parquet_writer import write_part
from pipeline.lake.reading import polars_schema, scan_files
from pipeline.lake.releases import GIVEN_UP

# Not "release": by that word releases are counted.
_STAGE = "repair"


def whole_rows(root: str, name: str, damaged: Collection[str], version: int | None = None) -> pl.DataFrame:
    """Read the rows of a table that are in files that are whole.

    Args:
        root: the lake's place.
        name: table name.
        damaged: paths of files that are not read.
        version: Delta version; None for the newest.
    """
    paths = [part.path for part in files(root, name, version) if part.path not in damaged]
    if not paths:
        return polars_schema(schemas.TABLES[name].schema).to_frame()
    return scan_files(root, name, paths).collect()


def replace_rows(root: str, name: str, rows: pl.DataFrame, units: Mapping[str, Any] | None = None) -> None:
    """Replace all rows of a table that has no partitions. The lake must be locked.

    Args:
        root: the lake's place.
        name: table name.
        rows: what it holds from then on.
        units: what its commit tells; None for what the newest one does.
    """
    held = read_meta(root, name)
    part = write_part(root, name, {}, rows.to_arrow().cast(schemas.TABLES[name].schema))
    meta = Meta(_STAGE, held.units if units is None else units, held.inputs)
    commit(root, name, [part] if part else [], lambda _: True, meta)


def drop_files(root: str, name: str, gone: Collection[str], units: Mapping[str, Any] | None = None) -> None:
    """Take files out of a table, to be made again. The lake must be locked.

    Args:
        root: the lake's place.
        name: table name.
        gone: their paths.
        units: as `replace_rows`.
    """
    held = read_meta(root, name)
    meta = Meta(_STAGE, held.units if units is None else units, held.inputs)
    stay = {part.path for part in files(root, name)} - set(gone)
    commit(root, name, [], lambda _: True, meta, keep=stay)


def remake_releases(root: str, damaged: Collection[str], digests: Mapping[int, str]) -> list[int]:
    """Make the rows of releases again that are in damaged files. The lake must be locked.

    Every build that published a release told in its commit which versions it is of, and from which recipe. The note is
    lost, and the time is that of the commit.

    Args:
        root: the lake's place.
        damaged: paths of the files.
        digests: by release, digest of its recipe; see `told_recipes`.

    Returns:
        The releases that were made again.
    """
    rows = whole_rows(root, "releases", damaged)
    given_up = read_meta(root, "releases").units.get(GIVEN_UP, {})
    known = {str(number) for number in rows["release"]} | set(given_up)
    made = [
        {
            "release": number,
            "versions": [{"table": name, "version": of} for name, of in sorted(meta.inputs.items())],
            "recipe_digest": digests.get(number, ""),
            "created_at": datetime.fromtimestamp(commit_time(root, "releases", version) / 1000, UTC),
            "note": "made again by build --repair: what its build did is lost",
        }
        for number, version, meta in _published(root)
        if str(number) not in known
    ]
    new = pl.DataFrame(pa.Table.from_pylist(made, schema=schemas.TABLES["releases"].schema))
    replace_rows(root, "releases", pl.concat([rows, new]).sort("release"))
    return sorted(new["release"].to_list())


def told_recipes(root: str) -> dict[int, Mapping[str, Any]]:
    """By release, what its commit keeps of its recipe."""
    return {number: meta.units["recipe"] for number, _, meta in _published(root) if "recipe" in meta.units}


def told_versions(root: str) -> dict[int, dict[str, int]]:
    """By release, the versions of the tables that its commit tells; of those that were given up too."""
    return {number: dict(meta.inputs) for number, _, meta in _published(root)}


def _published(root: str) -> list[tuple[int, int, Meta]]:
    """List commits that published a release: its number, the commit's version, and what was told with it.

    Releases are counted from 1, and the newest is never given up: the number is that of commits so far.
    """
    told = [(version, meta) for version, meta in metas(root, "releases") if meta.stage == "release" and meta.inputs]
    return [(number, version, meta) for number, (version, meta) in enumerate(reversed(told), start=1)]
