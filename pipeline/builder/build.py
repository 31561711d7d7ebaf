"""Build a lake: run every step that is out of date, then publish a release. If nothing is, nothing is committed.

sources -> decode -> [images, rejects] -> [attributes] -> dedup -> [index, pairs, clusters] -> issues
-> [measurements, issues] -> splits -> [splits] -> arrays -> baselines -> [scores, misses, models] -> [predictions]
-> release -> report

`build` is the entry point, `update_lake` decodes and commits, and `_run_steps` is the order of the steps. A step is a
function of a snapshot and a part of the recipe. It returns the commits to make.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from pipeline import arguments, sources, storage
from pipeline.baselines.model import need_extra
from pipeline.builder import ENGINE_NAMES, PRELOAD
from pipeline.builder.attribute_notes import attribute_notes
from pipeline.builder.attributes import (
    attribute_units,
    check_attribute_files,
    check_datasets,
    join_attributes,
    plan_attributes,
)
from pipeline.builder.baselines import plan_runs, run_units, score_baselines
from pipeline.builder.clusters import active_rules, cluster_images, cluster_settings, plan_clusters
from pipeline.builder.commit_ingest import Decoded, IngestPlan, reconcile
from pipeline.builder.decode_settings import with_decided_settings
from pipeline.builder.index import find_embeddings, index_images, pairwise_rules
from pipeline.builder.ingest import (
    check_classes,
    check_files,
    commit_sources,
    decode_sources,
    hide_secrets,
    plan_ingest,
)
from pipeline.builder.issues import find_issues, issue_units, measure_pictures, plan_issues
from pipeline.builder.pairs import compare_images, pair_notes
from pipeline.builder.predictions import plan_predictions, predict_splits, prediction_units
from pipeline.builder.publish import ReportResult, try_to_write_report
from pipeline.builder.splits import make_splits, plan_splits, split_units, splits_with_attributes
from pipeline.builder.state import Todo, keep_stored, undo_half_commits
from pipeline.builder.summary import (
    SourceCounts,
    build_notes,
    check_any_image,
    count_sources,
    counts_as_json,
    stored_counts,
)
from pipeline.builder.verdicts import commit_verdicts, plan_verdicts
from pipeline.builder.worker import Job
from pipeline.decode import decoder_name
from pipeline.dedup.rules import parse_rule
from pipeline.engines import Engine
from pipeline.engines.local import HERE, LocalEngine
from pipeline.engines.ray import RayEngine
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.releases import list_releases, publish, require_tables, stored_decode
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, Transaction, transaction
from pipeline.lake.writers.heartbeats import check_registered, registered
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.sources import Source
from pipeline.verdicts.journal import read_verdicts
from pipeline.verdicts.standing import resolve

# Characters of a release's note.
_NOTE_LENGTH = 1000


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        root: the lake's place.
        release: number of the newest release, published by this build or before.
        done: every unit of work that was done, and why; empty if nothing was out of date.
        images: number of images in the lake.
        rejects: number of rejects in the lake.
        report: place of the report; empty if none was written.
        report_error: why the report could not be written, though the release is published; empty if nothing failed.
        read: number of files that were read, images and rejects.
        read_seconds: time that reading took, in seconds.
        seconds: time that the whole build took, in seconds.
        damaged: number of faults that a repair found; None for a build without repair.
        still_damaged: what a repair could not restore, and why.
        sources: what the lake holds of every source.
        notes: notes about the sources, one line each.
        mode: mode of the images, L or RGB.
        mode_decided: whether this build decided the mode by the content.
        originals_decided: whether this build decided, by the content, to keep the encoded files.
    """

    root: str
    release: int
    done: tuple[Todo, ...]
    images: int
    rejects: int
    report: str
    read: int
    read_seconds: float
    seconds: float = 0.0
    report_error: str = ""
    damaged: int | None = None
    still_damaged: tuple[str, ...] = ()
    sources: tuple[SourceCounts, ...] = ()
    notes: tuple[str, ...] = ()
    mode: str = ""
    mode_decided: bool = False
    originals_decided: bool = False


def local_engine(workers: int | None = None) -> LocalEngine:
    """Make the local engine, whose workers start with the modules they need already imported.

    Args:
        workers: number of worker processes; None for one per core.
    """
    return LocalEngine(workers, preload=PRELOAD)


