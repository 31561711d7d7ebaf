"""Repair tables other than images.

Rows of releases, shards and scores are restored from commits and older versions. Damaged files of tables that are made
from images are removed, so that the following build makes them again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

import schemas
from pipeline import sources
from pipeline.builder.commit_ingest import LOST
from pipeline.builder.shard_files import find_files
from pipeline.builder.splits import splits_with_attributes
from pipeline.builder.state import DAMAGED, SHARD_KEY, Todo, shards_digest
from pipeline.decode import decoder_name
from pipeline.dedup.rules import parse_rule
from pipeline.errors import RecipeError, SourceError
from pipeline.lake.delta_log import Metadata
from pipeline.lake.parquet_writer import Part
from pipeline.lake.rewrite import drop_files, recorded_recipes, replace_rows, restore_releases, whole_rows
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, Transaction, all_files
from pipeline.recipe import Recipe, parse_recipe
from pipeline.repair.damage import Damage, ShardKey
from pipeline.shard import Survey, fingerprint_of_files
from pipeline.sources import Source
from pipeline.sources.source import shard_key
from pipeline.verify.faults import DamagedError, Fault, damage_errors
from pipeline.verify.parquet_file import TableFile, read_row_groups

_DERIVED = ("attributes", "pairs", "clusters", "issues", "splits")

# By shard: uri, fingerprint and decoder, as the shards table has them.
ShardOrigins = Mapping[ShardKey, tuple[str, str, str]]


def drop_index(lake: Transaction, damage: Damage, damaged: set[ShardKey]) -> list[Todo]:
    """Remove damaged files of the index, so that the build indexes the images again.

    Args:
        lake: commits to the lake.
        damage: the damage.
        damaged: shards whose images stay damaged; their index stays too.
    """
    remaining = damage.remaining(lake.snapshot, "index")
    removed = [
        part for part in lake.snapshot.files("index") if part.path in remaining and _key(part.partition) not in damaged
    ]
    if removed:
        drop_files(lake, "index", [part.path for part in removed])
    missing = [fault.partition for fault in damage.faults if _is_missing_index(fault)]
    return [
        Todo(
            "repair", f"index by {p['rule']} of {p['dataset']}/{p['split']} shard {p['shard']}", "made from its images"
        )
        for p in [*(part.partition for part in removed), *missing]
    ]


def drop_derived(
    lake: Transaction, damage: Damage, *, every: bool, images_stay: bool, kept_attributes: Collection[str]
) -> tuple[list[Todo], list[str]]:
    """Remove damaged files of tables that are made from images, so that the build makes them again.

    Args:
        lake: commits to the lake.
        damage: the damage.
        every: make all attributes, pairs, clusters and splits again, because the images may differ from before.
        images_stay: whether some images stay damaged. Then only clusters by keys can be made again.
        kept_attributes: datasets whose attributes cannot be made again. If their rows are damaged or lost, neither can
            the splits that read attributes.

    Returns:
        What is made again and not listed by the build; what stays damaged, and why.
    """
    done: list[Todo] = []
    still_damaged: list[str] = []
    blocked = {
        part.partition["rule"]
        for part in lake.snapshot.files("index")
        if part.path in damage.remaining(lake.snapshot, "index")
    }
    for table in _DERIVED:
        units = lake.snapshot.metadata(table).units
        damaged = set(units) if every else damage.units.get(table, set()) & set(units)
        again = {unit for unit in damaged if not images_stay or (table == "clusters" and _by_keys(unit, blocked))}
        still_damaged += [
            f"{table} of {unit}: cannot be made again before the images are repaired"
            for unit in sorted(damaged - again)
        ]
        kept = _units_that_need_missing_files(lake.snapshot, table, damage, kept_attributes, every=every) & again
        still_damaged += [f"{table} of {unit}: cannot be made again without that file" for unit in sorted(kept)]
        again -= kept
        if again:
            _mark_damaged(lake, damage, table, units, again)
        if table == "pairs":
            done += [Todo("repair", f"pairs of {rule}", "found again") for rule in sorted(again)]
    if every or "measurements" in damage.units:
        still_damaged += _drop_measurements(lake, images_stay=images_stay)
    if damage.remaining(lake.snapshot, "bases") and not images_stay:
        replace_rows(lake, "bases", whole_rows(lake.snapshot, "bases", damage.of("bases")), {})
        done.append(Todo("repair", "bases", "fitted again to the present images"))
    if damage.remaining(lake.snapshot, "predictions"):
        # A file has the predictions of one unit, and making all of them again takes seconds.
        units = lake.snapshot.metadata("predictions").units
        paths = sorted(damage.remaining(lake.snapshot, "predictions"))
        drop_files(lake, "predictions", paths, {name: {**unit, DAMAGED: paths} for name, unit in units.items()})
    return done, still_damaged


def _drop_measurements(lake: Transaction, *, images_stay: bool) -> list[str]:
    """Remove all measurements, so that the build makes them again; return why they stay damaged, if they do."""
    if not lake.snapshot.metadata("measurements").units:
        return []
    if images_stay:
        return ["measurements: cannot be made again before the images are repaired"]
    lake.commit(Commit("measurements", (), Metadata("repair"), all_files))
    return []


def restore_scores(lake: Transaction, damage: Damage, recipe_runs: set[str]) -> tuple[list[Todo], list[str]]:
    """Restore damaged scores, misses and models from older versions of their tables; drop the other damaged runs.

    Args:
        lake: commits to the lake.
        damage: the damage.
        recipe_runs: runs of the recipe, which the build can train again.

    Returns:
        What was restored; what is lost, and why.
    """
    tables = [name for name in ("misses", "models", "scores") if damage.remaining(lake.snapshot, name)]
    if not tables:
        return [], []
    units = lake.snapshot.metadata("scores").units
    ids = {name: unit["fingerprint"] for name, unit in units.items()}
    found = {table: _older_rows(lake.snapshot, damage, table, set(ids.values())) for table in tables}
    restored = {name for name, run in ids.items() if all(run in rows for rows in found.values())}
    # The build does not train a run again that the recipe no longer has, so its undamaged rows stay.
    stay = restored | (set() if "scores" in tables else set(ids) - recipe_runs)
    for table in tables:
        rows = [of_run for run, of_run in found[table].items() if run in {ids[name] for name in restored}]
        replace_rows(
            lake, table, pl.concat([whole_rows(lake.snapshot, table, damage.of(table)), *rows]), _select(units, stay)
        )
    if "scores" not in tables and stay != set(units):
        drop_files(lake, "scores", [], _select(units, stay))
    lost = " and ".join(tables)
    why = "no older version has them, and the recipe does not have the run, so it is not trained again"
    done = [Todo("repair", f"{lost} of {name}", "restored from an older version") for name in sorted(restored)]
    return done, [f"{lost} of {name} are lost: {why}" for name in sorted(set(units) - restored - recipe_runs)]


def restore_release_rows(lake: Transaction, damage: Damage) -> list[Todo]:
    """Restore damaged rows of releases from their commits."""
    if not damage.remaining(lake.snapshot, "releases"):
        return []
    recipes = recorded_recipes(lake.snapshot)
    numbers = restore_releases(
        lake, damage.of("releases"), {number: _digest(record) for number, record in recipes.items()}
    )
    listed = ", ".join(map(str, numbers)) or "none"
    return [Todo("repair", "releases", f"restored from their commits: {listed}; their notes are lost")]


def drop_unreadable_exports(lake: Transaction, damage: Damage) -> list[str]:
    """Remove damaged files of exports: their rows are recorded nowhere else.

    Returns:
        What is lost.
    """
    snapshot = lake.snapshot
    lost = damage.remaining(snapshot, "exports")
    if not lost:
        return []
    since: dict[str, int] = {}
    for version, _ in snapshot.history("exports"):
        since |= {
            part.path: version
            for part in snapshot.with_version("exports", version).files("exports")
            if part.path in lost
        }
    times = sorted(snapshot.with_version("exports", version).commit_time("exports") for version in since.values())
    dates = ", ".join(f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M}" for time in times)
    replace_rows(lake, "exports", whole_rows(snapshot, "exports", damage.of("exports")))
    text = (
        f"exports: {len(lost)} of its files (written {dates} UTC) are lost. The exported folders are complete, but "
        "vacuum no longer keeps their releases: export again, or do not run vacuum with --keep-last"
    )
    return [text]


def restore_shards(lake: Transaction, damage: Damage, recipe: Recipe, found: Sequence[Source]) -> list[Todo]:
    """Restore the shards table from an older version of it, or from the sources.

    The commit records a digest of the rows. If the restored rows have another digest, all sources are read again.

    Args:
        lake: commits to the lake.
        damage: the damage.
        recipe: the lake's recipe.
        found: its sources that exist.
    """
    if not damage.remaining(lake.snapshot, "shards"):
        return []
    counts = _counts(lake.snapshot, damage)
    older = _older_origins(lake.snapshot, damage)
    current = _current_origins(lake.snapshot.without(damage.places()), recipe, found, counts)
    digest = lake.snapshot.metadata("shards").units.get("shards", {}).get("fingerprint")
    for origins in (older, current, {**current, **older}, {**older, **current}):
        rows = _shard_rows(counts, origins)
        if len(rows) == len(counts) and shards_digest(rows) == digest:
            replace_rows(lake, "shards", rows)
            return [Todo("repair", "shards", "restored; the digest of its rows is the same as before")]
    uris = {**_recipe_uris(lake.snapshot, recipe, counts), **{key: of[0] for key, of in {**current, **older}.items()}}
    decoder = decoder_name(recipe.decode)
    lost = {key: (uris.get(key, "unknown"), LOST, decoder) for key in counts}
    replace_rows(lake, "shards", _shard_rows(counts, lost))
    return [Todo("repair", "shards", "restored without the fingerprints of the sources: all are read again")]


def _is_missing_index(fault: Fault) -> bool:
    """Whether the fault is that images have no index. The build makes one."""
    return fault.table == "index" and not fault.file and bool(fault.partition)


def _units_that_need_missing_files(
    snapshot: Snapshot, table: str, damage: Damage, kept_attributes: Collection[str], *, every: bool
) -> set[str]:
    """List the units that cannot be made again because a file of `[[attributes]]` is missing."""
    if table == "attributes":
        return set(kept_attributes)
    readable = set(snapshot.metadata("attributes").units) - damage.units.get("attributes", set())
    if table == "splits" and (set(kept_attributes) - readable or (kept_attributes and every)):
        return splits_with_attributes(snapshot.metadata(table))
    return set()


def _by_keys(rule: str, blocked: set[str]) -> bool:
    return parse_rule(rule).comparison is None and rule not in blocked


def _mark_damaged(lake: Transaction, damage: Damage, table: str, units: Mapping[str, Any], damaged: set[str]) -> None:
    """Mark units as damaged in the metadata of a table, and remove their damaged files."""
    paths, remaining = sorted(damage.of(table)), damage.remaining(lake.snapshot, table)
    marked = {name: _marked(table, unit, paths) if name in damaged else unit for name, unit in units.items()}
    parts = [part for part in lake.snapshot.files(table) if part.path in remaining]
    drop_files(lake, table, [part.path for part in parts if set(part.partition.values()) <= damaged], marked)


def _marked(table: str, unit: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Mark a unit as damaged, without the settings of pairs and clusters, so that all of it is made again."""
    kept = {key: value for key, value in unit.items() if key != "spec" or table in ("attributes", "issues", "splits")}
    return {**kept, DAMAGED: paths}


