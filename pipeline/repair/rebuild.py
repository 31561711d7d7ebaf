"""Repair tables without their sources.

Rows of releases, exports and shards are restored from commits and older versions. Damaged files of tables that are
made from images are taken out, so that the build makes them again.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

import schemas
from pipeline import sources
from pipeline.builder.state import DAMAGED, SHARD_KEY, Todo, shards_digest
from pipeline.decode import decoder_name
from pipeline.dedup.rules import parse_rule
from pipeline.errors import RecipeError, SourceError
from pipeline.lake.parquet_writer import Part
from pipeline.lake.rewrite import drop_files, recorded_recipes, replace_rows, restore_releases, whole_rows
from pipeline.lake.snapshot import Snapshot, polars_schema
from pipeline.lake.transaction import Transaction
from pipeline.recipe import Recipe, parse_recipe
from pipeline.repair.damage import Damage
from pipeline.sources import Source
from pipeline.sources.source import shard_key
from pipeline.verify.faults import DamagedError, Fault, damage_named
from pipeline.verify.parquet_file import Named, read_through

_DERIVED = ("pairs", "clusters", "splits")


def drop_index(lake: Transaction, damage: Damage, lost: set[tuple[str, ...]]) -> list[Todo]:
    """Take damaged files out of the index whose images are whole: the build indexes these images again.

    Args:
        lake: of the lake.
        damage: the damage.
        lost: shards whose images stay damaged: their index stays as it is.
    """
    there = damage.remaining(lake.snapshot, "index")
    gone = [
        part
        for part in lake.snapshot.files("index")
        if part.path in there and tuple(part.partition[name] for name in SHARD_KEY) not in lost
    ]
    if gone:
        drop_files(lake, "index", [part.path for part in gone])
    return [
        Todo(
            "repair", f"index by {p['rule']} of {p['dataset']}/{p['split']} shard {p['shard']}", "made from its images"
        )
        for p in [part.partition for part in gone] + [fault.partition for fault in damage.faults if _lacks(fault)]
    ]


def _lacks(fault: Fault) -> bool:
    """Whether images have no index at all: the build makes one."""
    return fault.table == "index" and not fault.file and bool(fault.partition)


def drop_derived(lake: Transaction, damage: Damage, *, every: bool, images_stay: bool) -> tuple[list[Todo], list[str]]:
    """Take damaged files out of pairs, clusters, splits and bases, so that the build makes them again.

    Args:
        lake: of the lake.
        damage: the damage.
        every: make all of pairs, clusters and splits again, as the images are not known to be what they were.
        images_stay: whether some images stay damaged. Then only clusters by keys can be made again.

    Returns:
        What is made again and the build does not list; what stays damaged, and why.
    """
    done: list[Todo] = []
    stays: list[str] = []
    blocked = {
        part.partition["rule"]
        for part in lake.snapshot.files("index")
        if part.path in damage.remaining(lake.snapshot, "index")
    }
    for table in _DERIVED:
        units = lake.snapshot.metadata(table).units
        wanted = set(units) if every else damage.units.get(table, set()) & set(units)
        can = {unit for unit in wanted if not images_stay or (table == "clusters" and _by_keys(unit, blocked))}
        stays += [
            f"{table} of {unit}: cannot be made again before the images are back" for unit in sorted(wanted - can)
        ]
        if can:
            _note(lake, damage, table, units, can)
        if table == "pairs":
            done += [Todo("repair", f"pairs of {rule}", "found again") for rule in sorted(can)]
    if damage.remaining(lake.snapshot, "bases") and not images_stay:
        replace_rows(lake, "bases", whole_rows(lake.snapshot, "bases", damage.of("bases")), {})
        done.append(Todo("repair", "bases", "fitted again to the images that there are"))
    return done, stays


def _by_keys(rule: str, blocked: set[str]) -> bool:
    return parse_rule(rule).comparison is None and rule not in blocked


def _note(lake: Transaction, damage: Damage, table: str, units: Mapping[str, Any], wanted: set[str]) -> None:
    paths, still = sorted(damage.of(table)), damage.remaining(lake.snapshot, table)
    noted = {unit: _damaged_unit(table, held, paths) if unit in wanted else held for unit, held in units.items()}
    there = [part for part in lake.snapshot.files(table) if part.path in still]
    drop_files(lake, table, [part.path for part in there if set(part.partition.values()) <= wanted], noted)


def _damaged_unit(table: str, held: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Mark a unit as damaged. The settings of pairs and clusters are dropped: they are made from nothing."""
    kept = {key: value for key, value in held.items() if key != "spec" or table == "splits"}
    return {**kept, DAMAGED: paths}