# By the values of the option `--engine`, a function that makes the engine, given the number of workers.
ENGINES: dict[str, Callable[[int | None], Engine]] = dict(zip(ENGINE_NAMES, (local_engine, RayEngine), strict=True))


def build(
    recipe: Recipe, *, engine: Engine | None = None, prune: bool = False, replaced: Collection[tuple[str, str]] = ()
) -> Built:
    """Bring a lake up to date with a recipe and publish it as a release.

    If the build is killed at any time, readers see the last release, and the next build completes the work.

    Args:
        recipe: what to build.
        engine: where to run; None for the local engine on every core.
        prune: drop sources, attributes, rules, splits and baselines that are in the lake but not in the recipe. Older
            releases still have them, until vacuum.
        replaced: (dataset, uri) of sources that other sources of the recipe replace; see `pipeline.infer`.

    Raises:
        RecipeError: the recipe has an unknown rule or source, or removes the originals of the lake without `prune`.
        SourceError: a source is missing, damaged, or fails a check; or the lake would have no image.
        SplitError: a split needs more images than there are.
        BaselineError: a baseline cannot be trained.
        MissingExtraError: a baseline needs a library that is not installed.
        LakeError: the lake cannot be written.
    """
    started = time.monotonic()
    check_recipe(recipe)
    arguments.true_or_false("prune", prune)
    found = sources.resolve(recipe)
    with storage.storage_errors(recipe.root), registered(recipe.root) as writer, Progress() as progress:
        snapshot = Snapshot(writer.place)
        require_tables(snapshot)
        is_new = not stored_decode(snapshot)
        mode_decided, undecided = is_new and recipe.decode.mode is None, is_new and recipe.decode.originals is None
        recipe = with_decided_settings(snapshot, recipe, found, prune=prune)
        built = update_lake(writer, recipe, found, engine or local_engine(), progress, prune=prune, replaced=replaced)
    keeps = undecided and recipe.decode.originals == "keep"
    return replace(built, seconds=time.monotonic() - started, mode_decided=mode_decided, originals_decided=keeps)


def plan(recipe: Recipe, *, prune: bool = False) -> list[Todo]:
    """List what `build` would do, and why. Nothing is downloaded, decoded or committed.

    Args:
        recipe: what to build.
        prune: as in `build`.

    Raises:
        RecipeError: the recipe has an unknown rule or source, or removes the originals of the lake without `prune`.
        SourceError: a source is missing or damaged.
        LakeError: the lake cannot be read.
    """
    _check_type(recipe)
    snapshot = Snapshot(recipe.root)
    require_tables(snapshot)
    recipe = with_decided_settings(snapshot, recipe, (), prune=prune)
    missing = [part for part in recipe.source if not (sources.lacks_secrets(part) or sources.is_fetched(part))]
    local = recipe.model_copy(update={"source": tuple(part for part in recipe.source if part not in missing)})
    ingest = [Todo("ingest", part.uri, "not downloaded yet") for part in missing]
    ingest += plan_ingest(snapshot, recipe, sources.resolve(local), prune=prune and not missing).todo
    images_change = bool(ingest)
    journal = plan_verdicts(snapshot)
    verdicts = resolve(snapshot, read_verdicts(recipe.root, snapshot))
    rules = active_rules(snapshot, recipe, prune=prune)
    settings = cluster_settings(recipe, pairwise_rules(rules, find_embeddings(snapshot, recipe, rules)))
    attributes = plan_attributes(snapshot, attribute_units(snapshot, recipe, prune=prune), images_change=images_change)
    clusters = plan_clusters(snapshot, rules, settings, verdicts, images_change=images_change)
    kinds = issue_units(snapshot, recipe, prune=prune)
    issues = plan_issues(snapshot, kinds, images_change=images_change)
    units = split_units(snapshot, recipe, verdicts, prune=prune, issues=kinds)
    splits = plan_splits(snapshot, units, images_change=images_change)
    redrawn = {item.unit for item in splits}
    runs = plan_runs(snapshot, recipe, prune=prune, redrawn=redrawn)
    predictions = plan_predictions(
        snapshot,
        recipe,
        run_units(snapshot, recipe, prune=prune),
        prune=prune,
        changed=redrawn | {item.unit for item in runs},
    )
    return [*journal, *ingest, *attributes, *clusters, *issues, *splits, *runs, *predictions]


