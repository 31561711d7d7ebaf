"""sources -> images, rejects, index, shards: find out which shards changed, decode them, check them and commit them."""

import time
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from socket import gethostname

import numpy as np
import polars as pl

from pipeline import sources
from pipeline.addresses import identity
from pipeline.builder.commit_ingest import (
    LOST,
    Decoded,
    IngestPlan,
    SourcePlan,
    check_paths,
    commit_shards,
    commit_shards_table,
    fingerprint_now,
    reconcile,
)
from pipeline.builder.shard_files import ShardFiles, assign_files, find_files
from pipeline.builder.state import SHARD_KEY, Todo, key_frame, stored_shards
from pipeline.builder.stored_images import StoredShard
from pipeline.builder.summary import ReadingNotes, check_any_image
from pipeline.builder.worker import Ingested, Job, ShardInput, ingest_shard
from pipeline.decode import decoder_name
from pipeline.engines import Engine
from pipeline.errors import LakeError, SourceError
from pipeline.lake.rewrite import hide_release_secrets
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Transaction
from pipeline.progress import Expected, Forecast, Progress
from pipeline.recipe import Recipe, SourcePart
from pipeline.shard import Deferred, Encoded, Files, Listing, Survey, sum_of_fingerprints
from pipeline.sources import Source
from pipeline.sources.remote import cache_folder, is_url
from pipeline.sources.source import readable_name

_SOURCE_KEY = ["dataset", "split", "uri"]

# What to do if a node of a cluster lacks a file.
_USE_SHARED_STORAGE = (
    "Put it on storage that every node has under the same path, or build with --engine local. Nothing was committed."
)


def plan_ingest(
    snapshot: Snapshot,
    recipe: Recipe,
    found: Sequence[Source],
    *,
    prune: bool,
    replaced: Collection[tuple[str, str]] = (),
) -> IngestPlan:
    """Compare the sources with the shards of the lake. No image is opened.

    Args:
        snapshot: the lake.
        recipe: what to build.
        found: the sources of the recipe.
        prune: drop sources that are not in the recipe.
        replaced: (dataset, uri) of sources that are dropped even without `prune`, because others replace them.

    Returns:
        What to read, and what to drop.

    Raises:
        SourceError: a source is missing or damaged.
    """
    shards = stored_shards(snapshot)
    decoder = decoder_name(recipe.decode)
    lacking = [part for part in recipe.source if sources.lacks_secrets(part)]
    for part in lacking:
        _check_unchanged(part, shards, decoder)
    plans = [_plan_source(snapshot, source, _shards_of(shards, source), decoder) for source in found]
    in_recipe = pl.DataFrame(
        [(source.dataset, source.split, source.uri) for source in found],
        schema=dict.fromkeys(_SOURCE_KEY, pl.String),
        orient="row",
    )
    others = shards.join(in_recipe, on=_SOURCE_KEY, how="anti")
    for part in lacking:
        others = others.filter(~((pl.col("dataset") == part.dataset) & (pl.col("uri") == identity(part.uri))))
    if not prune:
        dropped = [is_replaced(dataset, uri, replaced) for dataset, uri in others.select("dataset", "uri").rows()]
        others = others.filter(pl.Series(dropped, dtype=pl.Boolean))
    return IngestPlan(plans, shards, others)


def _check_unchanged(part: SourcePart, shards: pl.DataFrame, decoder: str) -> None:
    """Check that a source whose address lacks its secrets is in the lake: then it counts as unchanged.

    Raises:
        SourceError: it is not, or was decoded with other settings.
    """
    stored = shards.filter(dataset=part.dataset, uri=identity(part.uri))
    if stored.is_empty() or (stored["decoder"] != decoder).any():
        raise sources.lacking_error(part)


def is_replaced(dataset: str, uri: str, replaced: Collection[tuple[str, str]]) -> bool:
    """Return whether a uri belongs to one of the replaced sources, given as (dataset, uri)."""
    return any(
        dataset == name and (uri == identity(old) or uri.startswith(f"{old.rstrip('/')}/") or fnmatchcase(uri, old))
        for name, old in replaced
    )


def check_files(plan: IngestPlan, *, every: bool) -> None:
    """Check the byte size and the digest of source files against the recipe.

    Args:
        plan: made by `plan_ingest`.
        every: check all sources; else only those that are read.

    Raises:
        CheckError: a source fails the check. The message names it.
    """
    for item in plan.sources:
        if every or item.reason:
            sources.check_file(item.source)


