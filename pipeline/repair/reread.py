"""Read damaged shards from their sources again, and replace their images, originals, index and rejects."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from pipeline import sources, storage
from pipeline.addresses import identity
from pipeline.builder.commit_ingest import LOST, REREAD, IngestPlan, SourcePlan, commit_shards, fingerprint_now
from pipeline.builder.index import embedding_of
from pipeline.builder.ingest import check_files, decode_sources
from pipeline.builder.shard_files import ShardFiles, find_files, is_unchanged
from pipeline.builder.state import SHARD_KEY, key_frame, stored_shards
from pipeline.builder.worker import Ingested, Job
from pipeline.decode import decoder_name
from pipeline.engines import Engine
from pipeline.errors import DamagedLakeError, SourceError
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Transaction
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.repair.damage import Damage, ShardKey
from pipeline.shard import Listing, Survey, sum_of_fingerprints
from pipeline.sources import Source


@dataclass
class Reread:
    """Shards that were read again and are not committed yet.

    Attributes:
        table: rows of the shards table before.
        damaged: shards with damaged images, originals or rejects.
        shards_read: shards that were read.
        replaced: the damaged shards that these replace: they have the same images, maybe in other shards.
        changed: shards whose source has changed; a build reads them.
        listed: those of them whose source lists its files: the build reads the files that are still there.
        lost: shards that cannot be read, with the reasons.
    """

    table: pl.DataFrame
    damaged: set[ShardKey]
    shards_read: list[Ingested] = field(default_factory=list)
    replaced: set[ShardKey] = field(default_factory=set)
    changed: set[ShardKey] = field(default_factory=set)
    listed: set[ShardKey] = field(default_factory=set)
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
            if damaged and (planned := _plan(snapshot, reread, source, damaged, decoder_name(recipe.decode), damage)):
                plan, replaced = planned
                check_files(plan, every=True)
                progress.stage("decode", rejects=True)
                reread.shards_read += decode_sources(job, plan, engine, progress).shards
                reread.replaced |= replaced
        except SourceError as error:
            reread.lost |= dict.fromkeys(damaged, f"its source {source.uri} cannot be read: {str(error).rstrip('.')}")
    missing = reread.damaged - reread.replaced - reread.changed - set(reread.lost)
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
        why = "another build changed the lake meanwhile; run the repair again"
        reread.lost |= dict.fromkeys(reread.replaced, why)
        reread.shards_read, reread.replaced = [], set()
    if not reread.shards_read:
        return True
    replaced = key_frame(reread.replaced)
    is_same = _is_same(lake.snapshot, reread, now.join(replaced, on=SHARD_KEY, how="semi"), damage.of("index"))
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
    snapshot: Snapshot, reread: Reread, source: Source, damaged: set[ShardKey], decoder: str, damage: Damage
) -> tuple[IngestPlan, set[ShardKey]] | None:
    """Plan to read the damaged shards of a source that are unchanged; record the others in `reread`.

    Returns:
        The plan, and the damaged shards that it replaces; None if there are none.
    """
    survey = sources.survey(source)
    rows = reread.table.join(key_frame(damaged), on=SHARD_KEY, how="semi")
    shards: dict[str, ShardFiles] = {}
    if survey.files is not None:
        known = snapshot.without(damage.places())
        shards, replaced = _listed_shards(known, reread, source, survey.files, rows, decoder)
    else:
        replaced = _unchanged_shards(reread, source, survey, rows, decoder)
    if not replaced:
        return None
    images = sum(max(damage.shards[key], damage.originals[key]) for key in replaced)
    reason = f"its files are damaged: {images:,} images of {len(replaced)} shards"
    wanted = frozenset(shards) or frozenset(key[2] for key in replaced)
    plan = SourcePlan(source, reason, wanted, frozenset(), None, survey.files, shards)
    return IngestPlan([plan], reread.table, reread.table.clear()), replaced


def _unchanged_shards(
    reread: Reread, source: Source, survey: Survey, rows: pl.DataFrame, decoder: str
) -> set[ShardKey]:
    """Return those of the damaged shards, given by their rows, whose source is unchanged; record the others."""
    unchanged = set()
    for row in rows.rows(named=True):
        key = tuple(row[name] for name in SHARD_KEY)
        now = survey.fingerprint if survey.shards is None else survey.shards.get(row["shard"])
        if now is None:
            reread.lost[key] = f"its source {source.uri} has changed and no longer has that shard"
        elif row["decoder"] != decoder or fingerprint_now(row["fingerprint"]) not in (now, REREAD):
            reread.changed.add(key)
        else:
            unchanged.add(key)
    return unchanged


def _listed_shards(  # noqa: PLR0913, PLR0917 - arguments of one step
    known: Snapshot, reread: Reread, source: Source, files: Listing, rows: pl.DataFrame, decoder: str
) -> tuple[dict[str, ShardFiles], set[ShardKey]]:
    """Find the files of the damaged shards, given by their rows, of a source that lists files.

    A damaged shard may lack the list of its files. All such shards together have the files that are in none of the
    other shards, and their fingerprints show whether these are still the same. They are read as new shards.

    Args:
        known: the lake without damaged files.
        reread: records the shards that are changed or lost.
        source: the source.
        files: its files.
        rows: rows of the shards table.
        decoder: name of the decoder.

    Returns:
        The shards to read, and the damaged shards that they replace.
    """
    own = reread.table.filter(dataset=source.dataset, split=source.split, uri=source.uri)
    found = find_files(known, source, files, own["shard"].to_list())
    marks = {row["shard"]: fingerprint_now(row["fingerprint"]) for row in rows.rows(named=True)}
    damaged = dict(zip(rows["shard"], rows.select(SHARD_KEY).rows(), strict=True))
    if (rows["decoder"] != decoder).any():
        return _left_to_the_build(reread, set(damaged.values()))
    listed = {key: found.shards[key] for key in damaged if key in found.shards}
    shards = {key: ShardFiles(at) for key, at in listed.items() if is_unchanged(files, at, marks[key])}
    unlisted = sorted(damaged.keys() - shards.keys())
    replaced = {damaged[key] for key in shards}
    if not unlisted:
        return shards, replaced
    rest = np.sort(np.concatenate([found.others, *(listed[key] for key in unlisted if key in listed)]))
    if not len(rest):
        why = f"its source {source.uri} has changed and no longer has that shard"
        reread.lost |= dict.fromkeys((damaged[key] for key in unlisted), why)
        return shards, replaced
    # Of a lake before 0.6, only a single shard can be compared.
    together = sum_of_fingerprints(marks[key] for key in unlisted) or marks[unlisted[0]]
    if REREAD not in marks.values() and not is_unchanged(files, rest, together):
        _left_to_the_build(reread, {damaged[key] for key in unlisted})
        return shards, replaced
    cut = files.cut(rest) if len(unlisted) > 1 else {unlisted[0]: rest}
    shards |= {key: ShardFiles(positions) for key, positions in cut.items()}
    return shards, replaced | {damaged[key] for key in unlisted}


def _left_to_the_build(reread: Reread, shards: set[ShardKey]) -> tuple[dict[str, ShardFiles], set[ShardKey]]:
    """Record that the build reads shards of a source that lists files, as it has changed; nothing is read before."""
    reread.changed |= shards
    reread.listed |= shards
    return {}, set()


def _is_same(snapshot: Snapshot, reread: Reread, before: pl.DataFrame, damaged: Collection[str]) -> bool:
    """Whether the images are known to be the same: there are as many images and rejects, with the same index.

    Args:
        snapshot: the lake.
        reread: the shards that were read.
        before: rows of the shards table of the shards that they replace.
        damaged: paths of damaged files of the index.
    """
    old = [
        part.path for part in snapshot.files("index", lambda p: tuple(p[name] for name in SHARD_KEY) in reread.replaced)
    ]
    new = [part.path for item in reread.shards_read for part in item.index]
    if not old or not set(damaged).isdisjoint(old):
        return False
    counts = [(len(item.image_ids), len(item.rejects)) for item in reread.shards_read]
    if before.select(pl.sum("rows", "rejects")).row(0) != tuple(map(sum, zip(*counts, strict=True))):
        return False
    try:
        with storage.damage_errors(f"{snapshot.place}/index"):
            rows, now = (snapshot.scan_files("index", paths).drop("shard").collect() for paths in (old, new))
    except DamagedLakeError:
        return False
    keys = ["rule", "dataset", "split", "image_id"]
    return rows.sort(keys).equals(now.sort(keys))
