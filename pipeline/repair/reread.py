"""Read damaged shards from their sources again, and replace their images, index and rejects as any build does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from pipeline import sources, storage
from pipeline.builder.commit_ingest import REREAD, IngestPlan, SourcePlan, commit_shards
from pipeline.builder.index import name_of
from pipeline.builder.ingest import check_files, decode_sources
from pipeline.builder.state import SHARD_KEY, key_frame
from pipeline.builder.worker import Ingested, Job
from pipeline.decode import decoder_name
from pipeline.engines import Engine
from pipeline.errors import SourceError
from pipeline.lake.parquet_writer import Part, Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Transaction
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.repair.damage import Damage, ShardKey
from pipeline.sources import Source
from pipeline.verify.faults import DamagedError, damage_named


@dataclass
class Reread:
    """Shards that were read again, and are not committed yet.

    Attributes:
        shards: rows of the shards table.
        wanted: shards to read again, as images or rejects of theirs are damaged.
        made: shards that were read.
        changed: shards whose source has changed since: a build reads it.
        lost: shards that cannot be read, and why.
    """

    shards: pl.DataFrame
    wanted: set[ShardKey]
    made: list[Ingested] = field(default_factory=list)
    changed: set[ShardKey] = field(default_factory=set)
    lost: dict[ShardKey, str] = field(default_factory=dict)


def resolve_existing(recipe: Recipe) -> tuple[list[Source], dict[str, str]]:
    """Resolve the sources of a recipe that exist.

    Returns:
        The sources; and by uri, why the others cannot be found.
    """
    found: list[Source] = []
    gone: dict[str, str] = {}
    for part in recipe.source:
        try:
            found += sources.resolve(recipe.model_copy(update={"source": (part,)}))
        except SourceError as error:
            gone[part.uri] = str(error).rstrip(".")
    return found, gone


def reread_shards(  # noqa: PLR0913, PLR0917 - arguments of one step
    writer: Writer,
    recipe: Recipe,
    damage: Damage,
    found: Sequence[Source],
    gone: Mapping[str, str],
    engine: Engine,
    progress: Progress,
) -> Reread:
    """Read damaged shards whose source is unchanged again; other builds may commit meanwhile.

    Args:
        writer: registered in the lake.
        recipe: the recipe.
        damage: the damage.
        found: sources that exist.
        gone: by uri, why others do not.
        engine: where to run.
        progress: where to show it.
    """
    snapshot = Snapshot(writer.place)
    shards = snapshot.scan("shards").collect()
    reread = Reread(shards, set(damage.shards) | _with_rejects(snapshot, damage, shards))
    rules = {part.partition["rule"] for part in snapshot.files("index")}
    job = Job(writer, recipe.decode, tuple(sorted(rule for rule in rules if name_of(rule) is None)))
    for source in found:
        rows = shards.filter(dataset=source.dataset, split=source.split, uri=source.uri)
        mine = {key for key in rows.select(SHARD_KEY).rows() if key in reread.wanted}
        try:
            if mine and (plan := _plan(reread, source, rows, mine, decoder_name(recipe.decode), damage)):
                check_files(plan, every=True)
                progress.stage("decode", rejects=True)
                reread.made += decode_sources(job, plan, engine, progress).shards
        except SourceError as error:
            reread.lost |= dict.fromkeys(mine, f"its source {source.uri} cannot be read: {str(error).rstrip('.')}")
    done = {(item.dataset, item.split, item.shard) for item in reread.made}
    for row in shards.rows(named=True):
        key = tuple(row[name] for name in SHARD_KEY)
        if key in reread.wanted - done - reread.changed - set(reread.lost):
            why = gone.get(row["uri"], "the recipe no longer has such a source")
            reread.lost[key] = f"its source {row['uri']} is gone ({why})"
    unknown = reread.wanted - set(shards.select(SHARD_KEY).rows())
    reread.lost |= dict.fromkeys(unknown, "the shards table does not list the shard")
    return reread


def commit_reread(lake: Transaction, decoder: str, damage: Damage, reread: Reread) -> bool:
    """Commit the shards that were read again, if no other build changed the lake meanwhile.

    Args:
        lake: of the lake.
        decoder: name of the decoder.
        damage: the damage.
        reread: what was read.

    Returns:
        Whether the images are known to be what they were: if not, all that was made of them must be made reread.
    """
    now = lake.snapshot.scan("shards").collect()
    if not now.equals(reread.shards):
        # Another build was faster, and its files may be whole.
        storage.delete(f"{lake.place}/{name}" for item in reread.made for name in item.files)
        reread.lost |= dict.fromkeys(
            ((item.dataset, item.split, item.shard) for item in reread.made),
            "another build changed the lake meanwhile: build with --repair again",
        )
        reread.made = []
    if not reread.made:
        return True
    old = {_entry(part): part for part in lake.snapshot.files("index") if part.path not in damage.of("index")}
    same = all(_is_same(lake.snapshot, item, old, now) for item in reread.made)
    replaced = key_frame((item.dataset, item.split, item.shard) for item in reread.made)
    retained = now.join(replaced, on=SHARD_KEY, how="anti")
    keep = _kept_rejects(lake.snapshot, damage, retained)
    lake.leave_out(damage.places())
    commit_shards(lake, decoder, reread.made, replaced, retained, keep=keep)
    lake.leave_out(())
    return same


def _with_rejects(snapshot: Snapshot, damage: Damage, shards: pl.DataFrame) -> set[ShardKey]:
    """List the shards whose rejects are in a damaged file."""
    touched = {
        (part.partition["dataset"], part.partition["split"])
        for part in snapshot.files("rejects")
        if part.path in damage.of("rejects")
    }
    rows = shards.filter(pl.col("rejects") > 0).select(SHARD_KEY).rows()
    return {key for key in rows if key[:2] in touched}


def _kept_rejects(snapshot: Snapshot, damage: Damage, retained: pl.DataFrame) -> list[str]:
    """List the damaged files of rejects with rows of shards that were not read again: no row is dropped silently."""
    needed = {key[:2] for key in retained.filter(pl.col("rejects") > 0).select(SHARD_KEY).rows()}
    return [
        part.path
        for part in snapshot.files("rejects")
        if part.path in damage.of("rejects") and (part.partition["dataset"], part.partition["split"]) in needed
    ]


def _plan(  # noqa: PLR0913, PLR0917 - a source, and all that is known of it
    reread: Reread, source: Source, rows: pl.DataFrame, mine: set[ShardKey], decoder: str, damage: Damage
) -> IngestPlan | None:
    """Plan to read the shards that a source still has unchanged; note the others in `reread`."""
    survey = sources.survey(source)
    wanted = set()
    for row in rows.filter(pl.col("shard").is_in([key[2] for key in mine])).rows(named=True):
        key = tuple(row[name] for name in SHARD_KEY)
        now = survey.fingerprint if survey.shards is None else survey.shards.get(row["shard"])
        if now is None:
            reread.lost[key] = f"its source {source.uri} has changed and no longer has that shard"
        elif row["decoder"] != decoder or row["fingerprint"] not in (now, REREAD):
            reread.changed.add(key)
        else:
            wanted.add(row["shard"])
    if not wanted:
        return None
    images = sum(damage.shards[key] for key in mine if key[2] in wanted)
    reason = f"its files are damaged: {images:,} images of {len(wanted)} shards"
    plan = SourcePlan(source, reason, frozenset(wanted), frozenset())
    return IngestPlan([plan], reread.shards, reread.shards.clear())


def _entry(part: Part) -> tuple[str, ...]:
    return tuple(part.partition[name] for name in ("rule", *SHARD_KEY))


def _is_same(snapshot: Snapshot, item: Ingested, old: Mapping[tuple[str, ...], Part], shards: pl.DataFrame) -> bool:
    """Whether a shard is known to be equal: it has as many images and rejects, and the same index."""
    row = shards.filter(**item.partition).row(0, named=True)
    pairs = [(old.get(_entry(part)), part) for part in item.index]
    try:
        with damage_named():
            same = all(
                before is not None and _rows(snapshot, before) == _rows(snapshot, after) for before, after in pairs
            )
    except DamagedError:
        return False
    return same and bool(pairs) and (row["rows"], row["rejects"]) == (len(item.image_ids), len(item.rejects))


def _rows(snapshot: Snapshot, part: Part) -> object:
    with storage.open_parquet(f"{snapshot.place}/index/{part.path}") as opened:
        return opened.read()
