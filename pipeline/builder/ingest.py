"""sources -> images, rejects, index, shards: plan what is new or changed, decode it, check it and commit it."""

import time
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from socket import gethostname

import polars as pl

from pipeline import sources
from pipeline.builder.commit_ingest import Decoded, IngestPlan, SourcePlan, check_paths, commit_shards, reconcile
from pipeline.builder.state import SHARD_KEY, Todo, key_frame
from pipeline.builder.summary import ReadingNotes, check_any_image
from pipeline.builder.worker import Ingested, Job, Load, ingest_shard
from pipeline.decode import decoder_name
from pipeline.engines import Engine
from pipeline.errors import LakeError, SourceError
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Transaction
from pipeline.progress import Expected, Forecast, Progress
from pipeline.recipe import Recipe
from pipeline.shard import Encoded, Files, Made, Survey
from pipeline.sources import Source
from pipeline.sources.remote.download import cache_folder


def with_cached_content(source: Source, shard: Encoded) -> Encoded:
    """Read a shard of a downloaded file in the driver: workers on other machines do not see this machine's cache.

    Workers read all other sources themselves, from storage that every machine sees.

    Args:
        source: the shard's source.
        shard: as the source returned it.

    Returns:
        The shard with its content, if that is in the cache. A download is one file, so it is never a folder of them.

    Raises:
        SourceError: the source is damaged.
    """
    if isinstance(shard.contents, Made) and source.path.is_relative_to(cache_folder()):
        return replace(shard, contents=shard.contents.make())
    return shard


def ingest_remotely(job: Job, load: Load) -> Ingested:
    """Ingest a shard in a worker on another machine, which must see the lake and the source.

    Without these checks every file of a missing folder would become a reject.

    Raises:
        SourceError: this machine does not see the source.
        LakeError: this machine does not see the lake.
        DiskFullError: no space is left.
    """
    if "://" not in job.writer.place and not Path(job.writer.place).is_dir():
        raise LakeError(
            f"{gethostname()}, a node of the cluster, does not see the lake at {job.writer.place}. {_SHARED}"
        )
    contents = load.shard.contents
    if isinstance(contents, Files) and contents.names and not Path(contents.names[0]).parent.is_dir():
        raise _not_seen(load, str(Path(contents.names[0]).parent))
    try:
        return ingest_shard(job, load)
    except FileNotFoundError as error:
        raise _not_seen(load, error.filename or str(error)) from error


_SHARED = "Put it on storage that every node sees under one path, or build with --engine local. Nothing was committed."


def _not_seen(load: Load, place: str) -> SourceError:
    title = f"{load.dataset}/{load.split} ({load.uri})"
    return SourceError(f"{title}: {gethostname()}, a node of the cluster, does not see {place}. {_SHARED}")


def plan_ingest(
    snapshot: Snapshot,
    recipe: Recipe,
    found: Sequence[Source],
    *,
    prune: bool,
    replaced: Collection[tuple[str, str]] = (),
) -> IngestPlan:
    """Compare the sources with what the lake was made from; opens no image.

    Args:
        snapshot: of the lake.
        recipe: what to build.
        found: its sources.
        prune: drop sources of other recipes.
        replaced: (dataset, uri) of sources that are dropped even without `prune`, as others take their place.
    """
    shards = snapshot.scan("shards").collect()
    decoder = decoder_name(recipe.decode)
    plans = [_plan_source(source, _rows_of_source(shards, source), decoder) for source in found]
    known = pl.DataFrame(
        [(s.dataset, s.split, s.uri) for s in found],
        schema=dict.fromkeys(("dataset", "split", "uri"), pl.String),
        orient="row",
    )
    others = shards.join(known, on=["dataset", "split", "uri"], how="anti")
    if not prune:
        gone = [is_replaced(dataset, uri, replaced) for dataset, uri in others.select("dataset", "uri").rows()]
        others = others.filter(pl.Series(gone, dtype=pl.Boolean))
    return IngestPlan(plans, shards, others)


def is_replaced(dataset: str, uri: str, replaced: Collection[tuple[str, str]]) -> bool:
    """Return whether a uri belongs to one of the replaced sources, given as (dataset, uri)."""
    return any(
        dataset == name and (uri == old or uri.startswith(f"{old.rstrip('/')}/") or fnmatchcase(uri, old))
        for name, old in replaced
    )


def decode_sources(job: Job, plan: IngestPlan, engine: Engine, progress: Progress) -> Decoded:
    """Decode what the plan lists, into files that no commit names yet. Other builds may commit meanwhile.

    Raises:
        SourceError: a source is damaged.
    """
    started = time.monotonic()
    made: list[Ingested] = []
    forecast, read, notes = _forecast(plan), deque[float | None](), ReadingNotes()
    ingest = partial(ingest_shard if engine.shares_disk else ingest_remotely, job)
    with closing(engine.map(ingest, _noted(_loads(plan, engine, notes), read))) as results:
        progress.expect(forecast.total())
        for ingested in results:
            made.append(ingested)
            images, rejects = len(ingested.image_ids), len(ingested.rejects)
            forecast.count((ingested.dataset, ingested.split, ingested.uri), images + rejects, read.popleft())
            progress.expect(forecast.total())
            progress.advance(images, rejects)
    seconds = time.monotonic() - started
    return Decoded(decoder_name(job.decode), plan, made, seconds, notes.lines())


