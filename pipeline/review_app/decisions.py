"""What is decided: the verdicts of a lake by picture and pair, and the way to record one or to take the last back."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.lake_handle import Lake
from pipeline.review_app.images import Images, keys_of
from pipeline.verdicts.journal import (
    ORDER,
    SCHEMA,
    Picture,
    Verdict,
    append,
    read_verdicts,
    user_name,
    verdict_rows,
    withdrawals,
)
from schemas.verdicts import WITHDRAWN

# A note that begins so is on all verdicts of a decision about a whole cluster, which are taken back together.
WHOLE_CLUSTER = "whole cluster"
_TABLE = pl.Schema([*SCHEMA.items(), ("subject", pl.UInt64)])
# Odd constants: multiplying by one is reversible, so that subjects of different pairs hardly ever are equal.
_LOW, _HIGH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class Recorded(NamedTuple):
    """What was recorded: the number of verdicts, and the subjects whose state may have changed."""

    verdicts: int
    subjects: NDArray[np.uint64]


class Decisions:
    """The verdicts of a lake. A subject is the number that stands for a picture or a pair of pictures.

    Args:
        lake: the lake of a release; verdicts are read as they are now.
        images: its images.
        who: who decides; None for the name of the user.
    """

    def __init__(self, lake: Lake, images: Images, who: str | None = None) -> None:
        self.place, self.who = lake.root, who or user_name()
        self._lock = threading.Lock()
        self._rows = _with_subjects(lake, images, read_verdicts(lake.root))
        self._count()

    def _count(self) -> None:
        taken_back = self._rows["withdraws"].drop_nulls().unique().implode()
        self._standing = self._rows.filter(
            pl.col("verdict") != WITHDRAWN, ~pl.col("verdict_id").is_in(taken_back)
        ).unique("subject", keep="last", maintain_order=True)
        self.by_subject = self._standing.sort("subject")
        self.subjects = self.by_subject["subject"].to_numpy()

    @property
    def mine(self) -> int:
        """The number of verdicts of this person that were not taken back."""
        return self._standing.filter(who=self.who).select(pl.col("verdict_id").n_unique()).item()  # type: ignore[no-any-return]

    def verdict(self, subject: int) -> dict[str, Any] | None:
        """Return the row of the verdict that counts for a subject; None if it is not decided."""
        at = int(np.searchsorted(self.subjects, np.uint64(subject)))
        if at == len(self.subjects) or int(self.subjects[at]) != subject:
            return None
        return self.by_subject.row(at, named=True)

    def decided(self, subjects: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return for every subject whether it is decided: (n,)."""
        return self.positions(subjects) >= 0

    def positions(self, subjects: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return for every subject the row of its verdict in `by_subject`, -1 if it is not decided: (n,)."""
        if not len(self.subjects):
            return np.full(len(subjects), -1)
        at = np.minimum(np.searchsorted(self.subjects, subjects), len(self.subjects) - 1)
        return np.where(self.subjects[at] == subjects, at, -1)

    def are(self, rows: NDArray[np.int64], verdict: str) -> NDArray[np.bool_]:
        """Return for every row of `by_subject`, as `positions` gives it, whether it is this verdict: (n,)."""
        wanted = (self.by_subject["verdict"] == verdict).to_numpy()
        # One more for rows of -1.
        return np.append(wanted, np.False_)[rows]

    def history(self, subjects: NDArray[np.uint64]) -> list[dict[str, Any]]:
        """List all verdicts about some subjects in the order in which they were made, also those that were taken back.

        Returns:
            Rows of the verdicts table with `counts`: whether the verdict counts.
        """
        counting = self._standing["verdict_id"].implode()
        return (
            self._rows.filter(pl.col("subject").is_in(pl.Series(subjects, dtype=pl.UInt64).implode()))
            .unique("verdict_id", maintain_order=True)
            .with_columns(counts=pl.col("verdict_id").is_in(counting))
            .to_dicts()
        )

    def about_picture(self, picture: Picture) -> list[dict[str, Any]]:
        """List all verdicts about a picture and about its pairs; see `history`."""
        key = keys_of(pl.Series([picture.key], dtype=pl.Binary))
        mine = pl.any_horizontal(
            pl.coalesce("file_digest", "content_hash") == pl.lit(picture.key),
            pl.coalesce("other_file_digest", "other_content_hash") == pl.lit(picture.key),
        ).fill_null(value=False)
        subjects = self._rows.filter(mine)["subject"].unique()
        return self.history(np.concatenate([subjects.to_numpy(), key]))

    def record(self, verdicts: Sequence[Verdict]) -> Recorded:
        """Record verdicts together. Those that this person has given just so are not recorded again.

        When this returns, they are on the disk or in the bucket.

        Raises:
            LakeError: a verdict is not possible, or the lake cannot be written to; none is recorded.
        """
        with self._lock:
            rows = verdict_rows(verdicts, self.who)
            frame = _subjects_of_rows(pl.DataFrame(rows, schema=SCHEMA))
            same = ("subject", "who", "verdict", "label")
            new = frame.join(self._standing.select(same), on=same, how="anti", nulls_equal=True)
            ids = set(new["verdict_id"])
            append(self.place, [row for row in rows if row["verdict_id"] in ids])
            return self._add(new)

    def undo(self) -> Recorded:
        """Take back the last decision of this person that counts: a verdict, or all verdicts about a whole cluster."""
        with self._lock:
            taken_back = self._rows["withdraws"].drop_nulls().unique().implode()
            rest = self._rows.filter(
                pl.col("verdict") != WITHDRAWN, pl.col("who") == self.who, ~pl.col("verdict_id").is_in(taken_back)
            ).unique("verdict_id", keep="first", maintain_order=True)
            if rest.is_empty():
                return Recorded(0, np.empty(0, np.uint64))
            last, note = rest.tail(1), rest["note"][-1]
            if note is not None and note.startswith(WHOLE_CLUSTER):
                last = rest.filter(pl.col("note").ne_missing(note).reverse().cum_sum().reverse() == 0)
            rows = withdrawals(last.rows(named=True), self.who)
            append(self.place, rows)
            subjects = self._rows.filter(pl.col("verdict_id").is_in(last["verdict_id"].implode()))["subject"]
            added = pl.DataFrame(rows, schema=SCHEMA)
            return self._add(_subjects_of_rows(added))._replace(subjects=subjects.to_numpy())

    def _add(self, rows: pl.DataFrame) -> Recorded:
        self._rows = pl.concat([self._rows, rows.select(_TABLE.names())])
        self._count()
        return Recorded(len(rows), rows["subject"].to_numpy())


def pair_subjects(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the subjects of pairs of pictures, given by their keys; of a picture and itself, the picture's: (n,)."""
    low, high = np.minimum(left, right), np.maximum(left, right)
    mixed = low * _LOW + (high ^ (high >> np.uint64(32))) * _HIGH
    return np.where(left == right, left, mixed)


def _subjects_of_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Add the subjects of verdicts about pictures of the lake."""
    keys = keys_of(rows.select(pl.coalesce("file_digest", "content_hash")).to_series())
    other = rows.select(pl.coalesce("other_file_digest", "other_content_hash")).to_series()
    subjects = np.where(other.is_null().to_numpy(), keys, pair_subjects(keys, keys_of(other)))
    return rows.with_columns(subject=pl.Series(subjects, dtype=pl.UInt64))


def _with_subjects(lake: Lake, images: Images, rows: pl.DataFrame) -> pl.DataFrame:
    """Add the subjects of verdicts. A picture whose file the lake does not have is found by its pixels."""
    if rows.is_empty():
        return pl.DataFrame(schema=_TABLE)
    columns = ["file_digest", "content_hash"]
    others = [f"other_{name}" for name in columns]
    pictures = pl.concat(
        [rows.select(columns), rows.select(pl.col(others).name.replace("^other_", "")).drop_nulls("content_hash")]
    ).unique()
    keys = keys_of(pictures.select(pl.coalesce(columns)).to_series())
    known = pictures.with_columns(key=pl.Series(keys, dtype=pl.UInt64))
    gone = ~np.isin(keys, images.keys)
    if gone.any():
        known = pl.concat([known.filter(~gone), _found_by_pixels(lake, known.filter(gone))])
    found = rows.join(known, on=columns, how="left", nulls_equal=True).join(
        known.rename({"key": "other_key"}), left_on=others, right_on=columns, how="left", nulls_equal=True
    )
    left, right = (found[name].fill_null(0).to_numpy() for name in ("key", "other_key"))
    subjects = np.where(found["other_key"].is_null().to_numpy(), left, pair_subjects(left, right))
    return found.with_columns(subject=pl.Series(subjects, dtype=pl.UInt64)).select(_TABLE.names()).sort(*ORDER)


def _found_by_pixels(lake: Lake, pictures: pl.DataFrame) -> pl.DataFrame:
    """Replace the keys of pictures by those of the images with the same pixels; without any, keep them."""
    wanted = pictures["content_hash"].drop_nulls().unique().implode()
    same = (
        lake.scan("images")
        .filter(pl.col("content_hash").is_in(wanted))
        .select("content_hash", found=pl.coalesce("file_digest", "content_hash"))
        .unique()
        .collect()
    )
    same = same.with_columns(found=pl.Series(keys_of(same["found"]), dtype=pl.UInt64))
    joined = pictures.join(same, on="content_hash", how="left", maintain_order="left")
    return joined.with_columns(key=pl.coalesce("found", "key")).drop("found")
