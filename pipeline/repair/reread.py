"""Read hurt shards from their sources again: images, index and rejects are replaced as any build replaces them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from pipeline import sources, storage
from pipeline.builder.commit_ingest import AGAIN, IngestPlan, SourcePlan, commit_shards
from pipeline.builder.index import name_of
from pipeline.builder.ingest import check_files, read_sources
from pipeline.builder.state import SHARD_KEY, key_frame
from pipeline.builder.worker import Ingested, Job
from pipeline.decode import decoder_name
from pipeline.engines import Engine
from pipeline.errors import SourceError
from pipeline.lake.commits import files
from pipeline.lake.parquet_writer import Part
from pipeline.lake.reading import scan_table, without
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.repair.damage import Hurt, ShardKey
from pipeline.sources import Source
from pipeline.verify.faults import DamagedError, damage_named


@dataclass
class Again:
    """Shards that were read again, and are not committed yet.

    Attributes:
        shards: rows of the shards table.
        wanted: shards to be read again: their images are hurt, or rejects of theirs.
        made: those that were read.
        changed: those whose source is there, and has changed since: a build reads it anew.
        lost: those that cannot be read, and why.
    """

    shards: pl.DataFrame
    wanted: set[ShardKey]
    made: list[Ingested] = field(default_factory=list)
    changed: set[ShardKey] = field(default_factory=set)
    lost: dict[ShardKey, str] = field(default_factory=dict)


def resolve_there(recipe: Recipe) -> tuple[list[Source], dict[str, str]]:
    """Find the sources of a recipe that are there.

    Returns:
        The sources; and by uri, why those that are not cannot be found.
    """
    found: list[Source] = []
    gone: dict[str, str] = {}
    for part in recipe.source:
        try:
            found += sources.resolve(recipe.model_copy(update={"source": (part,)}))
        except SourceError as error:
            gone[part.uri] = str(error).rstrip(".")
    return found, gone


def read_again(  # noqa: PLR0913, PLR0917 - what a repair is made of
    recipe: Recipe, hurt: Hurt, found: Sequence[Source], gone: Mapping[str, str], engine: Engine, progress: Progress
) -> Again:
    """Read hurt shards again whose source is what it was; others may write to the lake meanwhile.

    Args:
        recipe: the recipe.
        hurt: what is hurt.
        found: sources that are there.
        gone: by uri, why others are not.
        engine: where to run.
        progress: where to show it.
    """
    root = recipe.root
    shards = scan_table(root, "shards", None).collect()
    again = Again(shards, set(hurt.shards) | _with_rejects(hurt, shards))
    rules = {part.partition["rule"] for part in files(root, "index")}
    job = Job(root, recipe.decode, tuple(sorted(rule for rule in rules if name_of(rule) is None)))
    for source in found:
        rows = shards.filter(dataset=source.dataset, split=source.split, uri=source.uri)
        mine = {key for key in rows.select(SHARD_KEY).rows() if key in again.wanted}
        try:
            if mine and (plan := _plan(again, source, rows, mine, decoder_name(recipe.decode), hurt)):
                check_files(plan, every=True)
                progress.stage("decode", rejects=True)
                again.made += read_sources(root, job, plan, engine, progress).made
        except SourceError as error:
            again.lost |= dict.fromkeys(mine, f"its source {source.uri} cannot be read: {str(error).rstrip('.')}")
    done = {(item.dataset, item.split, item.shard) for item in again.made}
    for row in shards.rows(named=True):
        key = tuple(row[name] for name in SHARD_KEY)
        if key in again.wanted - done - again.changed - set(again.lost):
            why = gone.get(row["uri"], "no file of the recipe's sources is it any more")
            again.lost[key] = f"its source {row['uri']} is gone ({why})"
    unknown = again.wanted - set(shards.select(SHARD_KEY).rows())
    again.lost |= dict.fromkeys(unknown, "the shards table does not know the shard")
    return again


def commit_again(root: str, decoder: str, hurt: Hurt, again: Again) -> bool:
    """Commit the shards that were read again, where their files are still those that are hurt. The lake must be locked.

    Args:
        root: the lake's place.
        decoder: name of the decoder.
        hurt: what is hurt.
        again: what was read.

    Returns:
        Whether the images are known to be what they were: if not, all that was made of them must be made again.
    """
    now = scan_table(root, "shards", None).collect()
    if not now.equals(again.shards):
        # Another build was faster: its files are another matter.
        storage.delete(f"{root}/{name}" for item in again.made for name in item.files)
        again.lost |= dict.fromkeys(
            ((item.dataset, item.split, item.shard) for item in again.made),
            "another build changed the lake meanwhile: build with --repair again",
        )
        again.made = []
    if not again.made:
        return True
    old = {_entry(part): part for part in files(root, "index") if part.path not in hurt.of("index")}
    same = all(_is_same(root, item, old, now) for item in again.made)
    replaced = key_frame((item.dataset, item.split, item.shard) for item in again.made)
    retained = now.join(replaced, on=SHARD_KEY, how="anti")
    with without(hurt.places()):
        commit_shards(root, decoder, again.made, replaced, retained, keep=_kept(hurt, retained))
    return same


def _with_rejects(hurt: Hurt, shards: pl.DataFrame) -> set[ShardKey]:
    """List the shards that a hurt file of rejects held rows of."""
    touched = {
        (part.partition["dataset"], part.partition["split"])
        for part in files(hurt.root, "rejects")
        if part.path in hurt.of("rejects")
    }
    rows = shards.filter(pl.col("rejects") > 0).select(SHARD_KEY).rows()
    return {key for key in rows if key[:2] in touched}


def _kept(hurt: Hurt, retained: pl.DataFrame) -> list[str]:
    """List the hurt files of rejects with rows of shards that were not read again: nothing is dropped in silence."""
    needed = {key[:2] for key in retained.filter(pl.col("rejects") > 0).select(SHARD_KEY).rows()}
    return [
        part.path
        for part in files(hurt.root, "rejects")
        if part.path in hurt.of("rejects") and (part.partition["dataset"], part.partition["split"]) in needed
    ]


def _plan(  # noqa: PLR0913, PLR0917 - a source, and all that is known of it
    again: Again, source: Source, rows: pl.DataFrame, mine: set[ShardKey], decoder: str, hurt: Hurt
) -> IngestPlan | None:
    """Plan to read what a source still has as it was; what it has not is noted."""
    survey = sources.survey(source)
    wanted = set()
    for row in rows.filter(pl.col("shard").is_in([key[2] for key in mine])).rows(named=True):
        key = tuple(row[name] for name in SHARD_KEY)
        now = survey.fingerprint if survey.shards is None else survey.shards.get(row["shard"])
        if now is None:
            again.lost[key] = f"its source {source.uri} has changed and no longer has that shard"
        elif row["decoder"] != decoder or row["fingerprint"] not in (now, AGAIN):
            again.changed.add(key)
        else:
            wanted.add(row["shard"])
    if not wanted:
        return None
    images = sum(hurt.shards[key] for key in mine if key[2] in wanted)
    reason = f"its files are damaged: {images:,} images of {len(wanted)} shards"
    plan = SourcePlan(source, reason, frozenset(wanted), frozenset())
    return IngestPlan([plan], again.shards, again.shards.clear())


def _entry(part: Part) -> tuple[str, ...]:
    return tuple(part.partition[name] for name in ("rule", *SHARD_KEY))


def _is_same(root: str, item: Ingested, old: Mapping[tuple[str, ...], Part], shards: pl.DataFrame) -> bool:
    """Tell whether a shard is sure to show what it did: as many images and rejects, and the very same index."""
    row = shards.filter(**item.partition).row(0, named=True)
    pairs = [(old.get(_entry(part)), part) for part in item.index]
    try:
        with damage_named():
            same = all(before is not None and _rows(root, before) == _rows(root, after) for before, after in pairs)
    except DamagedError:
        return False
    return same and bool(pairs) and (row["rows"], row["rejects"]) == (len(item.image_ids), len(item.rejects))


def _rows(root: str, part: Part) -> object:
    with storage.open_parquet(f"{root}/index/{part.path}") as opened:
        return opened.read()