def _select(units: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: unit for name, unit in units.items() if name in names}


def _older_rows(snapshot: Snapshot, damage: Damage, table: str, runs: set[str]) -> dict[str, pl.DataFrame]:
    """Return, by run, its rows from the newest version that has it and whose files are whole."""
    found: dict[str, pl.DataFrame] = {}
    for version, metadata in snapshot.history(table):
        new = {unit["fingerprint"] for unit in metadata.units.values()} & runs - set(found)
        parts = snapshot.with_version(table, version).files(table) if new else []
        if new and not any(part.path in damage.of(table) or not _is_whole(snapshot, table, part) for part in parts):
            rows = whole_rows(snapshot.with_version(table, version), table, ())
            found |= {run: rows.filter(run_id=run) for run in new}
    return found


def _is_whole(snapshot: Snapshot, table: str, part: Part) -> bool:
    faults: list[Fault] = []
    for _ in read_row_groups(TableFile(snapshot.place, table, part), faults):
        pass
    return not faults


def _counts(snapshot: Snapshot, damage: Damage) -> dict[ShardKey, tuple[int, int]]:
    """Return, by shard, the numbers of its images and of its rejects that can be read."""
    images = {_key(part.partition): part.rows for part in snapshot.files("images")}
    rejects = whole_rows(snapshot, "rejects", damage.of("rejects")).group_by(SHARD_KEY).len().rows()
    rejected = {tuple(key): count for *key, count in rejects}
    return {key: (images.get(key, 0), rejected.get(key, 0)) for key in sorted({*images, *rejected})}


