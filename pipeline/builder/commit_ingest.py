"""Commit decoded shards: reconcile them with what other builds committed, check paths, and commit their tables.

A build decodes without the lock. Once it holds the lock, the lake may have changed: `reconcile` keeps what still fits,
drops what another build committed too, and refuses the rest.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

import schemas
from pipeline import storage
from pipeline.arrow_columns import to_binary
from pipeline.builder.shard_files import ShardFiles
from pipeline.builder.state import SHARD_KEY, Todo, is_in_use, key_frame, shards_digest, stored_shards
from pipeline.builder.worker import Ingested
from pipeline.decode.picture import has_heic_decoder
from pipeline.dedup.rules import keys_unit
from pipeline.errors import LakeError, SourceError
from pipeline.hashing import image_ids
from pipeline.lake.delta_log import Metadata
from pipeline.lake.snapshot import Snapshot
from pipeline.lake.transaction import Commit, Transaction, all_files
from pipeline.shard import Listing
from pipeline.sources import Source

if TYPE_CHECKING:
    from pipeline.lake.parquet_writer import Part

# The fingerprint of a shard with an unreadable file: whether a file can be read may change without its size or time,
# so such a shard is never up to date.
REREAD = "unreadable files"
# The fingerprint of a shard of which a repair found neither fingerprint nor decode settings.
LOST = "lost"
# Before the fingerprint of a shard with a HEIC that could not be decoded: it is read again once the decoder is there.
_LACKS_DECODER = "lacks a decoder: "

# Two readings of a shard are equal where these columns are.
_SAME = [*SHARD_KEY, "uri", "fingerprint", "rows", "rejects", "decoder"]


class SourcePlan(NamedTuple):
    """What a build would do with one source.

    Attributes:
        source: the source.
        reason: why it is read; empty where it is up to date.
        wanted: keys of the shards to read; None for all.
        gone: shards in the lake that are replaced, or that the source no longer has.
        images: how many files the source has, where its survey counts them.
        files: the files of the source, if it lists them and is to be read.
        shards: by key of a shard to read, its files, if the source lists them.
    """

    source: Source
    reason: str
    wanted: frozenset[str] | None
    gone: frozenset[str]
    images: int | None = None
    files: Listing | None = None
    shards: Mapping[str, ShardFiles] = MappingProxyType({})


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
    def is_small(self) -> bool:
        """Whether at most one shard is read, as far as this is known before reading."""
        read = [item for item in self.sources if item.reason]
        return all(item.files is not None for item in read) and sum(len(item.shards) for item in read) <= 1

    @property
    def todo(self) -> list[Todo]:
        """What the next build would read or drop, and why."""
        read = [Todo("ingest", plan.source.title, plan.reason) for plan in self.sources if plan.reason]
        titles = self.dropped.select(pl.format("{}/{} ({})", "dataset", "split", "uri")).unique().to_series().sort()
        return read + [Todo("ingest", title, "no longer in the recipe") for title in titles]


@dataclass(frozen=True)
class Decoded:
    """Shards that were decoded and are not committed yet.

    Attributes:
        decoder: name of the decoder.
        plan: what was planned.
        shards: the shards, their files written.
        seconds: how long it took.
        notes: lines for the summary: labels that changed, folders of several splits read as one.
    """

    decoder: str
    plan: IngestPlan
    shards: Sequence[Ingested] = ()
    seconds: float = 0.0
    notes: Sequence[str] = ()

    @property
    def files(self) -> int:
        """How many files were read; each became an image or a reject. Images that the lake had are not read."""
        return sum(len(item.image_ids) - item.copied + len(item.rejects) for item in self.shards)


def reconcile(snapshot: Snapshot, decoded: Decoded) -> tuple[IngestPlan, list[Ingested], list[Todo]]:
    """Reconcile decoded shards with what the lake holds now.

    Args:
        snapshot: of the lake, under the lock.
        decoded: what was decoded.

    Returns:
        The plan as of now; the shards to commit; what is done, and why.

    Raises:
        LakeError: meanwhile another build committed another state of a source that was read, or dropped or decoded
            otherwise one that was not.
    """
    current = stored_shards(snapshot)
    plan, shards, done = decoded.plan, list(decoded.shards), list(decoded.plan.todo)
    if current.equals(plan.shards):
        return plan, shards, done
    dropped = current.join(plan.dropped, on=["dataset", "split", "uri"], how="semi")
    _check_unchanged(snapshot, plan.dropped, dropped)
    kept: list[SourcePlan] = []
    for item in plan.sources:
        before, after = (_shards_of(rows, item.source) for rows in (plan.shards, current))
        own = [shard for shard in shards if (shard.dataset, shard.split, shard.uri) == _key(item.source)]
        if after.select(_SAME).equals(before.select(_SAME)):
            kept.append(item)
        elif not item.reason and _is_as_planned(after, decoded.decoder):
            # It was up to date and not read; another build has read a newer state.
            kept.append(item)
        elif after.select(_SAME).equals(_expected(item, before, own, decoded.decoder)):
            # Another build committed the same shards.
            storage.delete(f"{snapshot.place}/{name}" for shard in own for name in shard.files)
            shards = [shard for shard in shards if not any(shard is other for other in own)]
            done = [_committed_by_another(todo) if todo.unit == item.source.title else todo for todo in done]
        else:
            raise _changed_meanwhile(snapshot, item.source.title)
    return IngestPlan(kept, current, dropped), shards, done


def check_paths(snapshot: Snapshot, decoded: Sequence[Ingested], retained: pl.DataFrame) -> None:
    """Check law 1: no two files of one dataset and split, images or rejects, have one path.

    Args:
        snapshot: of the lake.
        decoded: the shards to commit.
        retained: rows of the shards table that stay.

    Raises:
        SourceError: naming the first such path; nothing was committed.
    """
    touched = {(item.dataset, item.split) for item in decoded}
    kept = {key for key in retained.select(SHARD_KEY).rows() if key[:2] in touched}
    old = snapshot.scan("images", lambda p: (p["dataset"], p["split"], p["shard"]) in kept)
    rejects = snapshot.scan("rejects").join(key_frame(kept).lazy(), on=SHARD_KEY, how="semi").collect()
    twice = _ids_that_occur_twice(old, [*_reject_ids(rejects), *chain.from_iterable(map(_ids, decoded))])
    if len(twice):
        dataset, split, path = _first_path(snapshot, decoded, twice)
        raise SourceError(
            f"{dataset}/{split}: {len(twice)} paths occur more than once, first '{path}'. A path names one file: "
            "take out the copies, give the second source another split, or, where a source was renamed, build with "
            "--prune to drop it under its old name. Nothing was committed."
        )


def commit_shards(  # noqa: PLR0913 - what the tables are made of
    transaction: Transaction,
    decoder: str,
    decoded: Sequence[Ingested],
    replaced: pl.DataFrame,
    retained: pl.DataFrame,
    *,
    keep: Collection[str] = (),
) -> None:
    """Commit images, originals, index, rejects and, last, shards, all with one digest.

    Originals are not committed in a lake that never had any.

    Args:
        transaction: of the lake.
        decoder: name of the decoder, for the shards table.
        decoded: shards whose files are written.
        replaced: dataset, split and shard of those whose files go.
        retained: rows of the shards table that stay.
        keep: paths of files of rejects that stay, as they cannot be read and some of their rows are not at hand.
    """
    shards = pl.concat([retained, shard_rows(decoded, decoder)]).sort(SHARD_KEY)
    keys = set(replaced.rows())
    unit = _shards_unit(shards)
    metadata = Metadata("ingest", unit)

    def is_replaced(partition: Mapping[str, str]) -> bool:
        return (partition["dataset"], partition["split"], partition["shard"]) in keys

    # The rest of the index was made by some version of the keys, which its metadata goes on recording.
    index_units = {"keys": keys_unit(), **transaction.snapshot.metadata("index").units, **unit}
    index = [part for item in decoded for part in item.index]
    transaction.commit(Commit("images", [item.images for item in decoded if item.images], metadata, is_replaced))
    originals = [item.originals for item in decoded if item.originals]
    if originals or is_in_use(transaction.snapshot, "originals"):
        transaction.commit(Commit("originals", originals, metadata, is_replaced))
    transaction.commit(Commit("index", index, Metadata("ingest", index_units), is_replaced))
    transaction.commit(_rejects_commit(transaction, decoded, replaced, metadata, keep))
    commit_shards_table(transaction, shards)


def commit_shards_table(transaction: Transaction, shards: pl.DataFrame) -> None:
    """Replace the rows of the shards table."""
    added = transaction.writer.write("shards", shards.to_arrow().cast(schemas.TABLES["shards"].schema))
    transaction.commit(Commit("shards", added, Metadata("ingest", _shards_unit(shards)), all_files))


def _shards_unit(shards: pl.DataFrame) -> dict[str, dict[str, str]]:
    return {"shards": {"fingerprint": shards_digest(shards)}}


def shard_rows(decoded: Sequence[Ingested], decoder: str) -> pl.DataFrame:
    """Make the rows of the shards table for shards that were decoded."""
    rows = [
        {
            **item.partition,
            "uri": item.uri,
            "fingerprint": _fingerprint(item),
            "rows": len(item.image_ids),
            "rejects": len(item.rejects),
            "decoder": decoder,
        }
        for item in decoded
    ]
    return pl.DataFrame(rows, schema=pl.Schema(schemas.TABLES["shards"].schema))


def _fingerprint(item: Ingested) -> str:
    reasons = set(item.rejects["reason"].to_pylist())
    if "unreadable" in reasons:
        return REREAD
    return f"{_LACKS_DECODER}{item.fingerprint}" if "no_decoder" in reasons else item.fingerprint


def fingerprint_now(stored: str) -> str:
    """Return the fingerprint that the source of an unchanged shard has; another one if the shard must be read again."""
    return stored if stored.startswith(_LACKS_DECODER) and has_heic_decoder() else stored.removeprefix(_LACKS_DECODER)


def _ids_that_occur_twice(old: pl.LazyFrame, new: Sequence[NDArray[np.uint8]]) -> pl.Series:
    """List every id that occurs twice in the old rows and the new ids together.

    Only half of every id is held at once, 8 bytes and a copy of them; whole ids only where two halves are equal.
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