def decode_sources(
    job: Job, plan: IngestPlan, engine: Engine, progress: Progress, known: Snapshot | None = None
) -> Decoded:
    """Decode what the plan lists, into files that are not committed yet. Other builds may commit at the same time.

    Args:
        job: the settings of the shards.
        plan: made by `plan_ingest`.
        engine: where to run.
        progress: shows the progress.
        known: the lake, to take the images of unchanged files from; None to decode all.

    Raises:
        SourceError: a source is damaged.
    """
    started = time.monotonic()
    shards: list[Ingested] = []
    # The share of its source that was read with each shard, in order, from the reader to the loop below.
    shares: deque[float | None] = deque()
    forecast, notes = _forecast(plan), ReadingNotes()
    ingest = partial(ingest_shard if engine.shares_disk else ingest_remotely, job)
    with closing(engine.map(ingest, _read_shards(plan, engine, notes, shares, known))) as results:
        progress.expect(forecast.total())
        for shard in results:
            shards.append(shard)
            images, rejects = len(shard.image_ids), len(shard.rejects)
            forecast.count((shard.dataset, shard.split, shard.uri), images + rejects, shares.popleft())
            progress.expect(forecast.total())
            progress.advance(images, rejects)
    seconds = time.monotonic() - started
    return Decoded(decoder_name(job.decode), plan, shards, seconds, notes.lines())


def ingest_remotely(job: Job, source: ShardInput) -> Ingested:
    """Ingest a shard in a worker on another machine, after a check that it has the lake and the source.

    Without this check, every file of a missing folder would become a reject.

    Raises:
        SourceError: this machine does not have the source.
        LakeError: this machine does not have the lake.
        DiskFullError: no space is left.
    """
    if "://" not in job.writer.place and not Path(job.writer.place).is_dir():
        raise LakeError(
            f"cluster node {gethostname()} cannot find the lake at {job.writer.place}. {_USE_SHARED_STORAGE}"
        )
    contents = source.shard.contents
    if isinstance(contents, Files) and contents.names and not Path(contents.names[0]).parent.is_dir():
        raise _not_found(source, str(Path(contents.names[0]).parent))
    try:
        return ingest_shard(job, source)
    except FileNotFoundError as error:
        raise _not_found(source, error.filename or str(error)) from error


def with_cached_content(source: Source, shard: Encoded) -> Encoded:
    """Read a shard of a downloaded file in the driver, because workers on other machines lack this machine's cache.

    Workers read all other sources themselves, from storage that all machines share.

    Args:
        source: the shard's source.
        shard: the shard, as read from the source.

    Returns:
        The shard, with its content if the source is in the cache. A download is always one file, never a folder.

    Raises:
        SourceError: the source is damaged.
    """
    if isinstance(shard.contents, Deferred) and _is_downloaded(source):
        return replace(shard, contents=shard.contents.make())
    return shard


def commit_sources(transaction: Transaction, decoded: Decoded) -> list[Todo]:
    """Commit what was decoded: images, index, rejects and shards, in this order.

    Shards that another build committed since the plan was made are kept. If they are equal to shards of this build,
    those of this build are dropped.

    Returns:
        What was done, and why.

    Raises:
        CheckError: a source fails a check of the recipe; nothing was committed.
        SourceError: two images have the same path, or the lake would have no image; nothing was committed.
        LakeError: another build changed one of the sources; nothing was committed.
    """
    snapshot = transaction.snapshot
    plan, shards, done = reconcile(snapshot, decoded)
    replaced = _replaced_shards(plan, shards)
    retained = plan.shards.join(replaced, on=SHARD_KEY, how="anti")
    check_classes(snapshot, plan, shards, retained)
    check_paths(snapshot, shards, retained)
    check_any_image(snapshot, shards, retained)
    if len(replaced):
        commit_shards(transaction, decoded.decoder, shards, replaced, retained)
    return done


def hide_secrets(transaction: Transaction, *, in_shards: bool) -> list[Todo]:
    """Hide the secrets of addresses that version 0.5 stored in releases and shards, if there are any.

    Args:
        transaction: of the lake.
        in_shards: whether no commit of shards follows, which hides those in shards.

    Returns:
        What was done, and why.
    """
    why = "secrets of addresses were stored"
    done = [Todo("ingest", "releases", why)] if hide_release_secrets(transaction) else []
    snapshot = transaction.snapshot
    shards = stored_shards(snapshot)
    if in_shards and not shards.equals(snapshot.scan("shards").collect()):
        commit_shards_table(transaction, shards)
        done.append(Todo("ingest", "shards", why))
    return done