def _shard_rows(counts: Mapping[ShardKey, tuple[int, int]], origins: ShardOrigins) -> pl.DataFrame:
    rows = [
        (*key, origins[key][0], origins[key][1], images, rejects, origins[key][2])
        for key, (images, rejects) in counts.items()
        if key in origins
    ]
    return pl.DataFrame(rows, schema=pl.Schema(schemas.TABLES["shards"].schema), orient="row").sort(SHARD_KEY)


def _older_origins(snapshot: Snapshot, damage: Damage) -> ShardOrigins:
    """Return the origins from the newest version of the shards table that can be read."""
    for version, _ in snapshot.history("shards"):
        paths = {part.path for part in snapshot.with_version("shards", version).files("shards")}
        if paths and not paths & set(damage.of("shards")):
            try:
                with damage_errors():
                    rows = whole_rows(snapshot.with_version("shards", version), "shards", ())
            except DamagedError:
                continue
            columns = (*SHARD_KEY, "uri", "fingerprint", "decoder")
            return {tuple(key): (uri, mark, decoder) for *key, uri, mark, decoder in rows.select(columns).rows()}
    return {}


def _current_origins(
    snapshot: Snapshot, recipe: Recipe, found: Iterable[Source], keys: Iterable[ShardKey]
) -> ShardOrigins:
    """Return the origins according to the present sources. The snapshot leaves out damaged files."""
    origins: dict[ShardKey, tuple[str, str, str]] = {}
    decoder = decoder_name(recipe.decode)
    for source in found:
        try:
            survey = sources.survey(source)
        except SourceError:
            continue
        own = [key for key in keys if key[:2] == (source.dataset, source.split)]
        own = [key for key in own if key[2].startswith(shard_key(source, ""))]
        marks = _fingerprints(snapshot, source, survey, {key[2] for key in own})
        origins |= {key: (source.uri, marks[key[2]], decoder) for key in own if key[2] in marks}
    return origins


