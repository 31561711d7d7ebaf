"""What is made of images, and hurt: taken out of its tables, so that the build makes it again.

Releases, exports and shards: what nothing else is made without, repaired before anything else.
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
from pipeline.lake.commits import commit_time, files, metas, read_meta
from pipeline.lake.parquet_writer import Part
from pipeline.lake.reading import polars_schema
from pipeline.lake.rewrite import drop_files, remake_releases, replace_rows, told_recipes, whole_rows
from pipeline.recipe import Recipe, parse_recipe
from pipeline.repair.damage import Hurt
from pipeline.sources import Source
from pipeline.sources.source import shard_key
from pipeline.verify.faults import DamagedError, Fault, damage_named
from pipeline.verify.parquet_file import Named, read_through

_MADE = ("pairs", "clusters", "splits")


def drop_index(hurt: Hurt, lost: set[tuple[str, ...]]) -> list[Todo]:
    """Take hurt files out of the index whose images are whole: the build indexes these again.

    Args:
        hurt: what is hurt.
        lost: shards whose images are hurt for good: their index stays as it is.
    """
    there = hurt.still("index")
    gone = [
        part
        for part in files(hurt.root, "index")
        if part.path in there and tuple(part.partition[name] for name in SHARD_KEY) not in lost
    ]
    if gone:
        drop_files(hurt.root, "index", [part.path for part in gone])
    return [
        Todo(
            "repair", f"index by {p['rule']} of {p['dataset']}/{p['split']} shard {p['shard']}", "made from its images"
        )
        for p in [part.partition for part in gone] + [fault.partition for fault in hurt.faults if _lacks(fault)]
    ]


def _lacks(fault: Fault) -> bool:
    """Tell whether images have no index at all: the build makes one."""
    return fault.table == "index" and not fault.file and bool(fault.partition)


def drop_made(hurt: Hurt, *, every: bool, images_stay: bool) -> tuple[list[Todo], list[str]]:
    """Take hurt files out of pairs, clusters, splits and bases, and note that they are to be made again.

    Args:
        hurt: what is hurt.
        every: make all of pairs, clusters and splits again, as the images are not known to be what they were.
        images_stay: whether some images stay hurt. Then only clusters by keys can be made again.

    Returns:
        What is made again and the build does not tell of; what stays hurt, and why.
    """
    done: list[Todo] = []
    stays: list[str] = []
    blocked = {part.partition["rule"] for part in files(hurt.root, "index") if part.path in hurt.still("index")}
    for table in _MADE:
        units = read_meta(hurt.root, table).units
        wanted = set(units) if every else hurt.units.get(table, set()) & set(units)
        can = {unit for unit in wanted if not images_stay or (table == "clusters" and _by_keys(unit, blocked))}
        stays += [
            f"{table} of {unit}: cannot be made again before the images are back" for unit in sorted(wanted - can)
        ]
        if can:
            _note(hurt, table, units, can)
        if table == "pairs":
            done += [Todo("repair", f"pairs of {rule}", "found again") for rule in sorted(can)]
    if hurt.still("bases") and not images_stay:
        replace_rows(hurt.root, "bases", whole_rows(hurt.root, "bases", hurt.of("bases")), {})
        done.append(Todo("repair", "bases", "fitted again to the images that there are"))
    return done, stays


def _by_keys(rule: str, blocked: set[str]) -> bool:
    return parse_rule(rule).comparison is None and rule not in blocked


def _note(hurt: Hurt, table: str, units: Mapping[str, Any], wanted: set[str]) -> None:
    paths, still = sorted(hurt.of(table)), hurt.still(table)
    noted = {unit: _forgotten(table, held, paths) if unit in wanted else held for unit, held in units.items()}
    there = [part for part in files(hurt.root, table) if part.path in still]
    drop_files(hurt.root, table, [part.path for part in there if set(part.partition.values()) <= wanted], noted)


def _forgotten(table: str, held: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Note of a unit that its files are damaged; of pairs and clusters nothing is gone on from, so how is forgotten."""
    kept = {key: value for key, value in held.items() if key != "spec" or table == "splits"}
    return {**kept, DAMAGED: paths}


