"""Releases: sets of table versions that belong together. One row in `releases` makes a finished build visible.

Pins: who names a release, so that vacuum does not give it up: exports, and scores.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

import schemas
from pipeline import storage
from pipeline.errors import NoReleaseError
from pipeline.lake.commits import Meta, commit, read_meta, versions
from pipeline.lake.parquet_writer import write_part
from pipeline.lake.reading import scan_table
from pipeline.lake.tables import ensure_table, forget, open_table

# In what the newest commit tells: by release that was given up, when.
GIVEN_UP = "given_up"


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
        NoReleaseError: there is no such release, it was given up, or there is none at all.
    """
    rows = list_releases(root)
    if rows.is_empty():
        raise NoReleaseError(
            f"{root} holds no finished build. Check the path, or run: imagelake build PATH --into {root}"
        )
    numbers: list[int] = rows["release"].to_list()
    wanted = numbers[-1] if number is None else number
    found = rows.filter(pl.col("release") == wanted)
    if found.is_empty():
        raise NoReleaseError(_missing(root, wanted, numbers))
    return wanted, _versions(found["versions"].to_list()[0])


def publish(
    root: str, recipe_digest: str, note: str, recipe: Mapping[str, Any], sources: Sequence[Mapping[str, Any]] = ()
) -> int:
    """Make the tables as they stand the newest release, unless they and the recipe are those of the last one.

    Args:
        root: the lake's folder.
        recipe_digest: digest of the recipe that was built.
        note: what the build did.
        recipe: the recipe itself, kept with the commit so that the lake tells how it is made.
        sources: counts of images, labels and rejects by source, kept likewise.

    Returns:
        The newest release's number: a new one, or where nothing has changed, and so nothing was committed, the last.
    """
    past = list_releases(root)
    for name in schemas.TABLES:
        ensure_table(root, name)
    current = {name: version for name, version in versions(root).items() if schemas.TABLES[name].released}
    last = newest(root)
    if last and release_versions(root)[1] == current and past["recipe_digest"].last() == recipe_digest:
        return last
    number = last + 1
    row = {
        "release": number,
        "versions": [{"table": name, "version": version} for name, version in sorted(current.items())],
        "recipe_digest": recipe_digest,
        "created_at": datetime.now(UTC),
        "note": note,
    }
    part = write_part(root, "releases", {}, pa.Table.from_pylist([row], schema=schemas.TABLES["releases"].schema))
    units = {**read_meta(root, "releases").units, "recipe": recipe, "sources": {"counts": [*sources]}}
    commit(root, "releases", [part] if part else [], lambda _: False, Meta("release", units, current))
    return number


def give_up(root: str, numbers: Collection[int]) -> None:
    """Take releases out of the lake, in one commit; their files stay until vacuum deletes them.

    Args:
        root: the lake's folder, locked.
        numbers: releases that there are; not the newest, whose number the next one counts from.
    """
    rows = list_releases(root)
    stay = rows.filter(~pl.col("release").is_in(list(numbers)))
    if stay.is_empty() or stay["release"].last() != rows["release"].last():
        raise ValueError("the newest release cannot be given up")
    table = stay.to_arrow().cast(schemas.TABLES["releases"].schema)
    part = write_part(root, "releases", {}, table)
    units = read_meta(root, "releases").units
    when = datetime.now(UTC).isoformat(timespec="seconds")
    gone = {**units.get(GIVEN_UP, {}), **{str(number): when for number in sorted(numbers)}}
    commit(root, "releases", [part] if part else [], lambda _: True, Meta("vacuum", {**units, GIVEN_UP: gone}))


def spans(numbers: Sequence[int]) -> str:
    """Spell ascending numbers in words: `1, 4 to 9`."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def stamp(root: str, known: int = 0) -> int:
    """Tell in one look whether releases may have come or gone: a number that changes when they do.

    Args:
        root: the lake's place.
        known: what it told before; 0 for the first time.
    """
    log = f"{root}/releases/_delta_log"
    if storage.is_bucket(root):
        if not known:
            forget()
        # One more than the version, so that 0 is none. The next commit would have just that number.
        if known and not storage.exists(f"{log}/{known:020}.json"):
            return known
        table = open_table(root, "releases")
        return 0 if table is None else table.version() + 1
    try:
        return Path(log).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _missing(root: str, wanted: int, numbers: list[int]) -> str:
    listed = f"{'there are' if len(numbers) > 1 else 'there is'} {spans(numbers)}. See: imagelake history {root}"
    when = read_meta(root, "releases").units.get(GIVEN_UP, {}).get(str(wanted))
    if when is None:
        return f"{root} has no release {wanted}; {listed}"
    return f"{root}: release {wanted} was given up by vacuum ({when[:10]}); {listed}"


def _versions(listed: list[dict[str, Any]]) -> dict[str, int]:
    """By table, its version; without tables that releases of some imagelakes named and that belong to none."""
    return {
        item["table"]: item["version"]
        for item in listed
        if item["table"] not in schemas.TABLES or schemas.TABLES[item["table"]].released
    }


def register_export(root: str, row: Mapping[str, Any]) -> None:
    """Add a row to `exports`: from then on its release is pinned.

    Args:
        root: the lake's folder, locked.
        row: the columns of the table, but for `created_at`.
    """
    made = {**row, "created_at": datetime.now(UTC)}
    part = write_part(root, "exports", {}, pa.Table.from_pylist([made], schema=schemas.TABLES["exports"].schema))
    commit(root, "exports", [part] if part else [], lambda _: False, Meta("export"))


def find_pins(root: str, stay: Collection[int]) -> dict[int, list[str]]:
    """Tell which releases are named by what stays, and by what.

    Every export counts, and the scores of every release that stays; a release that these name stays too, and so its own
    scores count. Only so can each value that any remaining release shows be looked into.

    Args:
        root: the lake's folder.
        stay: releases that stay anyway.

    Returns:
        By release, of those there are, who names it: `scores of 4`, `export of main as npz to /data/x`. A release does
        not pin itself.
    """
    held = {
        number: {item["table"]: item["version"] for item in listed}
        for number, listed in list_releases(root).select("release", "versions").rows()
    }
    pins: dict[int, list[str]] = {}
    for number, split, form, target in _exports(root):
        if number in held:
            pins.setdefault(number, []).append(f"export of {split} as {form} to {target}")
    waiting = sorted({number for number in stay if number in held} | set(pins))
    seen = set(waiting)
    for number in waiting:
        for named in _scored(root, held[number].get("scores")) & set(held) - {number}:
            pins.setdefault(named, []).append(f"scores of {number}")
            if named not in seen:
                seen.add(named)
                # The list grows while it is gone through: what is pinned pins in turn.
                waiting.append(named)
    return {number: pins[number] for number in sorted(pins)}


def _exports(root: str) -> list[tuple[int, str, str, str]]:
    columns = ("release", "split_name", "form", "target")
    return scan_table(root, "exports", None).select(columns).unique().sort(columns).collect().rows()


def _scored(root: str, version: int | None) -> set[int]:
    if version is None:
        return set()
    return set(scan_table(root, "scores", version).select(pl.col("release").unique()).collect().to_series().to_list())
