"""Releases, exports and shards: what nothing else is made without, repaired before anything else."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

import schemas
from pipeline import sources
from pipeline.decode import decoder_name
from pipeline.errors import RecipeError, SourceError
from pipeline.flow.repair.hurt import Hurt
from pipeline.flow.state import SHARD_KEY, Todo, shards_digest
from pipeline.flow.verify.check import DamagedError, damage_named
from pipeline.lake.commits import commit_time, files, metas, read_meta
from pipeline.lake.mending import remake_releases, replace_rows, told_recipes, whole_rows
from pipeline.lake.reading import polars_schema
from pipeline.recipe import Recipe, parse_recipe
from pipeline.sources import Source
from pipeline.sources.source import shard_key

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
