"""Releases: sets of table versions that belong together. A row in `releases` makes a finished build visible.

A pin keeps vacuum from deleting a release: an export names it, or scores or predictions of a release that is kept do.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

import schemas
from pipeline import storage
from pipeline.arrow_columns import to_table
from pipeline.errors import DamagedLakeError, LakeError, NoReleaseError
from pipeline.lake.delta_log import DeltaLog, Metadata, digest_of_file
from pipeline.lake.snapshot import MISSING, Snapshot
from pipeline.lake.transaction import Commit, Transaction, all_files

# The key in the metadata of `releases`: by deleted release, when. Lakes of version 0.5 have it too.
DELETED = "given_up"
# The key in the same metadata: by table, the digest of the commit of its version in the newest release.
LOGS = "logs"


def list_releases(snapshot: Snapshot) -> pl.DataFrame:
    """List every release of a lake, oldest first.

    The files are checked for damage first: a damaged version would open another table. In a bucket, this would take two
    requests for each release.

    Returns:
        Rows of the releases table; none where no build has finished.

    Raises:
        DamagedLakeError: a file is missing or damaged.
    """

    def read() -> pl.DataFrame:
        if not storage.is_bucket(snapshot.place):
            storage.check_files(set(snapshot.file_places("releases")) - snapshot.left_out)
        with storage.damage_errors(f"{snapshot.place}/releases"):
            return snapshot.scan("releases").sort("release").collect()

    return read() if snapshot.left_out else snapshot.cached("releases", "releases", read)


def newest_release(snapshot: Snapshot) -> int:
    """Return the number of the newest release; 0 where there is none."""
    numbers: list[int] = list_releases(snapshot)["release"].to_list()
    return numbers[-1] if numbers else 0


def release_versions(snapshot: Snapshot, number: int | None = None) -> tuple[int, dict[str, int]]:
    """Return the table versions that a release consists of.

    Args:
        snapshot: of the lake.
        number: the release; None for the newest.

    Returns:
        The release's number, and version by table name.

    Raises:
        NoReleaseError: there is no such release, it was deleted, or there is none at all.
        DamagedLakeError: the table of releases is missing or damaged.
    """
    place, rows = snapshot.place, list_releases(snapshot)
    if rows.is_empty():
        require_releases(snapshot)
        raise NoReleaseError(
            f"{place} holds no finished build. Check the path, or run: imagelake build PATH --into {place}"
        )
    numbers: list[int] = rows["release"].to_list()
    wanted = numbers[-1] if number is None else number
    found = rows.filter(pl.col("release") == wanted)
    if found.is_empty():
        raise NoReleaseError(_no_such_release(snapshot, wanted, numbers))
    return wanted, _released_versions(found["versions"].to_list()[0])


def release_snapshot(snapshot: Snapshot, versions: Mapping[str, int]) -> Snapshot:
    """Return the tables as of a release.

    Args:
        snapshot: of the lake.
        versions: of the release. A table that it lacks came later, and has no rows.
    """
    released = (name for name, table in schemas.TABLES.items() if table.released)
    return snapshot.at({name: versions.get(name, MISSING) for name in released})


def require_releases(snapshot: Snapshot) -> None:
    """Check that the table of releases exists in a lake that has other tables.

    Raises:
        DamagedLakeError: it is missing.
    """
    others = (name for name in schemas.TABLES if name != "releases")
    if snapshot.open("releases") is None and any(DeltaLog(snapshot.place, name).versions() for name in others):
        raise DamagedLakeError(_missing_message(snapshot.place, "releases"))


def require_tables(snapshot: Snapshot) -> None:
    """Check that the tables of the newest release have the versions that it names, before a build commits to them.

    Raises:
        DamagedLakeError: one is missing, or its newest commit.
    """
    if list_releases(snapshot).is_empty():
        require_releases(snapshot)
        return
    for name, version in release_versions(snapshot)[1].items():
        if name in schemas.TABLES and snapshot.version(name) == MISSING:
            raise DamagedLakeError(_missing_message(snapshot.place, name))
        if name in schemas.TABLES and snapshot.version(name) < version:
            raise DamagedLakeError(
                f"{snapshot.place}/{name}: the newest commit of its log is missing: a release needs version {version}. "
                f"Run: imagelake build {snapshot.place} --repair"
            )


def _missing_message(place: str, table: str) -> str:
    # A lake without releases does not say which recipe it was built by.
    recipe = "RECIPE" if table == "releases" else place
    return (
        f"{place}/{table}: the table is missing. Put it back from a copy of the lake, or run: imagelake build {recipe} "
        "--repair"
    )


def publish(
    transaction: Transaction,
    recipe_digest: str,
    note: str,
    recipe: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Make the tables as they stand the newest release, unless they and the recipe are those of the last one.

    Args:
        transaction: of the lake.
        recipe_digest: digest of the recipe that was built.
        note: what the build did.
        recipe: the recipe itself, kept with the commit so that the lake records how it was made.
        sources: counts of images, labels and rejects by source, kept likewise.

    Returns:
        The number of the newest release: a new one, or the last one where nothing changed and nothing was committed.
    """
    if all(transaction.snapshot.version(name) != MISSING for name in schemas.TABLES) and _is_published(
        transaction.snapshot, recipe_digest
    ):
        return newest_release(transaction.snapshot)
    for name in schemas.TABLES:
        transaction.ensure_table(name)
    snapshot = transaction.snapshot
    if _is_published(snapshot, recipe_digest):
        return newest_release(snapshot)
    current = _current_versions(snapshot)
    number = newest_release(snapshot) + 1
    row = {
        "release": number,
        "versions": [{"table": name, "version": version} for name, version in sorted(current.items())],
        "recipe_digest": recipe_digest,
        "created_at": datetime.now(UTC),
        "note": note,
    }
    added = transaction.writer.write("releases", _as_table("releases", row))
    logs = {name: digest_of_file(DeltaLog(transaction.place, name).file(version)) for name, version in current.items()}
    units = {**snapshot.metadata("releases").units, "recipe": recipe, "sources": {"counts": [*sources]}, LOGS: logs}
    transaction.commit(Commit("releases", added, Metadata("release", units, current)))
    return number


