"""Make decoded shards part of the lake: check that no path occurs twice, then commit the four tables of ingest."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import schemas
from pipeline.dedup.index import KEYS_VERSION
from pipeline.errors import SourceError
from pipeline.flow.state import SHARD_KEY, key_frame, shards_digest
from pipeline.flow.work import Ingested
from pipeline.hashing import image_ids
from pipeline.lake.commits import Meta, commit, read_meta
from pipeline.lake.parts import Part, write_part
from pipeline.lake.reading import polars_schema, scan_files, scan_table
from pipeline.rows import to_binary

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
