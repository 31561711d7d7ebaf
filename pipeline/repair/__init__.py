"""Repair a lake: find what is damaged, and restore it from what it was made of.

images, index, rejects   their shards are read from their sources again; the index alone is made from whole images
shards, releases         restored from older versions, sources and the metadata of commits
pairs, clusters, splits  taken out, so that the build that follows makes them again
scores, misses           restored from older versions of their tables, or else trained again
exports                  cannot be restored: lost rows are listed

Files are replaced by commits, so older releases that name a damaged file stay damaged.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import schemas
from pipeline import sources, storage
from pipeline.builder.baselines import named_runs
from pipeline.builder.build import Built, check_recipe, local_engine, update_lake
from pipeline.builder.image_mode import stored_decode, with_decided_mode
from pipeline.builder.state import SHARD_KEY, Todo, undo_half_commits
from pipeline.decode import decoder_name
from pipeline.engines import Engine
from pipeline.lake.parquet_writer import Writer
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Transaction, transaction
from pipeline.lake.writers.heartbeats import check_registered, registered
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.repair.damage import Damage, ShardKey, check_logs, find_damage
from pipeline.repair.rebuild import (
    drop_derived,
    drop_index,
    drop_unreadable_exports,
    restore_release_rows,
    restore_scores,
    restore_shards,
)
from pipeline.repair.reread import Reread, commit_reread, reread_shards, resolve_existing
from pipeline.sources import Source

__all__ = ["Repaired", "repair"]


@dataclass
class Repaired:
    """What a repair did, before the build that makes again what is made of images.

    Attributes:
        damage: what was found; None where there is no lake.
        done: what was restored, and from where.
        stays: what stays damaged, and why.
        lost: what is no longer there, and why.
        gone: by uri, why sources cannot be found.
        changed: damaged shards whose source has changed since: a build reads it.
    """

    damage: Damage | None = None
    done: list[Todo] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    gone: dict[str, str] = field(default_factory=dict)
    changed: set[ShardKey] = field(default_factory=set)

    @property
    def faults(self) -> int:
        """How many faults there were."""
        return len(self.damage.faults) if self.damage else 0

    @property
    def reads_sources(self) -> bool:
        """Whether the build that follows may read sources: not while shards stay damaged that it would not read."""
        return not (self.stays or self.gone)

    @property
    def unread(self) -> set[str]:
        """Places of damaged files that the build leaves out of scans, as it replaces them."""
        return self.damage.places() if self.damage and self.changed else set()

    def not_restored(self, snapshot: Snapshot) -> list[str]:
        """List all that could not be restored.

        Args:
            snapshot: of the lake, after the build.
        """
        if self.damage is None or not self.faults:
            return []
        lines = [*self.stays, *self.lost]
        existing = set(snapshot.scan("shards").select(SHARD_KEY).collect().rows())
        lines += [
            f"{_title(key)}: its source has changed and no longer has it; its {self.damage.shards[key]:,} images are "
            "no longer in the lake"
            for key in sorted(self.changed - existing)
        ]
        remaining = {table: len(self.damage.remaining(snapshot, table)) for table in schemas.TABLES}
        unnamed = {
            uri: why for uri, why in self.gone.items() if not any(f"its source {uri} " in line for line in lines)
        }
        lines += [f"source {uri}: nothing was read of it ({why})" for uri, why in unnamed.items()]
        if not self.stays:
            lines += [f"{table}: {count:,} of its files stay damaged" for table, count in remaining.items() if count]
        return lines


def repair(recipe: Recipe, *, engine: Engine | None = None) -> Built:
    """Find what is damaged in a lake, as `verify` does, restore it, and build.

    Where a source that is needed is gone, everything else is restored, and `Built.stays` lists what was not; other
    changes of sources then wait for the next build. Killed at any instant, the lake reads as of its last release.

    Args:
        recipe: the lake's recipe.
        engine: where to run; the local engine on every core if None.

    Raises:
        LakeError: the log of a table is damaged; nothing was repaired.
        StorageError: a bucket does not answer.
    """
    started = time.monotonic()
    check_recipe(recipe)
    runs = engine or local_engine()
    with storage.silence_named(recipe.root), registered(recipe.root) as writer, Progress() as progress:
        # Before anything else is read, so that the error names the damaged log.
        check_logs(writer.place)
        before = Snapshot(writer.place)
        undecided = recipe.decode.mode is None and not stored_decode(before)
        recipe = with_decided_mode(before, recipe, _resolved(recipe))
        repaired = restore(writer, recipe, runs, progress)
        found = sources.resolve(recipe) if repaired.reads_sources else []
        built = update_lake(
            writer,
            recipe,
            found,
            runs,
            progress,
            repaired=repaired.done,
            damaged=repaired.unread,
            draw=not repaired.stays,
        )
        stays = repaired.not_restored(Snapshot(writer.place))
    return replace(
        built,
        damaged=repaired.faults,
        stays=tuple(stays),
        seconds=time.monotonic() - started,
        mode_decided=undecided,
    )


def restore(writer: Writer, recipe: Recipe, engine: Engine, progress: Progress) -> Repaired:
    """Restore what is damaged in a lake as it stands; where nothing is, nothing is committed.

    Args:
        writer: registered in the lake.
        recipe: the lake's recipe.
        engine: where to run.
        progress: where to show it.

    Raises:
        StorageError: a bucket does not answer.
    """
    if not Snapshot(writer.place).versions:
        return Repaired()
    with transaction(writer, progress.waiting) as lake:
        undo_half_commits(lake)
        snapshot = lake.snapshot
    damage = find_damage(snapshot, engine, progress)
    made = Repaired(damage)
    if not damage.faults:
        return made
    found, made.gone = resolve_existing(recipe)
    with transaction(writer, progress.waiting) as lake:
        made.done += restore_release_rows(lake, damage)
        made.lost += drop_unreadable_exports(lake, damage)
        made.done += restore_shards(lake, damage, recipe, found)
    reread = reread_shards(writer, recipe, damage, found, made.gone, engine, progress)
    with transaction(writer, progress.waiting) as lake:
        check_registered(writer)
        _commit(lake, recipe, damage, reread, made)
    # Of no file and no unit: nothing can be made again.
    made.lost += [f"{fault}: build into a new folder" for fault in damage.faults if not (fault.file or fault.partition)]
    return made


def _resolved(recipe: Recipe) -> Iterator[Source]:
    """Resolve the sources only when the first one is read."""
    yield from sources.resolve(recipe)


def _commit(lake: Transaction, recipe: Recipe, damage: Damage, reread: Reread, made: Repaired) -> None:
    """Commit what was read again, and take out what the build makes again."""
    same = commit_reread(lake, decoder_name(recipe.decode), damage, reread)
    _list_outcome(damage, reread, made)
    kept = (set(reread.lost) | reread.changed) & set(damage.shards)
    made.done += drop_index(lake, damage, kept)
    done, stays = drop_derived(lake, damage, every=not same, images_stay=bool(kept) and not made.reads_sources)
    made.done += done
    made.stays += stays
    restored, without_rows = restore_scores(lake, damage, set(named_runs(recipe)))
    made.done += restored
    made.lost += without_rows


def _list_outcome(damage: Damage, reread: Reread, made: Repaired) -> None:
    for item in reread.made:
        key = (item.dataset, item.split, item.shard)
        why = f"{damage.shards[key]:,} images were damaged" if key in damage.shards else "its rejects were damaged"
        made.done.append(Todo("repair", _title(key), f"read again from {item.uri}: {why}"))
    for lost, why in sorted(reread.lost.items()):
        made.stays.append(f"{_title(lost)}: {_what_stays(damage, lost)} damaged, as {why}")
    if made.reads_sources:
        made.changed = reread.changed
        return
    made.stays += [
        f"{_title(key)}: {_what_stays(damage, key)} damaged: its source has changed, and is read when all sources are "
        "there"
        for key in sorted(reread.changed)
    ]


def _title(key: ShardKey) -> str:
    return f"{key[0]}/{key[1]} shard {key[2]}"


def _what_stays(damage: Damage, key: ShardKey) -> str:
    return f"{damage.shards[key]:,} images stay" if key in damage.shards else "its rejects stay"