def _current_versions(snapshot: Snapshot) -> dict[str, int]:
    return {name: version for name, version in snapshot.versions.items() if schemas.TABLES[name].released}


def _is_published(snapshot: Snapshot, recipe_digest: str) -> bool:
    """Return whether the newest release has the tables as they stand, and the recipe."""
    past = list_releases(snapshot)
    if past.is_empty() or past["recipe_digest"].last() != recipe_digest:
        return False
    return _released_versions(past["versions"].to_list()[-1]) == _current_versions(snapshot)


def delete_releases(transaction: Transaction, numbers: Collection[int]) -> None:
    """Take releases out of the lake in one commit; their files stay until vacuum deletes them.

    Args:
        transaction: of the lake.
        numbers: existing releases; not the newest, as the next number is counted from it.
    """
    snapshot = transaction.snapshot
    rows = list_releases(snapshot)
    kept = rows.filter(~pl.col("release").is_in(list(numbers)))
    if kept.is_empty() or kept["release"].last() != rows["release"].last():
        raise ValueError("the newest release cannot be deleted")
    added = transaction.writer.write("releases", kept.to_arrow().cast(schemas.TABLES["releases"].schema))
    units = snapshot.metadata("releases").units
    when = datetime.now(UTC).isoformat(timespec="seconds")
    deleted = {**units.get(DELETED, {}), **{str(number): when for number in sorted(numbers)}}
    metadata = Metadata("vacuum", {**units, DELETED: deleted})
    transaction.commit(Commit("releases", added, metadata, all_files))