def restore_scores(lake: Transaction, damage: Damage, asked: set[str]) -> tuple[list[Todo], list[str]]:
    """Restore damaged scores and misses from older versions of their tables; runs without any are dropped.

    Args:
        lake: of the lake.
        damage: the damage.
        asked: runs of the recipe: the build can make them again.

    Returns:
        What was done; and what is lost, and why.
    """
    tables = [name for name in ("misses", "scores") if damage.remaining(lake.snapshot, name)]
    if not tables:
        return [], []
    units = lake.snapshot.metadata("scores").units
    ids = {name: unit["fingerprint"] for name, unit in units.items()}
    found = {table: _older_rows(lake.snapshot, damage, table, set(ids.values())) for table in tables}
    back = {name for name, run in ids.items() if all(run in rows for rows in found.values())}
    # A run that the recipe no longer has is not trained again: its whole rows stay.
    stay = back | (set() if "scores" in tables else set(ids) - asked)
    for table in tables:
        rows = [of for run, of in found[table].items() if run in {ids[name] for name in back}]
        replace_rows(
            lake, table, pl.concat([whole_rows(lake.snapshot, table, damage.of(table)), *rows]), _of(units, stay)
        )
    if "scores" not in tables and stay != set(units):
        drop_files(lake, "scores", [], _of(units, stay))
    lost = " and ".join(tables)
    why = "no older version has them, and the recipe does not name the run, so that it is not trained again"
    done = [Todo("repair", f"{lost} of {name}", "read back from an older version") for name in sorted(back)]
    return done, [f"{lost} of {name} are lost: {why}" for name in sorted(set(units) - back - asked)]


def _of(units: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: unit for name, unit in units.items() if name in names}


def _older_rows(snapshot: Snapshot, damage: Damage, table: str, runs: set[str]) -> dict[str, pl.DataFrame]:
    """Return, by run, its rows from the newest version that has it and whose files are whole."""
    found: dict[str, pl.DataFrame] = {}
    for version, meta in snapshot.history(table):
        there = {unit["fingerprint"] for unit in meta.units.values()} & runs - set(found)
        parts = snapshot.with_version(table, version).files(table) if there else []
        if there and not any(part.path in damage.of(table) or not _is_whole(snapshot, table, part) for part in parts):
            rows = whole_rows(snapshot.with_version(table, version), table, ())
            found |= {run: rows.filter(run_id=run) for run in there}
    return found


def _is_whole(snapshot: Snapshot, table: str, part: Part) -> bool:
    faults: list[Fault] = []
    for _ in read_through(Named(snapshot.place, table, part), faults):
        pass
    return not faults


# A fingerprint that no source has, so that every shard is read again.
_LOST = "lost"


def restore_release_rows(lake: Transaction, damage: Damage) -> list[Todo]:
    """Restore damaged rows of releases from their commits."""
    if not damage.remaining(lake.snapshot, "releases"):
        return []
    recipes = recorded_recipes(lake.snapshot)
    numbers = restore_releases(lake, damage.of("releases"), {n: _digest(of) for n, of in recipes.items()})
    listed = ", ".join(map(str, numbers)) or "none"
    return [Todo("repair", "releases", f"restored from their commits: {listed}; their notes are lost")]


def drop_unreadable_exports(lake: Transaction, damage: Damage) -> list[str]:
    """Take unreadable rows out of exports: no other table or commit has their values.

    Returns:
        What is lost.
    """
    lost = damage.remaining(lake.snapshot, "exports")
    if not lost:
        return []
    snapshot = lake.snapshot
    since: dict[str, int] = {}
    for version, _ in snapshot.history("exports"):
        since |= {
            part.path: version
            for part in snapshot.with_version("exports", version).files("exports")
            if part.path in lost
        }
    times = sorted(snapshot.with_version("exports", version).commit_time("exports") for version in since.values())
    dates = ", ".join(f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M}" for time in times)
    replace_rows(lake, "exports", whole_rows(lake.snapshot, "exports", damage.of("exports")))
    text = (
        f"exports: {len(lost)} of its files (written {dates} UTC) are lost. The exported folders are whole, but vacuum "
        "does not keep their releases any more: export again, or give up no release"
    )
    return [text]