def check_classes(snapshot: Snapshot, plan: IngestPlan, decoded: Sequence[Ingested], retained: pl.DataFrame) -> None:
    """Check the number of classes, and of images per class, that the recipe requires of a source.

    The images of new and of retained shards count. Files that match one pattern of the recipe are checked together. A
    class whose files are all rejects counts as a class with 0 images.

    Args:
        snapshot: the lake.
        plan: made by `plan_ingest`.
        decoded: the shards to commit.
        retained: rows of the shards table that stay.

    Raises:
        CheckError: a source fails the check. The message names it, and the classes with too few images.
    """
    groups: dict[tuple[str, str, str], list[Source]] = {}
    for source in (item.source for item in plan.sources):
        if source.part.classes is not None or source.part.min_per_class is not None:
            groups.setdefault((source.dataset, source.split, source.group or source.uri), []).append(source)
    for (dataset, split, _), members in groups.items():
        counts: Counter[str | None] = Counter()
        uris = {source.uri for source in members}
        for item in decoded:
            if (item.dataset, item.split) == (dataset, split) and item.uri in uris:
                counts.update({**dict.fromkeys(item.rejects["label"].to_pylist(), 0), **item.labels})
        shards = retained.filter(pl.col("uri").is_in(uris), dataset=dataset, split=split).lazy()
        for table, weight in (("rejects", 0), ("images", 1)):
            rows = snapshot.scan(table).select(*SHARD_KEY, "label").join(shards, on=SHARD_KEY, how="semi")
            counts.update(dict(rows.group_by("label").agg(pl.len() * weight).collect().rows()))
        sources.check_classes(members[0], counts)


def _plan_source(snapshot: Snapshot, source: Source, stored: pl.DataFrame, decoder: str) -> SourcePlan:
    survey = sources.survey(source)
    keys = frozenset(stored["shard"])
    # The rest of a folder, beside its splits, may have no shard at all.
    if stored.is_empty() and survey.images == 0:
        return SourcePlan(source, "", frozenset(), frozenset(), 0)
    if stored.is_empty():
        return _plan_all(source, survey, "new", keys)
    if (stored["fingerprint"] == LOST).any():
        # Their images may have been made with any settings, so none is taken.
        return _plan_all(source, survey, "its fingerprints were lost", keys)
    if (stored["decoder"] != decoder).any():
        return _plan_all(source, survey, "the decode settings changed", keys)
    fingerprints = {key: fingerprint_now(mark) for key, mark in stored.select("shard", "fingerprint").rows()}
    if survey.files is not None:
        return _plan_files(snapshot, source, survey, survey.files, fingerprints)
    return _compare_shards(source, survey, fingerprints)


def _plan_all(source: Source, survey: Survey, reason: str, stored: frozenset[str]) -> SourcePlan:
    """Plan to read a whole source; nothing of the lake is used."""
    if survey.files is None:
        return SourcePlan(source, reason, None, stored, survey.images)
    cut = survey.files.cut(np.arange(len(survey.files.paths)))
    shards = {key: ShardFiles(positions) for key, positions in cut.items()}
    return SourcePlan(source, reason, frozenset(shards), stored, survey.images, survey.files, shards)


def _plan_files(
    snapshot: Snapshot, source: Source, survey: Survey, files: Listing, stored: Mapping[str, str]
) -> SourcePlan:
    """Compare the files of a source with those of its shards, whose fingerprints are given by their keys."""
    if sum_of_fingerprints(stored.values()) == survey.fingerprint:
        return SourcePlan(source, "", frozenset(), frozenset())
    found = find_files(snapshot, source, files, stored)
    shards, gone = assign_files(files, found, stored)
    if not (shards or gone):
        return SourcePlan(source, "", frozenset(), frozenset())
    count = len(stored.keys() - gone | shards.keys())
    are = "is" if len(shards) == 1 else "are"
    reason = f"{len(shards)} of {count} shards {are} new or changed, {len(gone)} gone"
    return SourcePlan(source, reason, frozenset(shards), gone, None, files, shards)


def _compare_shards(source: Source, survey: Survey, stored: Mapping[str, str]) -> SourcePlan:
    """Compare the fingerprints of a source's shards with the stored ones."""
    if survey.shards is None:
        same = set(stored.values()) == {survey.fingerprint}
        return SourcePlan(source, "" if same else "its file changed", None, frozenset() if same else frozenset(stored))
    wanted = frozenset(key for key, digest in survey.shards.items() if stored.get(key) != digest)
    gone = frozenset(stored) - frozenset(survey.shards)
    reason = f"{len(wanted)} of {len(survey.shards)} shards changed, {len(gone)} gone" if wanted or gone else ""
    return SourcePlan(source, reason, wanted, gone)