def spans(numbers: Sequence[int]) -> str:
    """Write ascending numbers in words: `1, 4 to 9`."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def releases_stamp(snapshot: Snapshot, known: int = 0) -> int:
    """Return a number that changes when releases come or go, at the cost of one request.

    Args:
        snapshot: of the lake; the stamp does not depend on its versions.
        known: what it returned before; 0 for the first time.
    """
    log = DeltaLog(snapshot.place, "releases")
    if storage.is_bucket(snapshot.place):
        # One more than the version, so that 0 stands for none. The next commit would have just that version.
        if known and not storage.exists(log.file(known)):
            return known
        return Snapshot(snapshot.place).version("releases") + 1
    try:
        return Path(log.folder).stat().st_mtime_ns
    except (OSError, ValueError):  # ValueError: a NUL in the name
        # Opening the table raises the error that describes this.
        return 0


def register_export(transaction: Transaction, row: Mapping[str, Any]) -> None:
    """Add a row to `exports`: from then on its release is pinned.

    Args:
        transaction: of the lake.
        row: the columns of the table, but for `created_at`.
    """
    added = transaction.writer.write("exports", _as_table("exports", {**row, "created_at": datetime.now(UTC)}))
    transaction.commit(Commit("exports", added, Metadata("export")))


def find_pins(snapshot: Snapshot, kept: Collection[int]) -> dict[int, list[str]]:
    """List the pinned releases, and what pins each.

    Every export pins its release, and so do the scores and predictions of every release that is kept. A pinned release
    is kept, so its own scores pin in turn. Otherwise a remaining release would have values whose origin is deleted.

    Args:
        snapshot: of the lake.
        kept: releases that are kept anyway.

    Returns:
        By existing release, what pins it: `scores of 4`, `export of main as npz to /data/x`. A release does not pin
        itself.
    """
    versions = {
        number: {item["table"]: item["version"] for item in listed}
        for number, listed in list_releases(snapshot).select("release", "versions").rows()
    }
    pins: dict[int, list[str]] = {}
    for number, split, form, target in _exports(snapshot):
        if number in versions:
            pins.setdefault(number, []).append(f"export of {split} as {form} to {target}")
    waiting = sorted({number for number in kept if number in versions} | set(pins))
    seen = set(waiting)
    for number in waiting:
        for table in ("scores", "predictions"):
            for named in _named_releases(snapshot, table, versions[number].get(table)) & set(versions) - {number}:
                pins.setdefault(named, []).append(f"{table} of {number}")
                if named not in seen:
                    seen.add(named)
                    # The list grows while it is iterated: a pinned release pins in turn.
                    waiting.append(named)
    return {number: pins[number] for number in sorted(pins)}


def _exports(snapshot: Snapshot) -> list[tuple[int, str, str, str]]:
    columns = ("release", "split_name", "form", "target")
    return snapshot.scan("exports").select(columns).unique().sort(columns).collect().rows()


def _named_releases(snapshot: Snapshot, table: str, version: int | None) -> set[int]:
    """Return the releases that the rows of a table name."""
    if version is None:
        return set()
    rows = snapshot.with_version(table, version).scan(table)
    return set(rows.select(pl.col("release").unique()).collect().to_series().to_list())


def _as_table(table: str, row: Mapping[str, Any]) -> pa.Table:
    return to_table([row], schemas.TABLES[table].schema)


def _no_such_release(snapshot: Snapshot, wanted: int, numbers: list[int]) -> str:
    place = snapshot.place
    listed = f"{'there are' if len(numbers) > 1 else 'there is'} {spans(numbers)}. See: imagelake history {place}"
    when = snapshot.metadata("releases").units.get(DELETED, {}).get(str(wanted))
    if when is None:
        return f"{place} has no release {wanted}; {listed}"
    return f"{place}: release {wanted} was deleted by vacuum ({when[:10]}); {listed}"


def _released_versions(listed: list[dict[str, Any]]) -> dict[str, int]:
    """Return versions by table, without tables that releases of some versions listed and that belong to none."""
    return {
        item["table"]: item["version"]
        for item in listed
        if item["table"] not in schemas.TABLES or schemas.TABLES[item["table"]].released
    }


def stored_decode(snapshot: Snapshot) -> dict[str, Any]:
    """Read the `[decode]` settings that the newest release of a lake stores; empty if there is no release."""
    recipe = snapshot.metadata("releases").units.get("recipe", {})
    settings: dict[str, Any] = recipe.get("values", {}).get("decode", {})
    return settings


def recorded_recipe(snapshot: Snapshot, number: int) -> dict[str, Any]:
    """Read the recipe that a release was built from, as `publish` stored it.

    Args:
        snapshot: of the lake.
        number: an existing release.

    Raises:
        LakeError: the log of the releases does not have the commit of this release any more.
    """
    newest = newest_release(snapshot)
    if number == newest:
        units = snapshot.metadata("releases").units
    else:
        # Every release has one such commit, the newest first; also a release that was deleted.
        published = (of for _, of in snapshot.history("releases") if of.stage == "release" and of.inputs)
        found = next(islice(published, newest - number, None), None)
        units = found.units if found else {}
    if "recipe" not in units:
        raise LakeError(
            f"{snapshot.place}: the recipe of release {number} is not recorded. Give the recipe, or use release "
            f"{newest}."
        )
    return dict(units["recipe"])