def restore_scores(hurt: Hurt, asked: set[str]) -> tuple[list[Todo], list[str]]:
    """Read hurt scores and misses back from older versions of their tables; runs that have none are forgotten.

    Args:
        hurt: what is hurt.
        asked: runs that the recipe names: these can be made again.

    Returns:
        What was done; and what is lost, and why.
    """
    tables = [name for name in ("misses", "scores") if hurt.still(name)]
    if not tables:
        return [], []
    units = read_meta(hurt.root, "scores").units
    ids = {name: unit["fingerprint"] for name, unit in units.items()}
    found = {table: _older_rows(hurt, table, set(ids.values())) for table in tables}
    back = {name for name, run in ids.items() if all(run in rows for rows in found.values())}
    # A run that nobody asks for any more is not trained again: of it, what is whole stays.
    stay = back | (set() if "scores" in tables else set(ids) - asked)
    for table in tables:
        rows = [of for run, of in found[table].items() if run in {ids[name] for name in back}]
        replace_rows(
            hurt.root, table, pl.concat([whole_rows(hurt.root, table, hurt.of(table)), *rows]), _of(units, stay)
        )
    if "scores" not in tables and stay != set(units):
        drop_files(hurt.root, "scores", [], _of(units, stay))
    lost = " and ".join(tables)
    why = "no older version has them, and the recipe does not name the run, so that it is not trained again"
    done = [Todo("repair", f"{lost} of {name}", "read back from an older version") for name in sorted(back)]
    return done, [f"{lost} of {name} are lost: {why}" for name in sorted(set(units) - back - asked)]


def _of(units: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: unit for name, unit in units.items() if name in names}


def _older_rows(hurt: Hurt, table: str, runs: set[str]) -> dict[str, pl.DataFrame]:
    """By run, its rows, from the newest version whose files are whole and that tells of it."""
    found: dict[str, pl.DataFrame] = {}
    for version, meta in metas(hurt.root, table):
        there = {unit["fingerprint"] for unit in meta.units.values()} & runs - set(found)
        parts = files(hurt.root, table, version) if there else []
        if there and not any(part.path in hurt.of(table) or not _is_whole(hurt.root, table, part) for part in parts):
            rows = whole_rows(hurt.root, table, (), version)
            found |= {run: rows.filter(run_id=run) for run in there}
    return found


def _is_whole(root: str, table: str, part: Part) -> bool:
    faults: list[Fault] = []
    for _ in read_through(Named(root, table, part), faults):
        pass
    return not faults


# No source has it: what is read from one that is there comes out right, and what is not is not taken for up to date.
_LOST = "lost"


def mend_releases(hurt: Hurt) -> list[Todo]:
    """Make rows of releases again from their commits."""
    if not hurt.still("releases"):
        return []
    told = told_recipes(hurt.root)
    numbers = remake_releases(hurt.root, hurt.of("releases"), {n: _digest(of) for n, of in told.items()})
    listed = ", ".join(map(str, numbers)) or "none"
    return [Todo("repair", "releases", f"made again from their commits: {listed}; the notes of these are lost")]


def mend_exports(hurt: Hurt) -> list[str]:
    """Take rows of exports out that cannot be read: nothing else knows what they said.

    Returns:
        What is lost.
    """
    lost = hurt.still("exports")
    if not lost:
        return []
    since: dict[str, int] = {}
    for version, _ in metas(hurt.root, "exports"):
        since |= {part.path: version for part in files(hurt.root, "exports", version) if part.path in lost}
    times = sorted(commit_time(hurt.root, "exports", version) for version in since.values())
    dates = ", ".join(f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M}" for time in times)
    replace_rows(hurt.root, "exports", whole_rows(hurt.root, "exports", hurt.of("exports")))
    told = (
        f"exports: what was told of {len(lost)} of them (written {dates} UTC) is lost. What was exported is whole, but "
    )
    return [told + "vacuum no longer knows which release it needs: export again, or give up no release"]


