"""What a build would do with its sources, and what becomes of that where another build was faster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from pipeline import storage
from pipeline.errors import LakeError
from pipeline.flow.adopt import shard_rows
from pipeline.flow.state import SHARD_KEY, Todo
from pipeline.flow.work import Ingested
from pipeline.sources import Source

# What makes two readings of a shard one.
_SAME = [*SHARD_KEY, "uri", "fingerprint", "rows", "rejects", "decoder"]


class SourcePlan(NamedTuple):
    """What a build would do with one source.

    Attributes:
        source: the source.
        reason: why it is read; empty where it is up to date.
        wanted: keys of the shards to read; None for all.
        gone: shards in the lake that the source no longer has.
        images: how many files the source has, where its survey tells.
    """

    source: Source
    reason: str
    wanted: frozenset[str] | None
    gone: frozenset[str]
    images: int | None = None


class IngestPlan(NamedTuple):
    """What a build would do with all sources.

    Attributes:
        sources: one plan a source.
        shards: rows of the shards table.
        dropped: rows of the shards table whose source is pruned.
    """

    sources: Sequence[SourcePlan]
    shards: pl.DataFrame
    dropped: pl.DataFrame

    @property
    def todo(self) -> list[Todo]:
        """What the next build would read or drop, and why."""
        read = [Todo("ingest", plan.source.title, plan.reason) for plan in self.sources if plan.reason]
        titles = self.dropped.select(pl.format("{}/{} ({})", "dataset", "split", "uri")).unique().to_series().sort()
        return read + [Todo("ingest", title, "no longer in the recipe") for title in titles]


@dataclass(frozen=True)
class Brought:
    """What was decoded, and is not committed yet.

    Attributes:
        root: the lake's place.
        decoder: name of the decoder.
        plan: what was asked for.
        made: the shards, their files written.
        seconds: how long it took.
        notes: lines for the summary: labels that changed, folders of several splits read as one.
    """

    root: str
    decoder: str
    plan: IngestPlan
    made: Sequence[Ingested] = ()
    seconds: float = 0.0
    notes: Sequence[str] = ()

    @property
    def files(self) -> int:
        """How many files were read, be they images or rejects now."""
        return sum(len(item.image_ids) + len(item.rejects) for item in self.made)


def settle(brought: Brought, now: pl.DataFrame) -> tuple[IngestPlan, list[Ingested], list[Todo]]:
    """Fit what was decoded to what the lake holds by now.

    Args:
        brought: what was decoded.
        now: rows of the shards table, under the lock.

    Returns:
        The plan as of now; the shards to commit; what is done, and why.

    Raises:
        LakeError: another build changed a source that was read to something else meanwhile, or dropped or decoded
            otherwise one that was not.
    """
    plan, made, told = brought.plan, list(brought.made), list(brought.plan.todo)
    if now.equals(plan.shards):
        return plan, made, told
    dropped = now.join(plan.dropped, on=["dataset", "split", "uri"], how="semi")
    _must_be_same(brought.root, plan.dropped, dropped)
    kept: list[SourcePlan] = []
    for item in plan.sources:
        before, after = (_of(shards, item.source) for shards in (plan.shards, now))
        mine = [shard for shard in made if (shard.dataset, shard.split, shard.uri) == _key(item.source)]
        if after.select(_SAME).equals(before.select(_SAME)):
            kept.append(item)
        elif not item.reason and _as_asked(after, brought.decoder):
            # What was up to date and not read is newer now.
            kept.append(item)
        elif after.select(_SAME).equals(_expected(item, before, mine, brought.decoder)):
            # Another build brought the very same in.
            storage.delete(f"{brought.root}/{name}" for shard in mine for name in shard.files)
            made = [shard for shard in made if not any(shard is other for other in mine)]
            told = [_outdone(todo) if todo.unit == item.source.title else todo for todo in told]
        else:
            raise _overtaken(brought.root, item.source.title)
    return IngestPlan(kept, now, dropped), made, told


def _of(shards: pl.DataFrame, source: Source) -> pl.DataFrame:
    return shards.filter(dataset=source.dataset, split=source.split, uri=source.uri).sort(SHARD_KEY)


def _as_asked(after: pl.DataFrame, decoder: str) -> bool:
    """Tell whether a source that was not read is there as its recipe asks: not pruned, nor decoded otherwise."""
    return not after.is_empty() and bool((after["decoder"] == decoder).all())


def _key(source: Source) -> tuple[str, str, str]:
    return source.dataset, source.split, source.uri


def _expected(item: SourcePlan, before: pl.DataFrame, mine: Sequence[Ingested], decoder: str) -> pl.DataFrame:
    """Rows of a source's shards as this build would leave them."""
    gone = {*item.gone, *(shard.shard for shard in mine)}
    stay = before.filter(~pl.col("shard").is_in(list(gone)))
    rows: pl.DataFrame = pl.concat([stay, shard_rows(mine, decoder)]).sort(SHARD_KEY).select(_SAME)
    return rows


def _must_be_same(root: str, before: pl.DataFrame, now: pl.DataFrame) -> None:
    """Prune only what is as it was when it was decided to prune it."""
    changed = now.join(before, on=_SAME, how="anti")
    if len(changed):
        raise _overtaken(root, changed.select(pl.format("{}/{} ({})", "dataset", "split", "uri")).item(0, 0))


def _outdone(todo: Todo) -> Todo:
    return todo._replace(reason="another build brought in the very same meanwhile: this one's was dropped")


def _overtaken(root: str, title: str) -> LakeError:
    return LakeError(
        f"{root}: another build changed {title} since this one began, and to something else. Nothing of this build was "
        "committed; build again."
    )