def check_recipe(recipe: Recipe) -> None:
    """Check the rules and baselines of a recipe before anything is read.

    Raises:
        TypeError: it is not a recipe.
        RecipeError: a rule is unknown.
        MissingExtraError: a baseline needs a library that is not installed.
    """
    _check_type(recipe)
    for rule in recipe.rules:
        parse_rule(rule)
    for baseline in recipe.baseline:
        need_extra(baseline)


def _check_type(recipe: Recipe) -> None:
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe is of type {type(recipe).__name__}; it must be a Recipe: use read_recipe(PATH)")


def update_lake(  # noqa: PLR0913 - what a build is made of
    writer: Writer,
    recipe: Recipe,
    found: Sequence[Source],
    engine: Engine,
    progress: Progress,
    *,
    prune: bool = False,
    replaced: Collection[tuple[str, str]] = (),
    repaired: Sequence[Todo] = (),
    damaged: Collection[str] = (),
    report: bool = True,
    kept_attributes: Collection[str] = (),
) -> Built:
    """Run every step of a build that is out of date, and publish a release.

    Args:
        writer: a writer that is registered in the lake.
        recipe: what to build, with its mode decided.
        found: the sources of the recipe.
        engine: where to run.
        progress: shows the progress.
        prune: as in `build`.
        replaced: as in `build`.
        repaired: what a repair did before, for the note of the release.
        damaged: places of damaged files that this build replaces. They are not read.
        report: count the sources and write the report. Both read images, and fail while images are damaged.
        kept_attributes: datasets whose attributes are kept as they are, because one of their files is missing. Splits
            that read attributes are then kept as well.
    """
    # Decode without the lock, so that other builds may commit. No commit names the new files yet.
    snapshot = Snapshot(writer.place, left_out=damaged)
    planned = plan_ingest(snapshot, recipe, found, prune=prune, replaced=replaced)
    rules = active_rules(snapshot, recipe, prune=prune)
    check_files(planned, every=_is_new_recipe(snapshot, recipe))
    if not kept_attributes:
        check_attribute_files(attribute_units(snapshot, recipe, prune=prune))
    decoded = None
    if planned.todo:
        progress.stage("decode", rejects=True)
        embeddings = find_embeddings(snapshot, recipe, rules)
        pixel_rules = tuple(rule for rule in rules if rule not in embeddings)
        # No worker is started for a single shard.
        where = HERE if planned.is_small and engine.shares_disk else engine
        decoded = decode_sources(Job(writer, recipe.decode, pixel_rules), planned, where, progress, snapshot)

    # All other steps read the whole lake, so they run with the lock held.
    with transaction(writer, progress.waiting) as lake:
        check_registered(writer)
        lake.leave_out(damaged)
        done = [
            *repaired,
            *_run_steps(lake, recipe, planned, decoded, engine, progress, prune=prune, kept_attributes=kept_attributes),
        ]
        counts = stored_counts(lake.snapshot) if not done or not report else None
        if counts is None:
            counts = count_sources(lake.snapshot, found) if report else []
        release = publish(lake, recipe.digest, _note(done), recipe_record(recipe), counts_as_json(counts))
        published = Lake(writer.place, release)
        if done:
            progress.step("write the report")
        drawn = try_to_write_report(published) if report else ReportResult()

    images, rejects = published.scan("shards").select(pl.sum("rows"), pl.sum("rejects")).collect().row(0)
    notes = build_notes(published.snapshot, found, counts, recipe.decode, decoded) if done and report else []
    notes += attribute_notes(published.snapshot) + pair_notes(published.snapshot) if done and report else []
    return Built(
        writer.place,
        release,
        tuple(done),
        images,
        rejects,
        drawn.file,
        report_error=drawn.error,
        read=decoded.files if decoded else 0,
        read_seconds=decoded.seconds if decoded else 0.0,
        sources=tuple(counts),
        notes=tuple(notes),
        mode=recipe.decode.mode or "",
    )


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """Return what a release stores of its recipe, enough to build again."""
    values = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"file": str(recipe.file) if recipe.file else None, "base": str(recipe.base), "values": values}


