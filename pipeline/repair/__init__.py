"""Repair a lake: find the damage, and restore each table from what it was made of.

images, index, rejects   their shards are read from their sources again; the index alone is made from whole images
originals                likewise; where the source is gone, they stay damaged and the images stay as they are
shards, releases         restored from older versions, sources and the metadata of commits
attributes               removed, so that the following build joins them again; if one of their files is gone, they stay
                         damaged
pairs, clusters, splits  removed, so that the following build makes them again; so are measurements and issues
scores, misses, models   restored from older versions of their tables, else trained again
predictions              removed, so that the following build makes them again with the models
exports                  cannot be restored: lost rows are listed

A repair commits new files. Older releases that name a damaged file stay damaged.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import schemas
from pipeline import sources, storage
from pipeline.builder.attributes import attribute_units, missing_files
from pipeline.builder.baselines import baselines_by_run
from pipeline.builder.build import Built, check_recipe, local_engine, update_lake
from pipeline.builder.decode_settings import with_decided_settings
from pipeline.builder.state import SHARD_KEY, Todo, stored_shards, undo_half_commits
from pipeline.decode import decoder_name
from pipeline.engines import Engine
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.releases import stored_decode
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Transaction, transaction
from pipeline.lake.writers.heartbeats import check_registered, registered
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.repair.damage import Damage, ShardKey, find_damage
from pipeline.repair.logs import repair_logs
from pipeline.repair.lost import delete_unreadable_releases, find_lost_tables, make_lost_tables
from pipeline.repair.rebuild import (
    drop_derived,
    drop_index,
    drop_unreadable_exports,
    restore_release_rows,
    restore_scores,
    restore_shards,
)
from pipeline.repair.reread import Reread, commit_reread, reread_shards, resolve_existing
from pipeline.repair.verdicts import restore_verdicts
from pipeline.sources import Source
from pipeline.verify.logs import check_logs

__all__ = ["Repaired", "repair"]


@dataclass
class Repaired:
    """What a repair did before the following build.

    Attributes:
        damage: the damage that was found; None for a lake without tables.
        done: what was restored, and from where.
        still_damaged: what could not be repaired, and why.
        lost: what is lost, and why.
        missing_sources: by uri of a source that cannot be found, the reason.
        kept_attributes: by dataset whose attributes are kept as they are, the missing file of its `[[attributes]]`.
        changed: damaged shards whose source has changed; the following build reads them.
        listed: those of them whose source lists its files: the build puts these into other shards.
    """

    damage: Damage | None = None
    done: list[Todo] = field(default_factory=list)
    still_damaged: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    missing_sources: dict[str, str] = field(default_factory=dict)
    kept_attributes: dict[str, str] = field(default_factory=dict)
    changed: set[ShardKey] = field(default_factory=set)
    listed: set[ShardKey] = field(default_factory=set)

    @property
    def faults(self) -> int:
        """The number of faults found."""
        return len(self.damage.faults) if self.damage else 0

    @property
    def reads_sources(self) -> bool:
        """Whether the following build may read sources: not while it would leave damaged shards unread."""
        return not (self.still_damaged or self.missing_sources or self.kept_attributes)

    @property
    def left_out(self) -> set[str]:
        """Places of damaged files that the following build replaces and leaves out of scans."""
        return self.damage.places() if self.damage and self.changed else set()

    def not_restored(self, snapshot: Snapshot) -> list[str]:
        """List everything that could not be restored, with the reasons.

        Args:
            snapshot: of the lake, after the build.
        """
        kept_attributes = [
            f"attributes of {dataset}: not joined again, because {file} does not exist; put the file back"
            for dataset, file in self.kept_attributes.items()
        ]
        if self.damage is None or not self.faults:
            return [*kept_attributes, *self.lost]
        lines = [*kept_attributes, *self.still_damaged, *self.lost]
        existing = set(snapshot.scan("shards").select(SHARD_KEY).collect().rows())
        lines += [
            f"{_title(key)}: its source has changed and no longer has it; its {self.damage.shards[key]:,} images are "
            "no longer in the lake"
            for key in sorted(self.changed - self.listed - existing)
        ]
        remaining = {table: len(self.damage.remaining(snapshot, table)) for table in schemas.TABLES}
        unnamed = {
            uri: why
            for uri, why in self.missing_sources.items()
            if not any(f"its source {uri} " in line for line in lines)
        }
        lines += [f"source {uri}: was not read ({why})" for uri, why in unnamed.items()]
        if not self.still_damaged:
            lines += [f"{table}: {count:,} of its files stay damaged" for table, count in remaining.items() if count]
        return lines


def repair(recipe: Recipe, *, engine: Engine | None = None) -> Built:
    """Find the damage of a lake as `verify` does, restore what can be restored, and build.

    A table that is missing, or whose log cannot be read, is made again from the sources and from the other tables.
    Older releases that need it are deleted. If a needed source or a file of `[[attributes]]` is missing, everything
    else is restored and `Built.still_damaged` lists the rest. Changes of the other sources are then left to the next
    build. If the process is killed, the lake reads as of its last release.

    Args:
        recipe: the lake's recipe.
        engine: where to run; the local engine on every core if None.

    Raises:
        RecipeError: the recipe needs something that is not installed, or its parts contradict one another.
        SourceError: a source cannot be read.
        LakeError: the lake cannot be written.
        DiskFullError: no space is left.
        StorageError: a bucket does not answer.
    """
    started = time.monotonic()
    check_recipe(recipe)
    engine = engine or local_engine()
    with storage.storage_errors(recipe.root), registered(recipe.root) as writer, Progress() as progress:
        with transaction(writer, progress.waiting) as lake:
            repaired_logs, broken, shortened = repair_logs(writer.place)
            lost = {**broken, **find_lost_tables(writer.place, broken)}
            remade = make_lost_tables(lake, recipe, lost) if lost else ([], [])
        before = Snapshot(writer.place)
        undecided = recipe.decode.mode is None and not stored_decode(before)
        recipe = with_decided_settings(before, recipe, _resolved(recipe))
        repaired = restore(writer, recipe, engine, progress)
        repaired.done[:0] = [*repaired_logs, *remade[0]]
        repaired.lost += remade[1]
        if "originals" in lost and not repaired.missing_sources:
            # Without originals the lake is whole, also if a source is missing. The build then reads none.
            repaired.missing_sources = resolve_existing(recipe)[1]
        if lost:
            repaired.kept_attributes = missing_files(attribute_units(Snapshot(writer.place), recipe, prune=False))
        # A table that is made again, empty, needs its sources, also if files of attributes are missing.
        reads = repaired.reads_sources or (
            not repaired.missing_sources and stored_shards(Snapshot(writer.place)).is_empty()
        )
        found = sources.resolve(recipe) if reads else []
        built = update_lake(
            writer,
            recipe,
            found,
            engine,
            progress,
            repaired=repaired.done,
            damaged=repaired.left_out,
            report=not repaired.still_damaged,
            kept_attributes=repaired.kept_attributes,
        )
        if lost or shortened:
            with transaction(writer, progress.waiting) as lake:
                repaired.lost += delete_unreadable_releases(lake, {*lost, *shortened})
        still_damaged = repaired.not_restored(Snapshot(writer.place))
        # Commits of older versions that are damaged: the build did not need them.
        still_damaged += [str(fault) for fault in check_logs(Snapshot(writer.place)).faults]
    return replace(
        built,
        damaged=repaired.faults + len({todo.unit for todo in repaired_logs} | {f"log of {table}" for table in lost}),
        still_damaged=tuple(still_damaged),
        seconds=time.monotonic() - started,
        mode_decided=undecided,
    )


def restore(writer: Writer, recipe: Recipe, engine: Engine, progress: Progress) -> Repaired:
    """Restore the damaged parts of a lake's newest tables; commits only if there is damage.

    Args:
        writer: registered in the lake.
        recipe: the lake's recipe.
        engine: where to run.
        progress: shows the progress.

    Raises:
        LakeError: another build deleted the files of this one.
        DiskFullError: no space is left.
        StorageError: a bucket does not answer.
    """
    if not Snapshot(writer.place).versions:
        return Repaired()
    with transaction(writer, progress.waiting) as lake:
        undo_half_commits(lake)
        snapshot = lake.snapshot
    damage = find_damage(snapshot, engine, progress)
    repaired = Repaired(damage)
    if not damage.faults:
        return repaired
    found, repaired.missing_sources = resolve_existing(recipe)
    with transaction(writer, progress.waiting) as lake:
        repaired.done += restore_release_rows(lake, damage)
        repaired.lost += drop_unreadable_exports(lake, damage)
        restored, lost = restore_verdicts(lake, damage)
        repaired.done += restored
        repaired.lost += lost
        repaired.done += restore_shards(lake, damage, recipe, found)
        repaired.kept_attributes = missing_files(attribute_units(lake.snapshot, recipe, prune=False))
    reread = reread_shards(writer, recipe, damage, found, repaired.missing_sources, engine, progress)
    with transaction(writer, progress.waiting) as lake:
        check_registered(writer)
        _commit(lake, recipe, damage, reread, repaired)
    # Faults of neither a file nor a unit cannot be repaired.
    unknown = [fault for fault in damage.faults if not (fault.file or fault.partition)]
    repaired.lost += [f"{fault}: build into a new folder" for fault in unknown]
    return repaired


def _resolved(recipe: Recipe) -> Iterator[Source]:
    """Resolve the sources when the first one is needed."""
    yield from sources.resolve(recipe)


def _commit(lake: Transaction, recipe: Recipe, damage: Damage, reread: Reread, repaired: Repaired) -> None:
    """Commit the shards that were read again, and remove what the build makes again."""
    same = commit_reread(lake, decoder_name(recipe.decode), damage, reread)
    _add_outcome(damage, reread, repaired)
    damaged = (set(reread.lost) | reread.changed) & set(damage.shards)
    repaired.done += drop_index(lake, damage, damaged)
    images_stay = bool(damaged) and not repaired.reads_sources
    done, still_damaged = drop_derived(
        lake, damage, every=not same, images_stay=images_stay, kept_attributes=repaired.kept_attributes
    )
    repaired.done += done
    repaired.still_damaged += still_damaged
    restored, lost = restore_scores(lake, damage, set(baselines_by_run(recipe)))
    repaired.done += restored
    repaired.lost += lost


def _add_outcome(damage: Damage, reread: Reread, repaired: Repaired) -> None:
    for *columns, uri in reread.table.select(*SHARD_KEY, "uri").rows():
        if (key := tuple(columns)) in reread.replaced:
            why = f"{_what(damage, key)} were damaged"
            repaired.done.append(Todo("repair", _title(key), f"read again from {uri}: {why}"))
    for lost, why in sorted(reread.lost.items()):
        repaired.still_damaged.append(f"{_title(lost)}: {_what_stays(damage, lost)} damaged, because {why}")
    if repaired.reads_sources:
        repaired.changed, repaired.listed = reread.changed, reread.listed
        return
    repaired.still_damaged += [
        f"{_title(key)}: {_what_stays(damage, key)} damaged, because its source has changed; it is read again when all "
        "sources can be found"
        for key in sorted(reread.changed)
    ]


def _title(key: ShardKey) -> str:
    return f"{key[0]}/{key[1]} shard {key[2]}"


def _what_stays(damage: Damage, key: ShardKey) -> str:
    return f"{_what(damage, key)} stay"


def _what(damage: Damage, key: ShardKey) -> str:
    if key in damage.shards:
        return f"{damage.shards[key]:,} images"
    return f"{damage.originals[key]:,} originals" if key in damage.originals else "its rejects"