def commit_sources(transaction: Transaction, decoded: Decoded) -> list[Todo]:
    """Commit what was decoded: images, index, rejects and shards, in this order.

    What another build committed since the plan was made stays. Where it committed the same, this one's is dropped.

    Returns:
        What was done, and why.

    Raises:
        CheckError: a source fails a check of the recipe; nothing was committed.
        SourceError: two images have one path, or no image would be in the lake; nothing was committed.
        LakeError: another build changed one of the sources meanwhile; nothing was committed.
    """
    snapshot, decoder = transaction.snapshot, decoded.decoder
    plan, made, done = reconcile(snapshot, decoded)
    replaced = _replaced(plan, made)
    retained = plan.shards.join(replaced, on=SHARD_KEY, how="anti")
    check_classes(snapshot, plan, made, retained)
    check_paths(snapshot, made, retained)
    check_any_image(snapshot, made, retained)
    if len(replaced):
        commit_shards(transaction, decoder, made, replaced, retained)
    return done


def _forecast(plan: IngestPlan) -> Forecast:
    expected: dict[Hashable, Expected] = {}
    for item in plan.sources:
        source = item.source
        if item.reason:
            size = source.path.stat().st_size if source.path.is_file() else None
            expected[source.dataset, source.split, source.uri] = Expected(_to_read(item, plan.shards), size)
    return Forecast(expected)


def _to_read(item: SourcePlan, shards: pl.DataFrame) -> int | None:
    """Tell how many files will be read of a source: by its survey, or by what it held the last time."""
    held: dict[str, int] = dict(
        _rows_of_source(shards, item.source).select("shard", pl.col("rows") + pl.col("rejects")).rows()
    )
    if item.wanted is None:
        return item.images or sum(held.values()) or None
    usual = sum(held.values()) / len(held)
    return round(sum(held.get(shard, usual) for shard in item.wanted))


def _noted(loads: Iterator[Load], read: deque[float | None]) -> Iterator[Load]:
    """Hand shards on, and note how far each source has been read with them."""
    for load in loads:
        read.append(load.shard.done)
        yield load


def check_files(plan: IngestPlan, *, every: bool) -> None:
    """Check byte size and digest of the sources that are read, or of every one where the recipe is new.

    Raises:
        CheckError: naming the source.
    """
    for item in plan.sources:
        if every or item.reason:
            sources.check_file(item.source)


def check_classes(snapshot: Snapshot, plan: IngestPlan, made: Sequence[Ingested], retained: pl.DataFrame) -> None:
    """Check the classes that the recipe asks of every source, over new and retained shards alike.

    Files that one pattern found are checked together. A class whose every file is a reject has no image, and falls
    short like any other.

    Raises:
        CheckError: naming the source and the classes that fall short.
    """
    groups: dict[tuple[str, str, str], list[Source]] = {}
    for source in (item.source for item in plan.sources):
        if source.part.classes is not None or source.part.min_per_class is not None:
            groups.setdefault((source.dataset, source.split, source.group or source.uri), []).append(source)
    for (dataset, split, _), members in groups.items():
        counts: Counter[str | None] = Counter()
        uris = {source.uri for source in members}
        for item in made:
            if (item.dataset, item.split) == (dataset, split) and item.uri in uris:
                counts.update({**dict.fromkeys(item.rejects["label"].to_pylist(), 0), **item.labels})
        stay = retained.filter(pl.col("uri").is_in(uris), dataset=dataset, split=split).lazy()
        for table, worth in (("rejects", 0), ("images", 1)):
            rows = snapshot.scan(table).select(*SHARD_KEY, "label").join(stay, on=SHARD_KEY, how="semi")
            found = rows.group_by("label").agg(pl.len() * worth).collect()
            counts.update(dict(found.rows()))
        sources.check_classes(members[0], counts)


def _plan_source(source: Source, recorded: pl.DataFrame, decoder: str) -> SourcePlan:
    survey = sources.survey(source)
    keys = frozenset(recorded["shard"])
    if recorded.is_empty() and survey.shards == {}:  # what is left of a folder beside its splits: nothing
        return SourcePlan(source, "", frozenset(), frozenset(), 0)
    if recorded.is_empty():
        return SourcePlan(source, "new", None, keys, survey.images)
    if (recorded["decoder"] != decoder).any():
        return SourcePlan(source, "the decode settings changed", None, keys, survey.images)
    return _compare(source, survey, dict(recorded.select("shard", "fingerprint").rows()))


def _compare(source: Source, survey: Survey, held: Mapping[str, str]) -> SourcePlan:
    if survey.shards is None:
        same = set(held.values()) == {survey.fingerprint}
        return SourcePlan(source, "" if same else "its file changed", None, frozenset() if same else frozenset(held))
    wanted = frozenset(key for key, digest in survey.shards.items() if held.get(key) != digest)
    gone = frozenset(held) - frozenset(survey.shards)
    reason = f"{len(wanted)} of {len(survey.shards)} shards changed, {len(gone)} gone" if wanted or gone else ""
    return SourcePlan(source, reason, wanted, gone)


def _rows_of_source(shards: pl.DataFrame, source: Source) -> pl.DataFrame:
    return shards.filter(dataset=source.dataset, split=source.split, uri=source.uri)


def _loads(plan: IngestPlan, engine: Engine, notes: ReadingNotes) -> Iterator[Load]:
    for item in plan.sources:
        if item.reason:
            for read in sources.read(item.source, item.wanted):
                notes.add(item.source, read)
                shard = read if engine.shares_disk else with_cached_content(item.source, read)
                yield Load(item.source.dataset, item.source.split, item.source.uri, shard)


def _replaced(plan: IngestPlan, made: Sequence[Ingested]) -> pl.DataFrame:
    """List the shards whose files go: made anew, gone from their source, or of a pruned source."""
    keys = [(item.dataset, item.split, item.shard) for item in made]
    keys += [(item.source.dataset, item.source.split, shard) for item in plan.sources for shard in item.gone]
    return key_frame([*keys, *plan.dropped.select(SHARD_KEY).rows()])