def _run_steps(  # noqa: PLR0913, PLR0917 - arguments of one step
    lake: Transaction,
    recipe: Recipe,
    planned: IngestPlan,
    decoded: Decoded | None,
    engine: Engine,
    progress: Progress,
    *,
    prune: bool,
    kept_attributes: Collection[str],
) -> list[Todo]:
    """Run the steps in order. Each reads the tables that the steps before it committed."""
    writer = lake.writer
    undo_half_commits(lake)
    new_recipe = _is_new_recipe(lake.snapshot, recipe)

    # journal -> verdicts
    decided = commit_verdicts(lake)

    # decoded files -> images, rejects, index, shards
    ingested = hide_secrets(lake, in_shards=decoded is None)
    if decoded:
        progress.step("check and commit")
        ingested += commit_sources(lake, decoded)
    else:
        reconcile(lake.snapshot, Decoded(decoder_name(recipe.decode), planned))
        check_any_image(lake.snapshot, [], planned.shards)
        if new_recipe:
            check_classes(lake.snapshot, planned, [], planned.shards)

    # images -> attributes
    check_datasets(lake.snapshot, recipe)
    units = attribute_units(lake.snapshot, recipe, prune=prune)
    units = keep_stored(units, lake.snapshot.metadata("attributes"), kept_attributes)
    joined, commits = join_attributes(lake.snapshot, writer, units, progress)
    _commit(lake, commits)

    # images -> index -> pairs -> clusters
    rules = active_rules(lake.snapshot, recipe, prune=prune)
    embeddings = find_embeddings(lake.snapshot, recipe, rules)
    pairwise = pairwise_rules(rules, embeddings)
    _commit(lake, index_images(lake.snapshot, writer, rules, engine, progress, embeddings))
    _commit(lake, compare_images(lake.snapshot, writer, pairwise, recipe.dedup, progress, engine))
    settings = cluster_settings(recipe, pairwise)
    verdicts = resolve(lake.snapshot)
    clustered, commits = cluster_images(lake.snapshot, writer, rules, settings, progress, engine, verdicts)
    _commit(lake, commits)

    # images -> measurements -> issues
    issues = issue_units(lake.snapshot, recipe, prune=prune)
    _commit(lake, measure_pictures(lake.snapshot, writer, issues, progress, engine))
    listed, commits = find_issues(lake.snapshot, writer, issues, progress, engine)
    _commit(lake, commits)

    # images, clusters, attributes -> splits
    splits = split_units(lake.snapshot, recipe, verdicts, prune=prune, issues=issues)
    if kept_attributes:
        stored = lake.snapshot.metadata("splits")
        splits = keep_stored(splits, stored, splits_with_attributes(stored))
    drawn, commits = make_splits(lake.snapshot, writer, recipe, splits, verdicts, progress)
    _commit(lake, commits)

    # splits -> arrays -> scores, misses, models
    runs = run_units(lake.snapshot, recipe, prune=prune)
    scored, commits = score_baselines(lake.snapshot, writer, runs, progress)
    _commit(lake, commits)

    # models, splits -> predictions
    wanted = prediction_units(lake.snapshot, recipe, runs, prune=prune)
    predicted, commits = predict_splits(lake.snapshot, writer, wanted, progress)
    _commit(lake, commits)

    done = [*decided, *ingested, *joined, *clustered, *listed, *drawn, *scored, *predicted]
    if new_recipe and not done:
        done.append(Todo("release", "recipe", "the recipe changed, but no result depends on the change"))
    return done


def _commit(lake: Transaction, commits: Iterable[Commit]) -> None:
    for commit in commits:
        lake.commit(commit)


def _is_new_recipe(snapshot: Snapshot, recipe: Recipe) -> bool:
    """Return whether the newest release was built from another recipe, or there is no release."""
    releases = list_releases(snapshot)
    return releases.is_empty() or releases["recipe_digest"].last() != recipe.digest


def _note(done: Iterable[Todo]) -> str:
    """Return the note of a release: what its build did, cut to a maximal length."""
    return "; ".join(f"{item.stage} {item.unit}: {item.reason}" for item in done)[:_NOTE_LENGTH]