def restore_shards(lake: Transaction, damage: Damage, recipe: Recipe, found: Sequence[Source]) -> list[Todo]:
    """Restore the shards table from an older version of it, or from the sources.

    The commit records a digest of its rows. Where no restored rows have it, all sources are read again.
    """
    if not damage.remaining(lake.snapshot, "shards"):
        return []
    counts = _counts(lake.snapshot, damage)
    held, surveyed = _older(lake.snapshot, damage), _surveyed(recipe, found, counts)
    digest = lake.snapshot.metadata("shards").units.get("shards", {}).get("fingerprint")
    for facts in (held, surveyed, {**surveyed, **held}, {**held, **surveyed}):
        rows = _rows(counts, facts)
        if len(rows) == len(counts) and shards_digest(rows) == digest:
            replace_rows(lake, "shards", rows)
            return [Todo("repair", "shards", "restored, and equal to what it was")]
    known = {**_named(lake.snapshot, recipe, counts), **{key: fact[0] for key, fact in {**surveyed, **held}.items()}}
    decoder = decoder_name(recipe.decode)
    lost = {key: (known.get(key, "unknown"), _LOST, decoder) for key in counts}
    replace_rows(lake, "shards", _rows(counts, lost))
    return [Todo("repair", "shards", "restored without the state of the sources, which is lost: all are read again")]


Facts = Mapping[tuple[str, ...], tuple[str, str, str]]


def _counts(snapshot: Snapshot, damage: Damage) -> dict[tuple[str, ...], tuple[int, int]]:
    """Return, by shard, how many images and rejects the lake has, as far as they can be read."""
    images = {_key(part.partition): part.rows for part in snapshot.files("images")}
    rejects = whole_rows(snapshot, "rejects", damage.of("rejects")).group_by(SHARD_KEY).len().rows()
    refused = {tuple(key): count for *key, count in rejects}
    return {key: (images.get(key, 0), refused.get(key, 0)) for key in sorted({*images, *refused})}


def _rows(counts: Mapping[tuple[str, ...], tuple[int, int]], facts: Facts) -> pl.DataFrame:
    rows = [
        (*key, facts[key][0], facts[key][1], images, rejects, facts[key][2])
        for key, (images, rejects) in counts.items()
        if key in facts
    ]
    return pl.DataFrame(rows, schema=polars_schema(schemas.TABLES["shards"].schema), orient="row").sort(SHARD_KEY)


def _older(snapshot: Snapshot, damage: Damage) -> Facts:
    """By shard, uri, fingerprint and decoder as of the newest older version that can be read."""
    for version, _ in snapshot.history("shards"):
        paths = {part.path for part in snapshot.with_version("shards", version).files("shards")}
        if paths and not paths & set(damage.of("shards")):
            try:
                with damage_named():
                    rows = whole_rows(snapshot.with_version("shards", version), "shards", ())
            except DamagedError:
                continue
            columns = (*SHARD_KEY, "uri", "fingerprint", "decoder")
            return {tuple(key): (uri, mark, by) for *key, uri, mark, by in rows.select(columns).rows()}
    return {}


def _surveyed(recipe: Recipe, found: Iterable[Source], keys: Iterable[tuple[str, ...]]) -> Facts:
    """By shard, uri, fingerprint and decoder as the sources are now."""
    facts = {}
    decoder = decoder_name(recipe.decode)
    for source in found:
        try:
            survey = sources.survey(source)
        except SourceError:
            continue
        for key in keys:
            mark = survey.fingerprint if survey.shards is None else survey.shards.get(key[2])
            if mark and key[:2] == (source.dataset, source.split) and key[2].startswith(shard_key(source, "")):
                facts[key] = (source.uri, mark, decoder)
    return facts


def _named(snapshot: Snapshot, recipe: Recipe, keys: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """By shard, the uri of its source, of those that the recipe of any release names: a key has a digest of it."""
    parts = [part for one in (*_recipes(snapshot), recipe) for part in one.source]
    some = [Source(part, Path(part.uri), part.split or "", "", None, 0) for part in parts]
    return {
        key: source.uri
        for source in some
        for key in keys
        if key[0] == source.dataset and key[2].startswith(shard_key(source, ""))
    }


def _recipes(snapshot: Snapshot) -> list[Recipe]:
    return [recipe for record in recorded_recipes(snapshot).values() if (recipe := _recipe(record)) is not None]


def _recipe(record: Mapping[str, Any]) -> Recipe | None:
    try:
        return parse_recipe(record["values"], base=Path(record["base"]))
    except (RecipeError, KeyError):
        return None


def _digest(record: Mapping[str, Any]) -> str:
    recipe = _recipe(record)
    return recipe.digest if recipe else ""


def _key(partition: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(partition[name] for name in SHARD_KEY)
