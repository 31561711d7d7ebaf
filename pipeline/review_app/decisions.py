"""What is decided: the verdicts of a lake by picture and pair, and the way to record one or to take the last back."""

import threading
from collections.abc import Container, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.lake_handle import Lake
from pipeline.review_app.images import Images, is_one_of, keys_of
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
from schemas.verdicts import NOT_SURE, PAIR_VERDICTS, PICTURE_VERDICTS, WITHDRAWN

# The note of all verdicts of one decision about a whole cluster begins so and ends with an id of the decision: they are
# taken back together.
WHOLE_CLUSTER = "whole cluster"
_TABLE = pl.Schema([*SCHEMA.items(), ("subject", pl.UInt64)])
# Verdicts as numbers; 0 is none.
CODES = {name: code for code, name in enumerate((*PICTURE_VERDICTS, *PAIR_VERDICTS, NOT_SURE), start=1)}
# Up to so many subjects are looked up one by one.
_FEW = 1000
Row = dict[str, Any]
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
        # All rows in their order, and by subject and of this person those that were not taken back.
        self._rows: list[Row] = []
        self._of_subject: dict[int, list[Row]] = {}
        self._own: list[Row] = []
        # The subjects of a verdict: several where images with the same pixels have different files.
        self._subjects: dict[bytes, list[int]] = {}
        # All subjects that are decided, sorted, and the codes of their verdicts; None until many are looked up.
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.uint8]] | None = None
        rows = _with_subjects(lake, images, read_verdicts(lake.root))
        taken_back = set(rows["withdraws"].drop_nulls())
        for row in rows.iter_rows(named=True):
            self._add(row, row.pop("subject"), taken_back)

    def _add(self, row: Row, subject: int, taken_back: Container[bytes] = ()) -> None:
        known = self._subjects.setdefault(row["verdict_id"], [])
        known.append(subject)
        if len(known) == 1:
            self._rows.append(row)
        if row["verdict"] != WITHDRAWN and row["verdict_id"] not in taken_back:
            self._of_subject.setdefault(subject, []).append(row)
            if len(known) == 1 and row["who"] == self.who:
                self._own.append(row)
        self._sorted = None

    @property
    def mine(self) -> int:
        """The number of verdicts of this person that were not taken back."""
        return len(self._own)

    def verdict(self, subject: int) -> Row | None:
        """Return the row of the verdict that counts for a subject; None if it is not decided."""
        rows = self._of_subject.get(subject)
        return rows[-1] if rows else None

    def codes(self, subjects: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Return for every subject its verdict as a code, see `CODES`; 0 if it is not decided: (n,)."""
        if len(subjects) <= _FEW:
            found = map(self.verdict, subjects.tolist())
            return np.array([0 if row is None else CODES[row["verdict"]] for row in found], np.uint8)
        if self._sorted is None:
            count = len(self._of_subject)
            known = np.fromiter(self._of_subject, np.uint64, count)
            codes = np.fromiter((CODES[rows[-1]["verdict"]] for rows in self._of_subject.values()), np.uint8, count)
            order = np.argsort(known)
            self._sorted = known[order], codes[order]
        known, codes = self._sorted
        if not len(known):
            return np.zeros(len(subjects), np.uint8)
        at = np.minimum(np.searchsorted(known, subjects), len(known) - 1)
        return np.where(known[at] == subjects, codes[at], np.uint8(0))

    def about_picture(self, picture: Picture) -> list[Row]:
        """List all verdicts about a picture and about its pairs, in the order in which they were made.

        Returns:
            Rows of the verdicts table with `counts`: whether the verdict counts.
        """
        key = _key(picture.key)
        found = [
            row
            for row in self._rows
            if key in self._subjects[row["verdict_id"]]
            or picture.key
            in {row["file_digest"] or row["content_hash"], row["other_file_digest"] or row["other_content_hash"]}
        ]
        return [{**row, "counts": self._counts(row)} for row in found]

    def _counts(self, row: Row) -> bool:
        return any(self.verdict(subject) is row for subject in self._subjects[row["verdict_id"]])

    def record(self, verdicts: Sequence[Verdict]) -> Recorded:
        """Record verdicts together. Those that this person has given just so are not recorded again.

        When this returns, they are on the disk or in the bucket.

        Raises:
            LakeError: a verdict is not possible, or the lake cannot be written to; none is recorded.
        """
        with self._lock:
            rows = verdict_rows(verdicts, self.who)
            subjects = _subjects_of_rows(rows)
            new = [(row, at) for row, at in zip(rows, subjects.tolist(), strict=True) if not self._is_known(row, at)]
            append(self.place, [row for row, _ in new])
            for row, subject in new:
                self._add(row, subject)
            return Recorded(len(new), subjects)

    def _is_known(self, row: Row, subject: int) -> bool:
        before = self.verdict(subject)
        return before is not None and all(before[name] == row[name] for name in ("who", "verdict", "label"))

    def undo(self) -> Recorded:
        """Take back the last decision of this person that counts: a verdict, or all verdicts about a whole cluster."""
        with self._lock:
            if not self._own:
                return Recorded(0, np.empty(0, np.uint64))
            note = self._own[-1]["note"]
            last = self._own[-1:]
            if note is not None and note.startswith(WHOLE_CLUSTER):
                last = list(takewhile(lambda row: row["note"] == note, reversed(self._own)))
            rows = withdrawals(last, self.who)
            append(self.place, rows)
            del self._own[-len(last) :]
            taken_back = [subject for row in last for subject in self._subjects[row["verdict_id"]]]
            for row in last:
                for subject in self._subjects[row["verdict_id"]]:
                    rest = [one for one in self._of_subject[subject] if one is not row]
                    if rest:
                        self._of_subject[subject] = rest
                    else:
                        del self._of_subject[subject]
            for row, before in zip(rows, last, strict=True):
                self._add(row, self._subjects[before["verdict_id"]][0])
            return Recorded(len(rows), np.array(taken_back, np.uint64))


def pair_subjects(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the subjects of pairs of pictures, given by their keys; of a picture and itself, the picture's: (n,)."""
    low, high = np.minimum(left, right), np.maximum(left, right)
    mixed = low * _LOW + (high ^ (high >> np.uint64(32))) * _HIGH
    return np.where(left == right, left, mixed)


def _subjects_of_rows(rows: Sequence[Row]) -> NDArray[np.uint64]:
    """Return the subjects of verdicts about pictures of the lake."""
    keys = np.array([_key(row["file_digest"] or row["content_hash"]) for row in rows], np.uint64)
    others = [row["other_file_digest"] or row["other_content_hash"] for row in rows]
    is_pair = np.array([other is not None for other in others], np.bool_)
    other_keys = np.array([0 if other is None else _key(other) for other in others], np.uint64)
    return np.where(is_pair, pair_subjects(keys, other_keys), keys)


def _key(digest: bytes) -> int:
    """Return the key of a picture, as in `Images.keys`."""
    return int.from_bytes(digest[:8], "little")


def _with_subjects(lake: Lake, images: Images, rows: pl.DataFrame) -> pl.DataFrame:
    """Add the subjects of verdicts. A picture whose file the lake does not have is found by its pixels."""
    if rows.is_empty():
        return pl.DataFrame(schema=_TABLE)
    columns = ["file_digest", "content_hash"]
    others = [f"other_{name}" for name in columns]
    both = pl.concat([rows.select(columns), rows.select(pl.col(others).name.replace("^other_", ""))])
    # Either digest may be missing. Rows without both are no picture: of a verdict about one picture, the other.
    pictures = both.filter(pl.coalesce(columns).is_not_null()).unique()
    keys = keys_of(pictures.select(pl.coalesce(columns)).to_series())
    known = pictures.with_columns(key=pl.Series(keys, dtype=pl.UInt64))
    gone = ~is_one_of(keys, images.keys[is_one_of(images.keys, keys)])
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