def mend_shards(hurt: Hurt, recipe: Recipe, found: Sequence[Source]) -> list[Todo]:
    """Make the shards table again: from an older version of it, or from what the sources say.

    The commit tells a digest of its rows. Where no rows have that, all sources are read again.
    """
    root = hurt.root
    if not hurt.still("shards"):
        return []
    counts = _counts(hurt)
    held, told = _older(hurt), _surveyed(recipe, found, counts)
    digest = read_meta(root, "shards").units.get("shards", {}).get("fingerprint")
    for facts in (held, told, {**told, **held}, {**held, **told}):
        rows = _rows(counts, facts)
        if len(rows) == len(counts) and shards_digest(rows) == digest:
            replace_rows(root, "shards", rows)
            return [Todo("repair", "shards", "made again, and equal to what it was")]
    known = {**_named(root, recipe, counts), **{key: fact[0] for key, fact in {**told, **held}.items()}}
    decoder = decoder_name(recipe.decode)
    lost = {key: (known.get(key, "unknown"), _LOST, decoder) for key in counts}
    replace_rows(root, "shards", _rows(counts, lost))
    return [Todo("repair", "shards", "made again; which state of the sources it was of is lost: all are read again")]


Facts = Mapping[tuple[str, ...], tuple[str, str, str]]


def _counts(hurt: Hurt) -> dict[tuple[str, ...], tuple[int, int]]:
    """By shard, how many images and rejects the lake has, as far as that can be told."""
    images = {_key(part.partition): part.rows for part in files(hurt.root, "images")}
    rejects = whole_rows(hurt.root, "rejects", hurt.of("rejects")).group_by(SHARD_KEY).len().rows()
    refused = {tuple(key): count for *key, count in rejects}
    return {key: (images.get(key, 0), refused.get(key, 0)) for key in sorted({*images, *refused})}


def _rows(counts: Mapping[tuple[str, ...], tuple[int, int]], facts: Facts) -> pl.DataFrame:
    rows = [
        (*key, facts[key][0], facts[key][1], images, rejects, facts[key][2])
        for key, (images, rejects) in counts.items()
        if key in facts
    ]
    return pl.DataFrame(rows, schema=polars_schema(schemas.TABLES["shards"].schema), orient="row").sort(SHARD_KEY)


def _older(hurt: Hurt) -> Facts:
    """By shard, uri, fingerprint and decoder as of the newest older version that can be read."""
    for version, _ in metas(hurt.root, "shards"):
        paths = {part.path for part in files(hurt.root, "shards", version)}
        if paths and not paths & set(hurt.of("shards")):
            try:
                with damage_named():
                    rows = whole_rows(hurt.root, "shards", (), version)
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


def _named(root: str, recipe: Recipe, keys: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """By shard, the uri of its source, of those that the recipe of any release names: a key has a digest of it."""
    parts = [part for one in (*_recipes(root), recipe) for part in one.source]
    some = [Source(part, Path(part.uri), part.split or "", "", None, 0) for part in parts]
    return {
        key: source.uri
        for source in some
        for key in keys
        if key[0] == source.dataset and key[2].startswith(shard_key(source, ""))
    }


def _recipes(root: str) -> list[Recipe]:
    return [recipe for told in told_recipes(root).values() if (recipe := _recipe(told)) is not None]


def _recipe(told: Mapping[str, Any]) -> Recipe | None:
    try:
        return parse_recipe(told["values"], base=Path(told["base"]))
    except (RecipeError, KeyError):
        return None


def _digest(told: Mapping[str, Any]) -> str:
    recipe = _recipe(told)
    return recipe.digest if recipe else ""


def _key(partition: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(partition[name] for name in SHARD_KEY)
