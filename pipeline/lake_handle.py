"""The lake handle: what people hold when they work with a lake from Python."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

import schemas
from pipeline import storage
from pipeline.arrays.batches import Batches, State
from pipeline.arrays.feed import BUFFER_BYTES, Feed, Images
from pipeline.arrays.windows import Plan
from pipeline.errors import LakeError
from pipeline.lake.duckdb_views import connect, query
from pipeline.lake.releases import release_snapshot, release_versions, releases_stamp
from pipeline.lake.snapshot import Snapshot
from pipeline.pixels import gather, id_matrix, locate, normalise

if TYPE_CHECKING:
    import duckdb


class Lake:
    """A lake as of one release: every reading sees the same versions, whatever is built meanwhile.

    Args:
        root: the lake's place: a folder, or `s3://bucket/prefix`.
        release: number of the release; None for the newest.

    Raises:
        NoReleaseError: there is no lake, no finished build, or no such release.
        NewerLakeError: the lake was made by a newer imagelake.
    """

    def __init__(self, root: str | Path, release: int | None = None) -> None:
        self.root = storage.normal(root)
        self._stamp = releases_stamp(self.root)
        self.release, self.versions = release_versions(Snapshot(self.root), release)
        self.snapshot = release_snapshot(self.root, self.versions)

    @classmethod
    def working(cls, snapshot: Snapshot) -> Self:
        """Read the tables of a snapshot, published or not: for builds and checks, not for readers."""
        lake = cls.__new__(cls)
        lake.root, lake.snapshot = snapshot.place, snapshot
        lake.release, lake.versions, lake._stamp = 0, {}, 0  # noqa: SLF001 - its own
        return lake

    def __repr__(self) -> str:
        return f"Lake({self.root!r}, release={self.release})"

    def at(self, release: int) -> "Lake":
        """Open the same lake as of another release."""
        return Lake(self.root, release)

    def scan(self, table: str) -> pl.LazyFrame:
        """Scan a table.

        Args:
            table: images, rejects, shards, index, pairs, clusters, splits, scores, releases or exports. The last two
                belong to no release: releases up to this one are shown, and all exports.

        Returns:
            Every column of the table, rows in the order of their partition.

        Raises:
            LakeError: there is no such table; the nearest name is given.
            NoReleaseError: vacuum gave up this release meanwhile.
        """
        if table not in schemas.TABLES:
            near = difflib.get_close_matches(table, schemas.TABLES, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise LakeError(f"no table '{table}'; {hint}Tables: {', '.join(schemas.TABLES)}.")
        rows = self._current_snapshot().scan(table)
        return rows.filter(pl.col("release") <= self.release) if table == "releases" and self.release else rows

    def sql(self, text: str, *, ids: Literal["bytes", "hex"] = "bytes") -> "duckdb.DuckDBPyRelation":
        """Query all tables by name with DuckDB.

        Args:
            text: one SELECT statement. It cannot write, nor read files outside the lake.
            ids: whether ids and hashes are 16 bytes, or text of 32 hexadecimal digits as in `imagelake sql`.

        Raises:
            QueryError: DuckDB refuses the statement.
            NoReleaseError: vacuum gave up this release meanwhile.
        """
        return query(connect(self._current_snapshot(), ids=ids), text)

    def _current_snapshot(self) -> Snapshot:
        """Return the snapshot to read. Where releases or exports may have changed, it reads those two tables anew.

        Raises:
            NoReleaseError: vacuum gave up this release meanwhile.
        """
        if self.release and (now := releases_stamp(self.root, self._stamp)) != self._stamp:
            release_versions(Snapshot(self.root), self.release)
            self._stamp = now
        return self.snapshot.with_newest("releases", "exports") if self.release else self.snapshot

    def class_names(self, split: str) -> list[str]:
        """List the class names of a split: position i names label i."""
        ids = self.scan("splits").filter(split_name=split).select("image_id", "label_index").drop_nulls()
        named = ids.join(self.scan("images").select("image_id", "label"), on="image_id")
        rows = named.select("label_index", "label").unique().sort("label_index").collect()
        return rows["label"].to_list()

    def members(self, split: str, role: str, *, sanitized: bool = True) -> pl.DataFrame:
        """List the images of a role in the order of the split.

        Returns:
            Columns image_id, label_index, kept, ordered by rank.

        Raises:
            LakeError: the lake has no such split, or the split no such role.
        """
        rows = self.scan("splits").filter(split_name=split, role=role).sort("rank").collect()
        if rows.is_empty():
            found = (
                self.scan("splits").select("split_name", "role").unique().sort("split_name", "role").collect().rows()
            )
            listed = ", ".join(f"{name}/{part}" for name, part in found) or "none"
            raise LakeError(f"{self.root} has no images in split '{split}', role '{role}'. There are: {listed}.")
        return rows.filter("kept" if sanitized else pl.lit(value=True)).select("image_id", "label_index", "kept")

    @overload
    def arrays(
        self, split: str, role: str, *, sanitized: bool = ..., normalised: Literal[False] = ...
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...
    @overload
    def arrays(
        self, split: str, role: str, *, sanitized: bool = ..., normalised: Literal[True]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
    def arrays(
        self, split: str, role: str, *, sanitized: bool = True, normalised: bool = False
    ) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.int64]]:
        """Read a role of a split as arrays, in the order of its ranks.

        Args:
            split: name of the split.
            role: train, valid or test.
            sanitized: only the rows that sanitizing kept; False for the original role.
            normalised: pixels as (p - 127.5) / 255 in float32, -0.5 to 0.5, instead of uint8, 0 to 255.

        Returns:
            Pixels (n, height, width) for gray or (n, height, width, 3) for RGB, and labels (n,) int64: positions in
            `class_names(split)`, -1 where an image has no label.

        Raises:
            LakeError: no such split or role, or its images are not all of one shape.
        """
        rows = self.members(split, role, sanitized=sanitized)
        pixels = gather(locate(self.snapshot.file_places("images"), rows["image_id"]))
        return normalise(pixels) if normalised else pixels, _labels(rows)

    def batches(  # noqa: PLR0913 - a training loop's own words
        self,
        split: str,
        role: str,
        *,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        sanitized: bool = True,
        buffer_bytes: int = BUFFER_BYTES,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        state: Mapping[str, str | int | bool] | None = None,
    ) -> Batches:
        """Hand out an epoch of a role in shuffled batches. For several epochs, `feed` reads less.

        Args:
            split: name of the split.
            role: train, valid or test.
            batch_size: as `feed`.
            seed: any integer.
            epoch: any integer; another epoch is another order.
            sanitized: only the rows that sanitizing kept.
            buffer_bytes: as `feed`.
            rank: as `feed`.
            world_size: as `feed`.
            drop_last: as `feed`.
            state: what `.state()` of such an iterator told: go on with the batch after the last one handed out.

        Returns:
            An iterator of (batch, height, width[, 3]) uint8 and (batch,) int64.

        Raises:
            FeedError: the state is of other batches; what differs is named.
            LakeError: as `arrays`.
            ValueError: as `feed`.
        """
        feed = self.feed(
            split,
            role,
            batch_size=batch_size,
            seed=seed,
            sanitized=sanitized,
            buffer_bytes=buffer_bytes,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        return feed.epoch(epoch, state=state)

    def feed(  # noqa: PLR0913 - a training loop's own words
        self,
        split: str,
        role: str,
        *,
        batch_size: int,
        seed: int = 0,
        sanitized: bool = True,
        buffer_bytes: int = BUFFER_BYTES,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> Feed:
        """Prepare a role for training: `feed.epoch(k)` hands out an epoch, `feed.torch()` is a PyTorch dataset.

        Args:
            split: name of the split.
            role: train, valid or test.
            batch_size: images in every batch but the last.
            seed: any integer.
            sanitized: only the rows that sanitizing kept.
            buffer_bytes: bytes of pixels to hold at most. A role larger than that is shuffled in windows; see `Feed`.
            rank: which of the `world_size` ranks this is.
            world_size: how many ranks share an epoch; together they hand out every image once.
            drop_last: leave out what fills no batch. Then all ranks hand out equally many batches.

        Raises:
            LakeError: as `arrays`.
            ValueError: a number is out of its range.
        """
        plan = Plan(batch_size, seed, buffer_bytes, drop_last, rank, world_size)
        rows = self.members(split, role, sanitized=sanitized)
        where = locate(self.snapshot.file_places("images"), rows["image_id"])
        about: State = {"release": self.release, "split": split, "role": role, "sanitized": bool(sanitized)}
        return Feed(Images(about, id_matrix(rows["image_id"]), _labels(rows), where), plan)


def _labels(rows: pl.DataFrame) -> NDArray[np.int64]:
    return rows["label_index"].cast(pl.Int64).fill_null(-1).to_numpy()
