"""Read damaged shards from their sources again, and replace their images, originals, index and rejects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from pipeline import sources, storage
from pipeline.addresses import identity
from pipeline.builder.commit_ingest import LOST, REREAD, IngestPlan, SourcePlan, commit_shards, fingerprint_now
from pipeline.builder.index import embedding_of
from pipeline.builder.ingest import check_files, decode_sources
from pipeline.builder.state import SHARD_KEY, key_frame, stored_shards
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
from pipeline.verify.faults import DamagedError, damage_errors


@dataclass
class Reread:
    """Shards that were read again and are not committed yet.

    Attributes:
        table: rows of the shards table before.
        damaged: shards with damaged images, originals or rejects.
        shards_read: shards that were read.
        changed: shards whose source has changed; a build reads them.
        lost: shards that cannot be read, with the reasons.
    """

    table: pl.DataFrame
    damaged: set[ShardKey]
    shards_read: list[Ingested] = field(default_factory=list)
    changed: set[ShardKey] = field(default_factory=set)
    lost: dict[ShardKey, str] = field(default_factory=dict)


def resolve_existing(recipe: Recipe) -> tuple[list[Source], dict[str, str]]:
    """Resolve the sources of a recipe that exist.

    Returns:
        The sources; and by uri of every other source, the reason why it cannot be found.
    """
    found: list[Source] = []
    missing_sources: dict[str, str] = {}
    for part in recipe.source:
        if sources.lacks_secrets(part):
            missing_sources[identity(part.uri)] = str(sources.lacking_error(part)).rstrip(".")
        try:
            found += sources.resolve(recipe.model_copy(update={"source": (part,)}))
        except SourceError as error:
            missing_sources[identity(part.uri)] = str(error).rstrip(".")
    return found, missing_sources


def reread_shards(  # noqa: PLR0913, PLR0917 - arguments of one step
    writer: Writer,
    recipe: Recipe,
    damage: Damage,
    found: Sequence[Source],
    missing_sources: Mapping[str, str],
    engine: Engine,
    progress: Progress,
) -> Reread:
    """Read damaged shards again if their source is unchanged. Needs no lock: other builds may commit meanwhile.

    Args:
        writer: registered in the lake.
        recipe: the lake's recipe.
        damage: the damage.
        found: sources that exist.
        missing_sources: by uri of every other source, the reason why it cannot be found.
        engine: where to run.
        progress: shows the progress.
    """
    snapshot = Snapshot(writer.place)
    shards = stored_shards(snapshot)
    reread = Reread(shards, {*damage.shards, *damage.originals, *_with_rejects(snapshot, damage, shards)})
    rules = {part.partition["rule"] for part in snapshot.files("index")}
    job = Job(writer, recipe.decode, tuple(sorted(rule for rule in rules if embedding_of(rule) is None)))
    for source in found:
        rows = shards.filter(dataset=source.dataset, split=source.split, uri=source.uri)
        damaged = {key for key in rows.select(SHARD_KEY).rows() if key in reread.damaged}
        try:
            if damaged and (plan := _plan(reread, source, rows, damaged, decoder_name(recipe.decode), damage)):
                check_files(plan, every=True)
                progress.stage("decode", rejects=True)
                reread.shards_read += decode_sources(job, plan, engine, progress).shards
        except SourceError as error:
            reread.lost |= dict.fromkeys(damaged, f"its source {source.uri} cannot be read: {str(error).rstrip('.')}")
    done = {(item.dataset, item.split, item.shard) for item in reread.shards_read}
    missing = reread.damaged - done - reread.changed - set(reread.lost)
    for row in shards.rows(named=True):
        key = tuple(row[name] for name in SHARD_KEY)
        if key in missing:
            why = missing_sources.get(row["uri"], "the recipe does not have it any more")
            reread.lost[key] = f"its source {row['uri']} is gone ({why})"
    unknown = reread.damaged - set(shards.select(SHARD_KEY).rows())
    reread.lost |= dict.fromkeys(unknown, "the shards table does not list the shard")
    return reread


def commit_reread(lake: Transaction, decoder: str, damage: Damage, reread: Reread) -> bool:
    """Commit the shards that were read again, unless another build changed the lake meanwhile.

    Args:
        lake: commits to the lake.
        decoder: name of the decoder, for the shards table.
        damage: the damage.
        reread: the shards that were read.

    Returns:
        Whether the images are known to be the same as before. If not, everything made of them must be made again.
    """
    now = stored_shards(lake.snapshot)
    if not now.equals(reread.table):
        # The other build may have repaired the shards.
        storage.delete(f"{lake.place}/{name}" for item in reread.shards_read for name in item.files)
        reread.lost |= dict.fromkeys(
            ((item.dataset, item.split, item.shard) for item in reread.shards_read),
            "another build changed the lake meanwhile; run the repair again",
        )
        reread.shards_read = []
    if not reread.shards_read:
        return True
    old = {_index_key(part): part for part in lake.snapshot.files("index") if part.path not in damage.of("index")}
    is_same = all(_is_same(lake.snapshot, item, old, now) for item in reread.shards_read)
    replaced = key_frame((item.dataset, item.split, item.shard) for item in reread.shards_read)
    retained = now.join(replaced, on=SHARD_KEY, how="anti")
    keep = _kept_rejects(lake.snapshot, damage, retained)
    lake.leave_out(damage.places())
    commit_shards(lake, decoder, reread.shards_read, replaced, retained, keep=keep)
    lake.leave_out(())
    return is_same


def _with_rejects(snapshot: Snapshot, damage: Damage, shards: pl.DataFrame) -> set[ShardKey]:
    """List the shards that may have rejects in a damaged file."""
    touched = {
        (part.partition["dataset"], part.partition["split"])
        for part in snapshot.files("rejects")
        if part.path in damage.of("rejects")
    }
    # Where the shards table was lost too, damaged rejects are not counted in it.
    rows = shards.filter((pl.col("rejects") > 0) | (pl.col("fingerprint") == LOST)).select(SHARD_KEY).rows()
    return {key for key in rows if key[:2] in touched}


def _kept_rejects(snapshot: Snapshot, damage: Damage, retained: pl.DataFrame) -> list[str]:
    """List the damaged files that may have rejects of shards that were not read again: these files stay."""
    needed = {key[:2] for key in retained.filter(pl.col("rejects") > 0).select(SHARD_KEY).rows()}
    return [
        part.path
        for part in snapshot.files("rejects")
        if part.path in damage.of("rejects") and (part.partition["dataset"], part.partition["split"]) in needed
    ]


def _plan(  # noqa: PLR0913, PLR0917 - arguments of one step
    reread: Reread, source: Source, rows: pl.DataFrame, damaged: set[ShardKey], decoder: str, damage: Damage
) -> IngestPlan | None:
    """Plan to read the damaged shards of a source that are unchanged; record the others in `reread`."""
    survey = sources.survey(source)
    unchanged = set()
    for row in rows.filter(pl.col("shard").is_in([key[2] for key in damaged])).rows(named=True):
        key = tuple(row[name] for name in SHARD_KEY)
        now = survey.fingerprint if survey.shards is None else survey.shards.get(row["shard"])
        if now is None:
            reread.lost[key] = f"its source {source.uri} has changed and no longer has that shard"
        elif row["decoder"] != decoder or fingerprint_now(row["fingerprint"]) not in (now, REREAD):
            reread.changed.add(key)
        else:
            unchanged.add(row["shard"])
    if not unchanged:
        return None
    images = sum(max(damage.shards[key], damage.originals[key]) for key in damaged if key[2] in unchanged)
    reason = f"its files are damaged: {images:,} images of {len(unchanged)} shards"
    plan = SourcePlan(source, reason, frozenset(unchanged), frozenset())
    return IngestPlan([plan], reread.table, reread.table.clear())


def _index_key(part: Part) -> tuple[str, ...]:
    return tuple(part.partition[name] for name in ("rule", *SHARD_KEY))


def _is_same(snapshot: Snapshot, item: Ingested, old: Mapping[tuple[str, ...], Part], shards: pl.DataFrame) -> bool:
    """Whether a shard is known to be the same: it has as many images and rejects, and the same index."""
    row = shards.filter(**item.partition).row(0, named=True)
    pairs = [(old.get(_index_key(part)), part) for part in item.index]
    try:
        with damage_errors():
            same = all(
                before is not None and _rows(snapshot, before) == _rows(snapshot, after) for before, after in pairs
            )
    except DamagedError:
        return False
    return same and bool(pairs) and (row["rows"], row["rejects"]) == (len(item.image_ids), len(item.rejects))


def _rows(snapshot: Snapshot, part: Part) -> object:
    with storage.open_parquet(f"{snapshot.place}/index/{part.path}") as opened:
        return opened.read()
