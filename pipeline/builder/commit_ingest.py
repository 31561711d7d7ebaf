"""What a build would do with its sources, and what becomes of that where another build was faster.

Make decoded shards part of the lake: check that no path occurs twice, then commit the four tables of ingest.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import schemas
from pipeline import storage
from pipeline.arrow_binary import to_binary
from pipeline.builder.state import SHARD_KEY, Todo, key_frame, shards_digest
from pipeline.builder.worker import Ingested
from pipeline.dedup.index import KEYS_VERSION
from pipeline.errors import LakeError, SourceError
from pipeline.hashing import image_ids
from pipeline.lake.commits import Meta, commit, read_meta
from pipeline.lake.parquet_writer import Part, write_part
from pipeline.lake.reading import polars_schema, scan_files, scan_table
from pipeline.sources import Source

# Whether a file can be read may change without its size or time: a shard with such a reject is never up to date.
AGAIN = "unreadable files"


def check_paths(root: str, made: Sequence[Ingested], retained: pl.DataFrame) -> None:
    """Hold law 1: no two files of one dataset and split, images or rejects, have one path.

    Args:
        root: the lake's folder.
        made: the shards that are about to be committed.
        retained: rows of the shards table that stay.

    Raises:
        SourceError: naming the first such path; nothing was committed.
    """
    fresh = {(item.dataset, item.split) for item in made}
    stay = {key for key in retained.select(SHARD_KEY).rows() if key[:2] in fresh}
    old = scan_table(root, "images", None, lambda p: (p["dataset"], p["split"], p["shard"]) in stay)
    touched = key_frame(stay).lazy()
    rejects = scan_table(root, "rejects", None).join(touched, on=SHARD_KEY, how="semi").collect()
    twice = _ids_that_occur_twice(old, [*_reject_ids(rejects), *chain.from_iterable(map(_ids, made))])
    if len(twice):
        dataset, split, path = _first_path(root, made, twice)
        raise SourceError(
            f"{dataset}/{split}: {len(twice)} paths occur more than once, first '{path}'. A path names one file: "
            "take out the copies, give the second source another split, or, where a source was renamed, build with "
            "--prune to drop it under its old name. Nothing was committed."
        )


def commit_shards(  # noqa: PLR0913 - what the four tables are made of
    root: str,
    decoder: str,
    made: Sequence[Ingested],
    replaced: pl.DataFrame,
    retained: pl.DataFrame,
    *,
    keep: Collection[str] = (),
) -> None:
    """Commit images, index, rejects and, last, shards, all four with one digest.

    Args:
        root: the lake's folder.
        decoder: name of the decoder, for the shards table.
        made: shards that are on disk.
        replaced: dataset, split and shard of those whose files go.
        retained: rows of the shards table that stay.
        keep: paths of files of rejects that stay, as they cannot be read and not all that they held is at hand.
    """
    shards = pl.concat([retained, shard_rows(made, decoder)]).sort(SHARD_KEY)
    keys = set(replaced.rows())
    unit = {"shards": {"fingerprint": shards_digest(shards)}}
    meta = Meta("ingest", unit)

    def gone(partition: Mapping[str, str]) -> bool:
        return (partition["dataset"], partition["split"], partition["shard"]) in keys

    commit(root, "images", [item.images for item in made if item.images], gone, meta)
    # What is in the index already was made by whatever version made it, and its commit goes on saying so.
    index = Meta("ingest", {"keys": {"fingerprint": KEYS_VERSION}, **read_meta(root, "index").units, **unit})
    commit(root, "index", list(chain.from_iterable(item.index for item in made)), gone, index)
    _commit_rejects(root, made, replaced, meta, keep)
    part = write_part(root, "shards", {}, shards.to_arrow().cast(schemas.TABLES["shards"].schema))
    commit(root, "shards", _present(part), lambda _: True, meta)


def _ids_that_occur_twice(old: pl.LazyFrame, new: Sequence[NDArray[np.uint8]]) -> pl.Series:
    """List every id that occurs twice in the old rows and the new ids together.

    Only half of every id is held at once, 8 bytes and a copy of them; whole ones only where two halves are equal.
    """
    half = pl.col("image_id").bin.slice(0, 8).bin.reinterpret(dtype=pl.UInt64, endianness="little")
    halves = [old.select(half).collect(engine="streaming").to_series().to_numpy(), *map(_half, new)]
    words = np.sort(np.concatenate(halves))
    suspects = np.unique(words[1:][words[1:] == words[:-1]])
    if not len(suspects):
        return pl.Series(dtype=pl.Binary)
    rows = old.select("image_id").filter(half.is_in(pl.Series(suspects).implode())).collect().to_series()
    every = pl.concat([rows, *(pl.Series(to_binary(ids[np.isin(_half(ids), suspects)])) for ids in new)])
    return every.filter(every.is_duplicated()).unique()


def _half(ids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(ids).view("<u8")[:, 0]


def _ids(item: Ingested) -> Iterator[NDArray[np.uint8]]:
    yield item.image_ids
    yield from _reject_ids(pl.DataFrame(item.rejects))


def _reject_ids(rejects: pl.DataFrame) -> Iterator[NDArray[np.uint8]]:
    for (dataset, split), rows in rejects.group_by("dataset", "split", maintain_order=True):
        yield image_ids(str(dataset), str(split), rows["path"])


def _first_path(root: str, made: Sequence[Ingested], twice: pl.Series) -> tuple[str, str, str]:
    named = [
        scan_files(root, "images", [item.images.path])
        .filter(pl.col("image_id").is_in(twice.implode()))
        .select("dataset", "split", "path")
        .collect()
        for item in made
        if item.images
    ]
    rejected = pl.concat([pl.DataFrame(item.rejects) for item in made]).select("dataset", "split", "path")
    rows = pl.concat([*named, rejected]).sort(pl.all()).rows()
    known = twice.to_list()
    return next(row for row in rows if image_ids(row[0], row[1], [row[2]]).tobytes() in known)


def _commit_rejects(
    root: str, made: Sequence[Ingested], replaced: pl.DataFrame, meta: Meta, keep: Collection[str]
) -> None:
    """Write every dataset and split that changed anew, from the shards that stay and the new ones: rejects are few."""
    old = scan_table(root, "rejects", None).join(replaced.lazy(), on=SHARD_KEY, how="anti").collect()
    schema = schemas.TABLES["rejects"].schema
    rows = pa.concat_tables([old.to_arrow().cast(schema), *(item.rejects for item in made)])
    touched = set(replaced.select("dataset", "split").rows())
    parts: list[Part] = []
    for dataset, split in sorted(touched):
        mask = pc.and_(pc.equal(rows["dataset"], dataset), pc.equal(rows["split"], split))
        ordered = rows.filter(mask).sort_by([("shard", "ascending"), ("path", "ascending")])
        parts += _present(write_part(root, "rejects", {"dataset": dataset, "split": split}, ordered))
    commit(root, "rejects", parts, lambda p: (p["dataset"], p["split"]) in touched, meta, keep=keep)


def shard_rows(made: Sequence[Ingested], decoder: str) -> pl.DataFrame:
    """Make the rows of the shards table for shards that were decoded."""
    rows = [
        {
            **item.partition,
            "uri": item.uri,
            "fingerprint": AGAIN if "unreadable" in item.rejects["reason"].to_pylist() else item.fingerprint,
            "rows": len(item.image_ids),
            "rejects": len(item.rejects),
            "decoder": decoder,
        }
        for item in made
    ]
    return pl.DataFrame(rows, schema=polars_schema(schemas.TABLES["shards"].schema))


def _present(part: Part | None) -> list[Part]:
    return [] if part is None else [part]


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
        before, after = (_shards_of_source(shards, item.source) for shards in (plan.shards, now))
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


def _shards_of_source(shards: pl.DataFrame, source: Source) -> pl.DataFrame:
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