def _first_path(snapshot: Snapshot, decoded: Sequence[Ingested], twice: pl.Series) -> tuple[str, str, str]:
    named = [
        snapshot.scan_files("images", [item.images.path])
        .filter(pl.col("image_id").is_in(twice.implode()))
        .select("dataset", "split", "path")
        .collect()
        for item in decoded
        if item.images
    ]
    rejected = pl.concat([pl.DataFrame(item.rejects) for item in decoded]).select("dataset", "split", "path")
    rows = pl.concat([*named, rejected]).sort(pl.all()).rows()
    known = twice.to_list()
    return next(row for row in rows if image_ids(row[0], row[1], [row[2]]).tobytes() in known)


def _rejects_commit(
    transaction: Transaction,
    decoded: Sequence[Ingested],
    replaced: pl.DataFrame,
    metadata: Metadata,
    keep: Collection[str],
) -> Commit:
    """Write the rejects of every dataset and split that changed: of the shards that stay and of the new ones."""
    old = transaction.snapshot.scan("rejects").join(replaced.lazy(), on=SHARD_KEY, how="anti").collect()
    schema = schemas.TABLES["rejects"].schema
    new = [pl.DataFrame(item.rejects) for item in decoded]
    rows = pl.concat([old.select(schema.names), *new]).sort("shard", "path", maintain_order=True)
    touched = set(replaced.select("dataset", "split").rows())
    parts: list[Part] = []
    for dataset, split in sorted(touched):
        ordered = rows.filter(dataset=dataset, split=split).to_arrow().cast(schema)
        parts += transaction.writer.write("rejects", ordered, {"dataset": dataset, "split": split})
    return Commit("rejects", parts, metadata, lambda p: (p["dataset"], p["split"]) in touched, keep)