def _fingerprints(snapshot: Snapshot, source: Source, survey: Survey, shards: set[str]) -> Mapping[str, str]:
    """Return, by shard, the fingerprint that it has according to its source."""
    if survey.files is not None:
        held = find_files(snapshot, source, survey.files, shards).shards
        return {key: fingerprint_of_files(survey.files.digests[positions]) for key, positions in held.items()}
    return dict.fromkeys(shards, survey.fingerprint) if survey.shards is None else survey.shards


def _recipe_uris(snapshot: Snapshot, recipe: Recipe, keys: Iterable[ShardKey]) -> dict[ShardKey, str]:
    """Return, by shard, the uri of its source, if any release's recipe has it: the shard's key has a digest of it."""
    parts = [part for one in (*_recipes(snapshot), recipe) for part in one.source]
    listed = [Source(part, Path(part.uri), part.split or "", "", None, 0) for part in parts]
    return {
        key: source.uri
        for source in listed
        for key in keys
        if key[0] == source.dataset and key[2].startswith(shard_key(source, ""))
    }


def _recipes(snapshot: Snapshot) -> list[Recipe]:
    return [recipe for record in recorded_recipes(snapshot).values() if (recipe := _parsed(record)) is not None]


def _parsed(record: Mapping[str, Any]) -> Recipe | None:
    try:
        return parse_recipe(record["values"], base=Path(record["base"]))
    except (RecipeError, KeyError):
        return None


def _digest(record: Mapping[str, Any]) -> str:
    recipe = _parsed(record)
    return recipe.digest if recipe else ""


def _key(partition: Mapping[str, str]) -> ShardKey:
    return tuple(partition[name] for name in SHARD_KEY)