def _shards_of(shards: pl.DataFrame, source: Source) -> pl.DataFrame:
    return shards.filter(dataset=source.dataset, split=source.split, uri=source.uri)


def _replaced_shards(plan: IngestPlan, decoded: Sequence[Ingested]) -> pl.DataFrame:
    """List the shards whose files are removed: decoded again, gone from their source, or of a dropped source."""
    keys = [(item.dataset, item.split, item.shard) for item in decoded]
    keys += [(item.source.dataset, item.source.split, shard) for item in plan.sources for shard in item.gone]
    return key_frame([*keys, *plan.dropped.select(SHARD_KEY).rows()])


def _forecast(plan: IngestPlan) -> Forecast:
    expected: dict[Hashable, Expected] = {}
    for item in plan.sources:
        source = item.source
        if item.reason:
            size = source.path.stat().st_size if source.path.is_file() else None
            expected[source.dataset, source.split, source.uri] = Expected(_expected_files(item, plan.shards), size)
    return Forecast(expected)


def _expected_files(item: SourcePlan, shards: pl.DataFrame) -> int | None:
    """Estimate how many files will be read from a source, from its survey or from the files it had before."""
    stored: dict[str, int] = dict(
        _shards_of(shards, item.source).select("shard", pl.col("rows") + pl.col("rejects")).rows()
    )
    if item.shards:
        return sum(len(files.positions) for files in item.shards.values())
    if item.wanted is None:
        return item.images or sum(stored.values()) or None
    mean = sum(stored.values()) / len(stored)
    return round(sum(stored.get(shard, mean) for shard in item.wanted))


def _read_shards(
    plan: IngestPlan,
    engine: Engine,
    notes: ReadingNotes,
    shares: deque[float | None],
    known: Snapshot | None,
) -> Iterator[ShardInput]:
    """Read the shards of a plan; append the share of the source that is read with each."""
    for item in plan.sources:
        if item.reason:
            source = item.source
            stored = _stored_shards(known, item) if known else {}
            for shard in _shards_to_read(item):
                notes.add(source, shard)
                shares.append(shard.done)
                content = shard if engine.shares_disk else with_cached_content(source, shard)
                yield ShardInput(
                    source.dataset,
                    source.split,
                    source.uri,
                    content,
                    _place(source, shard),
                    tuple(stored[key] for key in _keys_before(item, shard.shard) if key in stored),
                )


def _stored_shards(snapshot: Snapshot, item: SourcePlan) -> dict[str, StoredShard]:
    """Return, by key, the shards of the lake whose images may be taken for a source."""
    replaced = {key for files in item.shards.values() for key in files.stored}

    def is_replaced(partition: Mapping[str, str]) -> bool:
        same = (partition["dataset"], partition["split"]) == (item.source.dataset, item.source.split)
        return same and partition["shard"] in replaced

    images, originals = (
        {
            part.partition["shard"]: f"{snapshot.place}/{table}/{part.path}"
            for part in snapshot.files(table, is_replaced)
            if f"{snapshot.place}/{table}/{part.path}" not in snapshot.left_out
        }
        for table in ("images", "originals")
    )
    return {key: StoredShard(file, originals.get(key, "")) for key, file in images.items()}


def _shards_to_read(item: SourcePlan) -> Iterator[Encoded]:
    if item.files is None:
        return sources.read(item.source, item.wanted)
    return sources.read_listed(item.source, item.files, {key: of.positions for key, of in item.shards.items()})


def _keys_before(item: SourcePlan, key: str) -> tuple[str, ...]:
    """Return the keys of the shards of the lake that may have images of a shard to read."""
    return item.shards[key].stored if key in item.shards else ()


def _is_downloaded(source: Source) -> bool:
    # Of other sources the cache is not looked up: that imports libraries for downloads.
    return is_url(source.uri) and source.path.is_relative_to(cache_folder())


def _place(source: Source, shard: Encoded) -> str:
    """Return where a source is, for originals; empty if its files have locations of their own on this machine."""
    if _is_downloaded(source):
        return source.uri
    return "" if isinstance(shard.contents, Files) else readable_name(str(source.path))


def _not_found(source: ShardInput, place: str) -> SourceError:
    title = f"{source.dataset}/{source.split} ({source.uri})"
    return SourceError(f"{title}: cluster node {gethostname()} cannot find {place}. {_USE_SHARED_STORAGE}")