def _shards_of(shards: pl.DataFrame, source: Source) -> pl.DataFrame:
    return shards.filter(dataset=source.dataset, split=source.split, uri=source.uri).sort(SHARD_KEY)


def _is_as_planned(after: pl.DataFrame, decoder: str) -> bool:
    """Whether a source that was not read is there as the recipe describes it: not pruned, nor decoded otherwise."""
    return not after.is_empty() and bool((after["decoder"] == decoder).all())


def _key(source: Source) -> tuple[str, str, str]:
    return source.dataset, source.split, source.uri


def _expected(item: SourcePlan, before: pl.DataFrame, own: Sequence[Ingested], decoder: str) -> pl.DataFrame:
    """Rows of a source's shards as this build would leave them."""
    gone = {*item.gone, *(shard.shard for shard in own)}
    kept = before.filter(~pl.col("shard").is_in(list(gone)))
    rows: pl.DataFrame = pl.concat([kept, shard_rows(own, decoder)]).sort(SHARD_KEY).select(_SAME)
    return rows


def _check_unchanged(snapshot: Snapshot, before: pl.DataFrame, now: pl.DataFrame) -> None:
    """Prune only what is as it was when the build decided to prune it."""
    changed = now.join(before, on=_SAME, how="anti")
    if len(changed):
        dataset, split, uri = changed.select("dataset", "split", "uri").row(0)
        raise _changed_meanwhile(snapshot, f"{dataset}/{split} ({uri})")


def _committed_by_another(todo: Todo) -> Todo:
    return todo._replace(reason="another build committed the same shards meanwhile; those of this build were dropped")


def _changed_meanwhile(snapshot: Snapshot, title: str) -> LakeError:
    return LakeError(
        f"{snapshot.place}: another build changed {title} since this one began, to another state. Nothing of this "
        "build was committed; build again."
    )
