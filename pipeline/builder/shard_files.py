"""Find out which files of a source are in which shard of the lake, and put the others into new shards.

The shards of a folder or list are not cut again when the source changes. A shard of the lake keeps its files for as
long as the source has them. The tables of images and rejects are the list of the files of each shard: a file is found
by the id that its path makes. A list that is damaged does no harm, as the fingerprint of a shard covers its files.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from pipeline import storage
from pipeline.arrow_columns import to_binary
from pipeline.errors import DamagedLakeError
from pipeline.hashing import image_ids
from pipeline.lake.snapshot import Snapshot
from pipeline.shard import Listing, Positions, fingerprint_of_files, is_sum
from pipeline.sources import Source


class ShardFiles(NamedTuple):
    """The files of a shard to read.

    Attributes:
        positions: positions of its files in the listing of the source.
        stored: keys of the shards of the lake that may have some of its images.
    """

    positions: Positions
    stored: tuple[str, ...] = ()


class FoundFiles(NamedTuple):
    """The files of a source by where the lake has them.

    Attributes:
        shards: by shard of the lake, the positions of those of its files that the source still has; without shards of
            which it has none.
        others: positions of the files that are in none of these shards.
    """

    shards: dict[str, Positions]
    others: Positions


def find_files(snapshot: Snapshot, source: Source, files: Listing, shards: Collection[str]) -> FoundFiles:
    """Find the files of shards among the files that their source has now.

    Args:
        snapshot: the lake. A file of the images table that it leaves out, or that cannot be read, has no rows.
        source: the source.
        files: its files.
        shards: keys of shards of the source.
    """
    origin = source.dataset, source.split

    def is_wanted(partition: Mapping[str, str]) -> bool:
        return (partition["dataset"], partition["split"]) == origin and partition["shard"] in shards

    images = [part.path for part in snapshot.files("images", is_wanted)]
    images = [path for path in images if f"{snapshot.place}/images/{path}" not in snapshot.left_out]
    rejects = snapshot.scan("rejects", lambda p: (p["dataset"], p["split"]) == origin)
    rejected = rejects.filter(pl.col("shard").is_in(list(shards))).select("path", "shard").collect()
    rejected_ids = pl.Series("image_id", to_binary(image_ids(*origin, rejected["path"])), pl.Binary)
    stored = pl.concat([_ids_of(snapshot, images), rejected.select(rejected_ids, "shard")])
    ids = image_ids(*origin, (f"{source.prefix}{path}" for path in files.paths))
    found = pl.DataFrame({"image_id": pl.Series(to_binary(ids), dtype=pl.Binary)}).join(
        # Damaged ids may be equal.
        stored.unique("image_id", keep="first", maintain_order=True),
        on="image_id",
        how="left",
        maintain_order="left",
    )
    groups = found.select("shard", at=pl.int_range(pl.len(), dtype=pl.Int64)).partition_by("shard", as_dict=True)
    positions: dict[str | None, Positions] = {key: group["at"].to_numpy() for (key,), group in groups.items()}
    others = positions.pop(None, np.empty(0, np.int64))
    return FoundFiles({key: positions[key] for key in sorted(filter(None, positions))}, others)


def is_unchanged(files: Listing, positions: Positions, fingerprint: str) -> bool:
    """Return whether files are those of a shard with this fingerprint, as they were."""
    if is_sum(fingerprint):
        return fingerprint == fingerprint_of_files(files.digests[positions])
    return fingerprint == files.older_fingerprint(positions)


def assign_files(
    files: Listing, found: FoundFiles, fingerprints: Mapping[str, str]
) -> tuple[dict[str, ShardFiles], frozenset[str]]:
    """Decide which shards to read, and with which files.

    A shard is read again if one of its files is changed or gone. New files make new shards. They are joined with shards
    that are at most as large, the smallest first, as long as they fit into one shard. So a file is copied into a larger
    shard at most `log2(n)` times, for shards of n files, and few small shards stay.

    Args:
        files: the files of the source.
        found: where the lake has them.
        fingerprints: by shard of the lake, its fingerprint.

    Returns:
        The shards to read, and the shards of the lake that are gone.
    """
    same = {key for key, positions in found.shards.items() if is_unchanged(files, positions, fingerprints[key])}
    changed = {key: ShardFiles(positions, (key,)) for key, positions in found.shards.items() if key not in same}
    new, joined = found.others, []
    for key in sorted(same, key=lambda key: (len(found.shards[key]), key)):
        union = np.sort(np.concatenate([new, found.shards[key]]))
        if len(found.shards[key]) > len(new) or len(files.cut(union)) > 1:
            break
        new = union
        joined.append(key)
    added = {key: ShardFiles(positions, tuple(joined)) for key, positions in files.cut(new).items()}
    return {**changed, **added}, frozenset([*joined, *(fingerprints.keys() - found.shards.keys())])


def _ids_of(snapshot: Snapshot, paths: Sequence[str]) -> pl.DataFrame:
    """Read the ids and the shards of the rows of files of the images table, but of none that cannot be read."""
    try:
        with storage.damage_errors(f"{snapshot.place}/images"):
            return snapshot.scan_files("images", paths).select("image_id", "shard").collect()
    except DamagedLakeError:
        return pl.concat([_ids_of(snapshot, [path]) for path in paths]) if len(paths) > 1 else _ids_of(snapshot, [])
