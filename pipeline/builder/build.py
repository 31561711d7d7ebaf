"""A build, from sources to a release: each step does what is out of date; with nothing to do, nothing is committed.

sources -> decode -> [images, rejects] -> dedup -> [index, pairs, clusters] -> splits -> [splits] -> arrays -> baselines
-> [scores] -> release -> report
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from pipeline import sources, storage
from pipeline.baselines.model import need_extra
from pipeline.builder.baselines import plan_runs, run_units, score_baselines
from pipeline.builder.clusters import cluster_images, plan_clusters, wanted_rules, ways_to_cluster
from pipeline.builder.commit_ingest import Decoded, IngestPlan, reconcile
from pipeline.builder.image_mode import stored_decode, with_decided_mode
from pipeline.builder.index import compared_rules, find_embeddings, index_images
from pipeline.builder.ingest import check_classes, check_files, commit_sources, decode_sources, plan_ingest
from pipeline.builder.pairs import compare_images
from pipeline.builder.preload import ENGINE_NAMES, PRELOAD
from pipeline.builder.publish import write_report
from pipeline.builder.splits import make_splits, plan_splits, split_units
from pipeline.builder.state import Todo, undo_half_commits
from pipeline.builder.summary import (
    SourceCounts,
    as_values,
    check_any_image,
    count_sources,
    notes_of_build,
    stored_counts,
)
from pipeline.builder.worker import Job
from pipeline.decode import decoder_name
from pipeline.dedup.rules import parse_rule
from pipeline.engines import Engine
from pipeline.engines.local import LocalEngine
from pipeline.engines.ray import RayEngine
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.releases import list_releases, publish
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, Transaction, transaction
from pipeline.lake.writers.heartbeats import check_registered, registered
from pipeline.lake_handle import Lake
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.sources import Source


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        root: the lake's folder.
        release: number of the newest release, made by this build or before.
        done: every unit of work that was done, and why; empty where there was nothing to do.
        images: images in the lake.
        rejects: rejects in the lake.
        report: the report of the newest release; empty where none can be drawn, as images stay damaged.
        read: files that were read, be they images or rejects now.
        read_seconds: how long that took.
        seconds: how long the whole build took.
        damaged: how many faults a repair found; None where it was not asked to look.
        stays: what a repair could not bring back, and why.
        sources: what the lake holds of every source.
        notes: what to know about the sources, one line each.
        mode: mode of the images, L or RGB.
        mode_decided: whether this build decided the mode by the content.
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
    damaged: int | None = None
    stays: tuple[str, ...] = ()
    sources: tuple[SourceCounts, ...] = ()
    notes: tuple[str, ...] = ()
    mode: str = ""
    mode_decided: bool = False


def local_engine(workers: int | None = None) -> LocalEngine:
    """Make the local engine, with what workers need already imported."""
    return LocalEngine(workers, preload=PRELOAD)


# By the names that `--engine` gives; each takes the number of workers.
ENGINES: dict[str, Callable[[int | None], Engine]] = dict(zip(ENGINE_NAMES, (local_engine, RayEngine), strict=True))


def build(
    recipe: Recipe,
    *,
    engine: Engine | None = None,
    prune: bool = False,
    replaced: Collection[tuple[str, str]] = (),
) -> Built:
    """Bring a lake up to date with a recipe and publish it as a release.

    Killed at any instant, the lake reads as of its last release, and the next build ends as this one would have.

    Args:
        recipe: what to build.
        engine: where to run; the local engine on every core if None.
        prune: drop sources, rules, splits and baselines that the lake has and the recipe does not name. They stay
            readable in older releases until vacuum.
        replaced: (dataset, uri) of sources that others of the recipe take the place of; see `pipeline.infer`.

    Raises:
        RecipeError: a rule or source of the recipe is not known.
        SourceError: a source is missing, damaged, or fails a check; or the lake would be left without any image.
        SplitError: a split asks for more than there is.
        BaselineError: a baseline cannot be trained.
        MissingExtraError: a baseline needs a library that is not installed.
        LakeError: the lake cannot be written.
    """
    started = time.monotonic()
    check_recipe(recipe)
    found = sources.resolve(recipe)
    with storage.silence_named(recipe.root), registered(recipe.root) as writer, Progress() as progress:
        before = Snapshot(writer.place)
        undecided = recipe.decode.mode is None and not stored_decode(before)
        recipe = with_decided_mode(before, recipe, found)
        built = update_lake(writer, recipe, found, engine or local_engine(), progress, prune=prune, replaced=replaced)
    return replace(built, seconds=time.monotonic() - started, mode_decided=undecided)


def check_recipe(recipe: Recipe) -> None:
    """Check what a recipe names before anything is read.

    Raises:
        RecipeError: a rule is not known.
        MissingExtraError: a baseline needs a library that is not installed.
    """
    for rule in recipe.rules:
        parse_rule(rule)
    for baseline in recipe.baseline:
        need_extra(baseline)


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
    draw: bool = True,
) -> Built:
    """Run every step of a build that is out of date, and publish a release.

    Args:
        writer: registered in the lake.
        recipe: what to build, with its mode decided.
        found: its sources.
        engine: where to run.
        progress: where to show it.
        prune: as in `build`.
        replaced: as in `build`.
        repaired: what a repair did before, for the release's note.
        damaged: places of damaged files that this build replaces: nothing is read of them.
        draw: count the sources and write the report. Both read images; neither works while images are damaged.
    """
    # sources -> files that no commit names: other builds may commit meanwhile
    snapshot = Snapshot(writer.place, left_out=damaged)
    planned = plan_ingest(snapshot, recipe, found, prune=prune, replaced=replaced)
    rules = wanted_rules(snapshot, recipe, prune=prune)
    check_files(planned, every=_recipe_changed(snapshot, recipe))
    decoded = None
    if planned.todo:
        progress.stage("decode", rejects=True)
        embeddings = find_embeddings(snapshot, recipe, rules)
        pixel_rules = tuple(rule for rule in rules if rule not in embeddings)
        decoded = decode_sources(Job(writer, recipe.decode, pixel_rules), planned, engine, progress)

    # from here on under the lock: the following steps read the whole lake
    with transaction(writer, progress.waiting) as lake:
        check_registered(writer)
        lake.leave_out(damaged)
        done = [*repaired, *_run_steps(lake, recipe, planned, decoded, engine, progress, prune=prune)]
        # Where images stay damaged, they cannot be counted.
        counts = stored_counts(lake.snapshot) if not done or not draw else None
        if counts is None:
            counts = count_sources(lake.snapshot, found) if draw else []
        release = publish(lake, recipe.digest, _note(done), recipe_record(recipe), as_values(counts))
        published = Lake(writer.place, release)
        if done:
            progress.step("write the report")
        report = write_report(published) if draw else ""
    images, rejects = published.scan("shards").select(pl.sum("rows"), pl.sum("rejects")).collect().row(0)
    read = (decoded.files, decoded.seconds) if decoded else (0, 0.0)
    notes = notes_of_build(published.snapshot, found, counts, recipe.decode, decoded) if done and draw else ()
    return Built(
        writer.place,
        release,
        tuple(done),
        images,
        rejects,
        report,
        *read,
        sources=tuple(counts),
        notes=tuple(notes),
        mode=recipe.decode.mode or "",
    )


def _run_steps(  # noqa: PLR0913, PLR0917 - arguments of one step
    lake: Transaction,
    recipe: Recipe,
    planned: IngestPlan,
    decoded: Decoded | None,
    engine: Engine,
    progress: Progress,
    *,
    prune: bool,
) -> list[Todo]:
    writer = lake.writer

    def commit(changes: Iterable[Commit]) -> None:
        for change in changes:
            lake.commit(change)

    # what a killed build left half done
    undo_half_commits(lake)
    new_recipe = _recipe_changed(lake.snapshot, recipe)

    # files -> images, rejects, index
    done: list[Todo] = []
    if decoded:
        progress.step("check and commit")
        done = commit_sources(lake, decoded)
    else:
        reconcile(lake.snapshot, Decoded(decoder_name(recipe.decode), planned))
        check_any_image(lake.snapshot, [], planned.shards)
        if new_recipe:
            check_classes(lake.snapshot, planned, [], planned.shards)

    # images -> index -> pairs -> clusters
    rules = wanted_rules(lake.snapshot, recipe, prune=prune)
    embeddings = find_embeddings(lake.snapshot, recipe, rules)
    compared = compared_rules(rules, embeddings)
    commit(index_images(lake.snapshot, writer, rules, engine, progress, embeddings))
    commit(compare_images(lake.snapshot, writer, compared, recipe.dedup, progress, engine))
    ways = ways_to_cluster(recipe, compared)
    clustered, changes = cluster_images(lake.snapshot, writer, rules, ways, progress, engine)
    commit(changes)

    # images, clusters -> splits
    splits = split_units(lake.snapshot, recipe, prune=prune)
    drawn, changes = make_splits(lake.snapshot, writer, recipe, splits, progress)
    commit(changes)

    # splits -> arrays -> scores
    runs = run_units(lake.snapshot, recipe, prune=prune)
    scored, changes = score_baselines(lake.snapshot, writer, runs, progress)
    commit(changes)
    done += [*clustered, *drawn, *scored]
    if new_recipe and not done:
        done.append(Todo("release", "recipe", "the recipe changed, but nothing that was made from it"))
    return done


def plan(recipe: Recipe, *, prune: bool = False) -> list[Todo]:
    """List what `build` would do, and why, without downloading, decoding or committing anything."""
    snapshot = Snapshot(recipe.root)
    recipe = with_decided_mode(snapshot, recipe, ())
    absent = [part for part in recipe.source if not sources.is_fetched(part)]
    here = recipe.model_copy(update={"source": tuple(part for part in recipe.source if part not in absent)})
    found = [Todo("ingest", part.uri, "not downloaded yet") for part in absent]
    found += plan_ingest(snapshot, recipe, sources.resolve(here), prune=prune and not absent).todo
    change = bool(found)
    rules = wanted_rules(snapshot, recipe, prune=prune)
    splits = split_units(snapshot, recipe, prune=prune)
    ways = ways_to_cluster(recipe, compared_rules(rules, find_embeddings(snapshot, recipe, rules)))
    clusters = plan_clusters(snapshot, rules, ways, images_change=change)
    drawn = plan_splits(snapshot, splits, images_change=change)
    runs = plan_runs(snapshot, recipe, prune=prune, redrawn={item.unit for item in drawn})
    return [*found, *clusters, *drawn, *runs]


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """Return what a release keeps of its recipe, enough to build again."""
    values = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"file": str(recipe.file) if recipe.file else None, "base": str(recipe.base), "values": values}


def _recipe_changed(snapshot: Snapshot, recipe: Recipe) -> bool:
    past = list_releases(snapshot)
    return past.is_empty() or past["recipe_digest"].last() != recipe.digest


def _note(done: list[Todo]) -> str:
    return "; ".join(f"{item.stage} {item.unit}: {item.reason}" for item in done)[:1000]
