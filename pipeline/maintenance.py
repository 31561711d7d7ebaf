"""Look after a lake: its state, its overlap, its history, whatever SQL asks, and what may be deleted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline import storage
from pipeline.builder.build import plan
from pipeline.builder.state import Todo, versions_of_shards
from pipeline.dedup.overlap import label_conflicts, overlap_matrix, redundancy
from pipeline.errors import LakeError, NoReleaseError
from pipeline.lake.releases import find_pins, give_up, list_releases, newest_release, release_versions
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import transaction
from pipeline.lake.vacuum import delete_unneeded_files
from pipeline.lake.writers.heartbeats import registered
from pipeline.lake_handle import Lake
from pipeline.recipe import Recipe, parse_recipe, read_recipe


class Status(NamedTuple):
    """What a lake holds and what its next build would do.

    Attributes:
        release: newest release; 0 where no build has finished.
        tables: columns table, version, rows; as of the release.
        rejects: columns dataset, split, reason, files.
        recipe: the recipe of the next build; empty for an older release, which no build goes on from.
        todo: what it would do, and why.
    """

    release: int
    tables: pl.DataFrame
    rejects: pl.DataFrame
    recipe: str
    todo: list[Todo]


class Overlap(NamedTuple):
    """What occurs where.

    Attributes:
        matrix: columns rule, role, one column a role: images of `role` that occur in it.
        repeats: columns rule, role, clusters, redundant, conflicts.
        conflicts: columns rule, labels (list), images, paths (list), cluster_id: clusters with several labels.
    """

    matrix: pl.DataFrame
    repeats: pl.DataFrame
    conflicts: pl.DataFrame


class Vacuumed(NamedTuple):
    """What a vacuum that gives up releases did, or in a dry run would do.

    Attributes:
        deleted: files, relative to the lake's folder, sorted.
        given_up: releases that are no longer there.
        kept: releases that are.
        pinned: of those kept, the ones that were asked to go, and by release who names it.
        broken: of those given up, by force, by release who names it: it can no longer be looked into.
    """

    deleted: list[str]
    given_up: list[int]
    kept: list[int]
    pinned: Mapping[int, Sequence[str]]
    broken: Mapping[int, Sequence[str]]


def status(root: str, recipe: Path | None = None, release: int | None = None) -> Status:
    """Tell what a lake holds and what the next build would do; or only what a release holds.

    Args:
        root: the lake's folder.
        recipe: recipe of the next build; None for that of the newest release, read again from its file if it is there.
        release: number of a release to look at instead; no build is planned then.

    Raises:
        NoReleaseError: there is no lake, or no finished build and no recipe.
        RecipeError: the recipe has faults.
    """
    known = None if release else read_recipe(recipe) if recipe else last_recipe(root)
    lake = Lake(root, release) if release else _newest_or_working(root)
    shown = lake.versions or lake.snapshot.versions
    rows = [
        (name, version, lake.scan(name).select(pl.len()).collect().item()) for name, version in sorted(shown.items())
    ]
    tables = pl.DataFrame(rows, schema=["table", "version", "rows"], orient="row")
    rejects = lake.scan("rejects").group_by("dataset", "split", "reason").agg(files=pl.len()).sort(pl.all()).collect()
    if known is None:
        return Status(lake.release, tables, rejects, "", [])
    return Status(lake.release, tables, rejects, str(known.file or "the last build's recipe"), plan(known))


def overlap(lake: Lake, split: str | None = None) -> Overlap:
    """Count, rule by rule, what occurs in several roles and what carries several labels.

    Args:
        lake: the lake as of a release.
        split: a named split, whose roles are compared as drawn, before sanitizing; None for the sources' own splits.

    Raises:
        LakeError: the lake has no such split or release.
    """
    members = _members(lake, split)
    clusters = lake.scan("clusters")
    inside = clusters.join(members, on="image_id", how="semi")
    paths = lake.scan("images").select("image_id", "path")
    conflicts = (
        label_conflicts(inside)
        .join(paths, on="image_id", maintain_order="left")
        .group_by("rule", "cluster_id", maintain_order=True)
        .agg(
            labels=pl.col("label").unique().sort(),
            images=pl.len(),
            paths=pl.col("path"),
        )
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
    """Delete files that no release and no unfinished build needs; see `pipeline.lake.vacuum`.

    Raises:
        LakeError: there is no lake, or a build is writing to it.
    """
    if not Snapshot(root).versions:
        raise NoReleaseError(f"{root} holds no lake. Check the path.")
    with registered(root) as writer, transaction(writer) as lake:
        also = versions_of_shards(lake.snapshot)
        return delete_unneeded_files(lake, older_than_hours=older_than_hours, dry_run=dry_run, also=also)


def vacuum_releases(root: str, *, keep_last: int, older_than_hours: int, dry_run: bool, force: bool) -> Vacuumed:
    """Give up all but the newest releases, then delete files that none of the others needs.

    A release that an export names, or the scores of a release that stays, is pinned and stays. Killed between the two
    steps, the lake has the fewer releases, and the next vacuum deletes the files.

    Args:
        root: the lake's folder.
        keep_last: how many of the newest releases stay, at least one.
        older_than_hours: age that a file must have to go.
        dry_run: change nothing.
        force: give up pinned releases too.

    Raises:
        NoReleaseError: there is no lake, or no release.
        LakeError: a build is writing to it.
    """
    release_versions(Snapshot(root))
    with registered(root) as writer, transaction(writer) as lake:
        before = lake.snapshot
        numbers: list[int] = list_releases(before)["release"].to_list()
        older, stay = numbers[: -max(1, keep_last)], numbers[-max(1, keep_last) :]
        pins = {number: by for number, by in find_pins(before, stay).items() if number in older}
        gone = [number for number in older if force or number not in pins]
        if gone and not dry_run:
            give_up(lake, gone)
        also = versions_of_shards(lake.snapshot)
        deleted = delete_unneeded_files(
            lake, older_than_hours=older_than_hours, dry_run=dry_run, also=also, without=gone
        )
        if gone and dry_run and not older_than_hours:
            # Giving up rewrites the releases table, and its present files are not needed any more.
            deleted = sorted([*deleted, *(f"releases/{part.path}" for part in before.files("releases"))])
    kept = [number for number in numbers if number not in gone]
    return Vacuumed(deleted, gone, kept, {} if force else pins, pins if force else {})


def history(root: str) -> pl.DataFrame:
    """List the releases, oldest first.

    Returns:
        Rows of the releases table, and `pinned`: what keeps a release beyond its being the newest, such as `scores of
        4` or `export of main as npz to /data/x`; empty where nothing does.

    Raises:
        NoReleaseError: there is none.
    """
    snapshot = Snapshot(root)
    release_versions(snapshot)
    pins = find_pins(snapshot, [newest_release(snapshot)])
    rows = list_releases(snapshot)
    pinned = pl.Series("pinned", [pins.get(number, []) for number in rows["release"]], pl.List(pl.String))
    return rows.with_columns(pinned)


def _members(lake: Lake, split: str | None) -> pl.LazyFrame:
    if split is None:
        return lake.scan("images").select("image_id", role=pl.format("{}/{}", "dataset", "split"))
    rows = lake.scan("splits").filter(split_name=split).select("image_id", "role")
    if rows.head(1).collect().is_empty():
        names = lake.scan("splits").select("split_name").unique().collect().to_series().sort().to_list()
        raise LakeError(f"{lake.root} has no split '{split}'. Splits: {', '.join(names) or 'none'}.")
    return rows


def last_recipe(root: str) -> Recipe:
    """Read the recipe that a lake was last built with: from its file where that is there, else as the release keeps it.

    Where a lake was moved together with its recipe and sources, these are found again from where it is now.

    Raises:
        NoReleaseError: the lake has no release.
        RecipeError: the file has faults.
    """
    snapshot = Snapshot(root)
    release_versions(snapshot)
    kept: dict[str, Any] = dict(snapshot.metadata("releases").units["recipe"])
    place = storage.resolved(root)
    base = _base_now(place, Path(kept["base"]), Path(kept["values"].get("lake", {}).get("root") or ""))
    named = base / Path(kept["file"]).name if kept["file"] else None
    if named is not None and named.exists():
        recipe = read_recipe(named)
        if recipe.root == place:
            return recipe
    return parse_recipe({**kept["values"], "lake": {"root": place}}, base=base)


def _base_now(place: str, base: Path, inner: Path) -> Path:
    """Find the folder that a recipe's paths start from, where it was moved with its lake.

    Args:
        place: where the lake is.
        base: the folder as it was.
        inner: the lake's folder as the recipe spells it, from there.
    """
    if base.exists() or storage.is_bucket(place) or inner.is_absolute():
        return base
    above = Path(place)
    for part in reversed(inner.parts):
        if above.name != part:
            return base
        above = above.parent
    return above


def _newest_or_working(root: str) -> Lake:
    try:
        return Lake(root)
    except NoReleaseError:
        return Lake.working(Snapshot(root))
