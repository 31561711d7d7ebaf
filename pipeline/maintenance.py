"""Maintain a lake: its status, history and overlap between roles, and deleting old releases and unneeded files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline import storage
from pipeline.addresses import redacted_text
from pipeline.builder.build import plan
from pipeline.builder.state import Todo, versions_of_shards
from pipeline.dedup.clusters import label_conflicts, overlap_matrix, redundancy
from pipeline.errors import DamagedLakeError, LakeError, NoReleaseError
from pipeline.lake.reads import explain_failures
from pipeline.lake.releases import delete_releases, find_pins, list_releases, newest_release, release_versions
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import transaction
from pipeline.lake.vacuum import delete_unneeded_files
from pipeline.lake.writers.heartbeats import registered
from pipeline.lake_handle import Lake
from pipeline.recipe import RECIPE_FILE, Recipe, parse_recipe, read_recipe


class Status(NamedTuple):
    """The content of a lake, and the plan of its next build.

    Attributes:
        release: number of the release; 0 if no build has finished.
        tables: columns table, version, rows; of the release.
        rejects: columns dataset, split, reason, files.
        recipe: the recipe of the next build; empty if a release was given.
        todo: what the next build would do, and why; empty if a release was given.
    """

    release: int
    tables: pl.DataFrame
    rejects: pl.DataFrame
    recipe: str
    todo: list[Todo]


class Overlap(NamedTuple):
    """Duplicates between and inside roles, and label conflicts.

    Attributes:
        matrix: columns rule, role, and one for each role: how many images of `role` have a duplicate in it.
        repeats: columns rule, role, clusters, redundant, conflicts.
        conflicts: columns rule, labels (list), images, paths (list), cluster_id: one row a cluster with several labels.
    """

    matrix: pl.DataFrame
    repeats: pl.DataFrame
    conflicts: pl.DataFrame


class Vacuumed(NamedTuple):
    """What a vacuum did, or would do in a dry run.

    Attributes:
        deleted: deleted files, relative to the lake's place, sorted.
        deleted_releases: numbers of deleted releases.
        kept: releases that stay.
        pinned: by older release that stays because it is pinned, the exports and scores that pin it.
        broken: by pinned release that was deleted by force, the exports and scores that pinned it.
    """

    deleted: list[str]
    deleted_releases: list[int]
    kept: list[int]
    pinned: Mapping[int, Sequence[str]]
    broken: Mapping[int, Sequence[str]]


def status(root: str, recipe: Path | None = None, release: int | None = None) -> Status:
    """Return the content of a lake and the plan of the next build; with a release, only its content.

    Args:
        root: the lake's place.
        recipe: recipe of the next build; None for that of the newest release, read from its file if that exists.
        release: number of a release; None for the newest one and the plan.

    Raises:
        NoReleaseError: there is no lake, no such release, or no finished build and no recipe.
        RecipeError: the recipe is not valid.
        SourceError: a source cannot be read.
    """
    known = None if release else read_recipe(recipe) if recipe else last_recipe(root)
    lake = Lake(root, release) if release else _newest_lake(root)
    shown = lake.versions or lake.snapshot.versions
    rows = [
        (name, version, lake.scan(name).select(pl.len()).collect().item()) for name, version in sorted(shown.items())
    ]
    tables = pl.DataFrame(rows, schema=["table", "version", "rows"], orient="row")
    rejects = lake.scan("rejects").group_by("dataset", "split", "reason").agg(files=pl.len()).sort(pl.all()).collect()
    if known is None:
        return Status(lake.release, tables, rejects, "", [])
    return Status(lake.release, tables, rejects, str(known.file or "the last build's recipe"), plan(known))


@explain_failures
def overlap(lake: Lake, split: str | None = None) -> Overlap:
    """Count, for each rule, the duplicates between and inside roles, and the clusters with several labels.

    Args:
        lake: the lake of a release.
        split: a named split, whose roles before sanitizing are compared; None for the splits of the sources.

    Raises:
        LakeError: the lake has no such split.
    """
    members = _members(lake, split)
    clusters = lake.scan("clusters")
    inside = clusters.join(members, on="image_id", how="semi")
    paths = lake.scan("images").select("image_id", "path")
    conflicts = (
        label_conflicts(inside)
        .join(paths, on="image_id", maintain_order="left")
        .group_by("rule", "cluster_id", maintain_order=True)
        .agg(labels=pl.col("label").unique().sort(), images=pl.len(), paths=pl.col("path"))
        .select("rule", "labels", "images", "paths", "cluster_id")
        .collect()
    )
    matrix = overlap_matrix(clusters, members)
    wide = (
        matrix.pivot("other", index=["rule", "role"], values="images", sort_columns=True).fill_null(0)
        if len(matrix)
        else matrix
    )
    return Overlap(wide, redundancy(clusters, members), conflicts)


def vacuum(root: str, *, older_than_hours: int, dry_run: bool) -> list[str]:
    """Delete files that no release and no running build needs; see `pipeline.lake.vacuum`.

    Args:
        root: the lake's place.
        older_than_hours: minimum age of a file to be deleted.
        dry_run: delete nothing; only list the files.

    Returns:
        Deleted files, relative to the lake's place, sorted.

    Raises:
        NoReleaseError: there is no lake.
        BusyLakeError: another writer holds the lock.
        LakeError: a table cannot be read.
        StorageError: a bucket does not answer.
    """
    if not Snapshot(root).versions:
        raise NoReleaseError(f"{root} holds no lake. Check the path.")
    with registered(root) as writer, transaction(writer) as lake:
        also = versions_of_shards(lake.snapshot)
        return delete_unneeded_files(lake, older_than_hours=older_than_hours, dry_run=dry_run, also=also)


def vacuum_releases(root: str, *, keep_last: int, older_than_hours: int, dry_run: bool, force: bool) -> Vacuumed:
    """Delete all but the newest releases, then the files that no other release needs.

    A release is pinned, and kept, if an export or the scores of a newer kept release refer to it. If the process is
    killed between the two steps, the releases are gone and the next vacuum deletes the files.

    Args:
        root: the lake's place.
        keep_last: number of newest releases to keep, at least one.
        older_than_hours: minimum age of a file to be deleted.
        dry_run: change nothing.
        force: delete pinned releases too.

    Raises:
        NoReleaseError: there is no lake, or no release.
        BusyLakeError: another writer holds the lock.
        LakeError: a table cannot be read.
        StorageError: a bucket does not answer.
    """
    release_versions(Snapshot(root))
    with registered(root) as writer, transaction(writer) as lake:
        before = lake.snapshot
        numbers: list[int] = list_releases(before)["release"].to_list()
        older, newest = numbers[: -max(1, keep_last)], numbers[-max(1, keep_last) :]
        pins = {number: by for number, by in find_pins(before, newest).items() if number in older}
        gone = [number for number in older if force or number not in pins]
        if gone and not dry_run:
            delete_releases(lake, gone)
        also = versions_of_shards(lake.snapshot)
        deleted = delete_unneeded_files(
            lake, older_than_hours=older_than_hours, dry_run=dry_run, also=also, without=gone
        )
        if gone and dry_run and not older_than_hours:
            # Deleting releases would replace the files of the releases table.
            deleted = sorted([*deleted, *(f"releases/{part.path}" for part in before.files("releases"))])
    kept = [number for number in numbers if number not in gone]
    return Vacuumed(deleted, gone, kept, {} if force else pins, pins if force else {})


def history(root: str) -> pl.DataFrame:
    """List the releases, oldest first.

    Args:
        root: the lake's place.

    Returns:
        Rows of the releases table, and `pinned`: what pins the release, such as `scores of 4` or `export of main as npz
        to /data/x`; an empty list if nothing does.

    Raises:
        NoReleaseError: there is no lake, or no release.
    """
    snapshot = Snapshot(root)
    release_versions(snapshot)
    pins = find_pins(snapshot, [newest_release(snapshot)])
    rows = list_releases(snapshot)
    pinned = pl.Series("pinned", [pins.get(number, []) for number in rows["release"]], pl.List(pl.String))
    # Notes of version 0.5 may quote secrets of addresses.
    notes = pl.Series("note", list(map(redacted_text, rows["note"])), pl.String)
    return rows.with_columns(notes, pinned)


def _members(lake: Lake, split: str | None) -> pl.LazyFrame:
    if split is None:
        return lake.scan("images").select("image_id", role=pl.format("{}/{}", "dataset", "split"))
    rows = lake.scan("splits").filter(split_name=split).select("image_id", "role")
    if rows.head(1).collect().is_empty():
        names = lake.scan("splits").select("split_name").unique().collect().to_series().sort().to_list()
        raise LakeError(f"{lake.root} has no split '{split}'. Splits: {', '.join(names) or 'none'}.")
    return rows


def last_recipe(root: str) -> Recipe:
    """Read the recipe of the last build: from its file if that exists, else from the commit of the release.

    If releases cannot be read, it is the file `recipe.toml` of the lake, which a build without a recipe has written.

    If the lake was moved together with its recipe and sources, they are found from its new place.

    Args:
        root: the lake's place.

    Raises:
        NoReleaseError: the lake has no release.
        RecipeError: the recipe is not valid.
    """
    snapshot = Snapshot(root)
    try:
        release_versions(snapshot)
        recorded: dict[str, Any] = dict(snapshot.metadata("releases").units["recipe"])
    except DamagedLakeError:
        if storage.is_bucket(root) or not (inferred := Path(root, RECIPE_FILE)).exists():
            raise
        return read_recipe(inferred)
    place = storage.resolved(root)
    base = _moved_base(place, Path(recorded["base"]), Path(recorded["values"].get("lake", {}).get("root") or ""))
    file = base / Path(recorded["file"]).name if recorded["file"] else None
    if file is not None and file.exists():
        recipe = read_recipe(file)
        if recipe.root == place:
            return recipe
    return parse_recipe({**recorded["values"], "lake": {"root": place}}, base=base)


def _moved_base(place: str, base: Path, inner: Path) -> Path:
    """Find the folder that a recipe's paths are relative to, if it was moved together with its lake.

    Args:
        place: the lake's present place.
        base: the folder before.
        inner: the lake's folder relative to `base`, as the recipe has it.
    """
    if base.exists() or storage.is_bucket(place) or inner.is_absolute():
        return base
    above = Path(place)
    for part in reversed(inner.parts):
        if above.name != part:
            return base
        above = above.parent
    return above


def _newest_lake(root: str) -> Lake:
    """Open the newest release; without a release, the newest version of every table."""
    try:
        return Lake(root)
    except NoReleaseError:
        return Lake.working(Snapshot(root))
