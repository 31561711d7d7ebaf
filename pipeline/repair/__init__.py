"""Repair a lake: find what is hurt, and bring it back from what it was made of.

images, index, rejects   their shards are read again from their sources; index alone is made from whole images
shards, releases         made again from older versions, sources and what commits tell
pairs, clusters, splits  taken out, so that the build that follows makes them again
scores, misses           read back from older versions of their tables; else trained again
exports                  nothing else knows what they said: it is told that they are lost

Files are replaced by commits, so older releases that name a hurt file stay hurt.
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
from pipeline.lake.commits import versions
from pipeline.lake.reading import scan_table, without
from pipeline.lake.writers.heartbeats import registered, still_registered
from pipeline.lake.writers.lock import writing
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.repair.damage import Hurt, ShardKey, find_hurt, need_logs
from pipeline.repair.rebuild import drop_index, drop_made, mend_exports, mend_releases, mend_shards, restore_scores
from pipeline.repair.reread import Again, commit_again, read_again, resolve_there
from pipeline.sources import Source

__all__ = ["Repaired", "repair"]


@dataclass
class Repaired:
    """What a repair did, before the build that makes again what is made of images.

    Attributes:
        hurt: what was found; None where there is no lake.
        done: what was brought back, and from where.
        stays: what stays hurt, and why.
        lost: what is no longer there, and why.
        gone: by uri, why sources cannot be found.
        changed: shards that are hurt and whose source has changed since: a build reads it anew.
    """

    hurt: Hurt | None = None
    done: list[Todo] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    gone: dict[str, str] = field(default_factory=dict)
    changed: set[ShardKey] = field(default_factory=set)

    @property
    def faults(self) -> int:
        """How many faults there were."""
        return len(self.hurt.faults) if self.hurt else 0

    @property
    def goes_on(self) -> bool:
        """Whether the build that follows may look at sources: not while what it would read beside them stays hurt."""
        return not (self.stays or self.gone)

    @property
    def unread(self) -> set[str]:
        """Places of files that are hurt: what reads tables leaves them out, as it replaces them."""
        return self.hurt.places() if self.hurt and self.changed else set()

    def left(self) -> list[str]:
        """Tell of all that could not be brought back; asked after the build."""
        if self.hurt is None or not self.faults:
            return []
        told = [*self.stays, *self.lost]
        there = set(scan_table(self.hurt.root, "shards", None).select(SHARD_KEY).collect().rows())
        told += [
            f"{_title(key)}: its source has changed and no longer has it; its {self.hurt.shards[key]:,} images are no "
            "longer in the lake"
            for key in sorted(self.changed - there)
        ]
        still = {table: len(self.hurt.still(table)) for table in schemas.TABLES}
        unnamed = {uri: why for uri, why in self.gone.items() if not any(f"its source {uri} " in line for line in told)}
        told += [f"source {uri}: nothing was read of it ({why})" for uri, why in unnamed.items()]
        if not self.stays:
            told += [f"{table}: {count:,} of its files stay damaged" for table, count in still.items() if count]
        return told


def repair(recipe: Recipe, *, engine: Engine | None = None) -> Built:
    """Find what is damaged in a lake, as `verify` does, bring it back, and build.

    Where a source that is needed is gone, everything else is brought back, and `Built.stays` lists what was not; other
    changes of sources then wait for the next build.

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
    with storage.silence_named(recipe.root), registered(recipe.root), Progress() as progress:
        # Before anything else is read: a damaged log is named as such.
        need_logs(recipe.root)
        undecided = recipe.decode.mode is None and not stored_decode(recipe.root)
        recipe = with_decided_mode(recipe, _resolved(recipe))
        repaired = bring_back(recipe, runs, progress)
        found = sources.resolve(recipe) if repaired.goes_on else []
        with without(repaired.unread):
            built = update_lake(recipe, found, runs, progress, repaired=repaired.done, draw=not repaired.stays)
    return replace(
        built,
        damaged=repaired.faults,
        stays=tuple(repaired.left()),
        seconds=time.monotonic() - started,
        mode_decided=undecided,
    )


def _resolved(recipe: Recipe) -> Iterator[Source]:
    """Resolve the sources only when the first one is read."""
    yield from sources.resolve(recipe)


def bring_back(recipe: Recipe, engine: Engine, progress: Progress) -> Repaired:
    """Bring back what is hurt in a lake as it stands; where nothing is, nothing is committed.

    Killed at any instant, the lake reads as of its last release, and the next repair or build goes on from there.

    Args:
        recipe: the lake's recipe.
        engine: where to run.
        progress: where to show it.

    Raises:
        StorageError: a bucket does not answer.
    """
    root = recipe.root
    if not versions(root):
        return Repaired()
    with writing(root, progress.waiting):
        undo_half_commits(root)
    hurt = find_hurt(root, engine, progress)
    made = Repaired(hurt)
    if not hurt.faults:
        return made
    found, gone = resolve_there(recipe)
    made.gone = gone
    with writing(root, progress.waiting):
        made.done += mend_releases(hurt)
        made.lost += mend_exports(hurt)
        made.done += mend_shards(hurt, recipe, found)
    again = read_again(recipe, hurt, found, gone, engine, progress)
    with writing(root, progress.waiting):
        still_registered(root)
        _bring_back(recipe, hurt, again, made)
    # Of no file and no unit: nothing tells what to make again.
    made.lost += [f"{fault}: build into a new folder" for fault in hurt.faults if not (fault.file or fault.partition)]
    return made


def _bring_back(recipe: Recipe, hurt: Hurt, again: Again, made: Repaired) -> None:
    """Commit what was read again, and take out what the build makes again."""
    same = commit_again(recipe.root, decoder_name(recipe.decode), hurt, again)
    _tell(hurt, again, made)
    kept = (set(again.lost) | again.changed) & set(hurt.shards)
    made.done += drop_index(hurt, kept)
    done, stays = drop_made(hurt, every=not same, images_stay=bool(kept) and not made.goes_on)
    made.done += done
    made.stays += stays
    back, without_rows = restore_scores(hurt, set(named_runs(recipe)))
    made.done += back
    made.lost += without_rows


def _tell(hurt: Hurt, again: Again, made: Repaired) -> None:
    for item in again.made:
        key = (item.dataset, item.split, item.shard)
        why = f"{hurt.shards[key]:,} images were damaged" if key in hurt.shards else "its rejects were damaged"
        made.done.append(Todo("repair", _title(key), f"read again from {item.uri}: {why}"))
    for lost, why in sorted(again.lost.items()):
        made.stays.append(f"{_title(lost)}: {_held(hurt, lost)} damaged, as {why}")
    if made.goes_on:
        made.changed = again.changed
        return
    made.stays += [
        f"{_title(key)}: {_held(hurt, key)} damaged: its source has changed, and is read when all sources are there"
        for key in sorted(again.changed)
    ]


def _title(key: ShardKey) -> str:
    return f"{key[0]}/{key[1]} shard {key[2]}"


def _held(hurt: Hurt, key: ShardKey) -> str:
    return f"{hurt.shards[key]:,} images stay" if key in hurt.shards else "its rejects stay"
