"""Find the verdicts that count, the images that they are about, and where people disagree."""

from functools import cached_property

import polars as pl

from pipeline.dedup.decided import NOTHING, Decided
from pipeline.hashing import digest_of
from pipeline.lake.snapshot import Snapshot
from pipeline.verdicts.journal import SCHEMA, committed_verdicts, in_order
from schemas.verdicts import NOT_SURE, PAIR_VERDICTS, PICTURE_VERDICTS, WITHDRAWN

_SUBJECT = ["file_digest", "content_hash"]
_OTHER = {"other_file_digest": "file_digest", "other_content_hash": "content_hash"}
_KEY = pl.coalesce(_SUBJECT)
_OTHER_KEY = pl.coalesce(*_OTHER)
_OF_IMAGES = ("image_id", "verdict_id", "verdict", "label")


_NO_PICTURE = pl.DataFrame(
    schema={name: pl.String if name in ("verdict", "label") else pl.Binary for name in _OF_IMAGES}
)


class Resolved:
    """The verdicts that count, and the images of a lake that they are about. Images are read when they are needed.

    A picture is found by its file digest or, if no image has it, by its pixels.

    Args:
        snapshot: the lake; None if no verdict counts.
        counting: made by `standing`.
    """

    def __init__(self, snapshot: Snapshot | None, counting: pl.DataFrame) -> None:
        self._snapshot, self._counting = snapshot, counting

    @property
    def links_digest(self) -> str:
        """Digest of the verdicts about pairs; empty if there are none. No image is read."""
        return _digest(_of_pairs(self._counting))

    @property
    def pictures_digest(self) -> str:
        """Digest of the verdicts about pictures; empty if there are none. No image is read."""
        return _digest(_of_pictures(self._counting))

    @cached_property
    def pictures(self) -> pl.DataFrame:
        """Verdicts about pictures, for each of their images.

        Columns image_id, verdict_id, verdict (keep, drop, label or wrong_label) and label (the right one), ordered by
        image_id; an image has one row at most.
        """
        about_one = _of_pictures(self._counting)
        return _NO_PICTURE if about_one.is_empty() else _pictures(about_one, self.images)

    @cached_property
    def decided(self) -> Decided:
        """Verdicts about pairs, that they are the same or different."""
        pairs = _of_pairs(self._counting)
        return NOTHING if pairs.is_empty() else _decided(pairs, self.images, self._images)

    @cached_property
    def gone(self) -> pl.DataFrame:
        """The verdicts about pictures of which the lake has no image: rows of the verdicts table."""
        return _gone(self._counting, self.images)

    @cached_property
    def _subjects(self) -> pl.DataFrame:
        other = self._counting.select(pl.col(old).alias(new) for old, new in _OTHER.items())
        return pl.concat([self._counting.select(_SUBJECT), other]).filter(_KEY.is_not_null()).unique()

    @cached_property
    def _images(self) -> pl.DataFrame:
        """The images that may be meant: columns image_id, file_digest, content_hash."""
        if self._snapshot is None or self._subjects.is_empty():
            return pl.DataFrame(schema=dict.fromkeys(("image_id", *_SUBJECT), pl.Binary))
        any_of = pl.any_horizontal(
            pl.col(name).is_in(self._subjects[name].drop_nulls().implode()).fill_null(value=False) for name in _SUBJECT
        )
        return self._snapshot.scan("images").select("image_id", *_SUBJECT).filter(any_of).collect()

    @cached_property
    def images(self) -> pl.DataFrame:
        """The images of every picture: columns file_digest, content_hash (those of the verdict) and image_id."""
        return _images_of(self._subjects, self._images)


EMPTY = Resolved(None, SCHEMA.to_frame())


def standing(rows: pl.DataFrame) -> pl.DataFrame:
    """Select the verdicts that count: the newest about every picture and pair that was not taken back.

    Args:
        rows: rows of the verdicts table.

    Returns:
        The rows that count, in the order in which they were made.
    """
    taken_back = rows["withdraws"].drop_nulls()
    made = in_order(rows).filter(pl.col("verdict") != WITHDRAWN, ~pl.col("verdict_id").is_in(taken_back.implode()))
    return (
        made.with_columns(key=_KEY, other_key=_OTHER_KEY)
        .unique(["key", "other_key"], keep="last", maintain_order=True)
        .drop("key", "other_key")
    )


def conflicts(rows: pl.DataFrame) -> pl.DataFrame:
    """Find pictures and pairs about which people disagree: what each said last, without those who are not sure.

    Args:
        rows: rows of the verdicts table.

    Returns:
        Rows of the verdicts table, those about one picture or pair together, in the order in which they were made.
    """
    taken_back = rows["withdraws"].drop_nulls()
    subject = ["key", "other_key"]
    return (
        in_order(rows)
        .filter(pl.col("verdict") != WITHDRAWN, ~pl.col("verdict_id").is_in(taken_back.implode()))
        .with_columns(key=_KEY, other_key=_OTHER_KEY)
        .unique([*subject, "who"], keep="last", maintain_order=True)
        .filter(pl.col("verdict") != NOT_SURE)
        .filter(pl.struct("verdict", "label").n_unique().over(subject) > 1)
        .sort(*subject, maintain_order=True)
        .drop(subject)
    )


def resolve(snapshot: Snapshot, rows: pl.DataFrame | None = None) -> Resolved:
    """Find the verdicts of a lake that count.

    Args:
        snapshot: the lake.
        rows: rows of the verdicts table; None for those of the snapshot.
    """
    return Resolved(snapshot, standing(committed_verdicts(snapshot) if rows is None else rows))


def _of_pairs(counting: pl.DataFrame) -> pl.DataFrame:
    return counting.filter(_OTHER_KEY.is_not_null(), pl.col("verdict").is_in(list(PAIR_VERDICTS)))


def _of_pictures(counting: pl.DataFrame) -> pl.DataFrame:
    return counting.filter(_OTHER_KEY.is_null(), pl.col("verdict").is_in(list(PICTURE_VERDICTS)))


def _digest(rows: pl.DataFrame) -> str:
    """Return the digest of verdicts and labels by picture, without who and when; empty for none."""
    said = rows.select(pl.col(*_SUBJECT, *_OTHER).bin.encode("hex"), "verdict", "label")
    return digest_of(sorted(said.fill_null("").rows())) if len(rows) else ""


def _images_of(subjects: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Find the images of pictures: columns file_digest, content_hash (of the verdict) and image_id."""
    by_digest = subjects.join(images.select("image_id", "file_digest"), on="file_digest")
    others = subjects.join(by_digest, on=_SUBJECT, how="anti", nulls_equal=True)
    by_pixels = others.join(images.select("image_id", "content_hash"), on="content_hash")
    return pl.concat([found.select(*_SUBJECT, "image_id") for found in (by_digest, by_pixels)])


def _pictures(about_one: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    return (
        about_one.with_row_index("order")
        .join(found, on=_SUBJECT, nulls_equal=True)
        .sort("image_id", "order")
        .unique("image_id", keep="last", maintain_order=True)
        .select(*_OF_IMAGES)
    )


def _decided(pairs: pl.DataFrame, found: pl.DataFrame, images: pl.DataFrame) -> Decided:
    keys = images.select("image_id", key=_KEY).sort("key")
    numbered = keys.select("image_id", picture=pl.col("key").rank("dense").cast(pl.UInt32))
    of_subject = found.join(numbered, on="image_id").select(*_SUBJECT, "picture").unique()
    ends = (
        pairs.select("verdict", *_SUBJECT, *_OTHER)
        .with_row_index("order")
        .join(of_subject, on=_SUBJECT, nulls_equal=True)
        .join(of_subject.rename({"picture": "other"}), left_on=list(_OTHER), right_on=_SUBJECT, nulls_equal=True)
        .filter(pl.col("picture") != pl.col("other"))
        .select(
            "verdict", "order", left=pl.min_horizontal("picture", "other"), right=pl.max_horizontal("picture", "other")
        )
        .sort("order")
        .unique(["left", "right"], keep="last", maintain_order=True)
        .sort("left", "right")
    )
    used = pl.concat([ends["left"], ends["right"]]).unique().implode()
    members = numbered.filter(pl.col("picture").is_in(used)).sort("image_id")
    same, different = (ends.filter(verdict=verdict).select("left", "right") for verdict in PAIR_VERDICTS)
    return Decided(members, same, different)


def _gone(counting: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    known = found.select(_SUBJECT).unique()
    first = counting.join(known, on=_SUBJECT, how="anti", nulls_equal=True)
    pairs = counting.filter(_OTHER_KEY.is_not_null())
    second = pairs.join(known, left_on=list(_OTHER), right_on=_SUBJECT, how="anti", nulls_equal=True)
    return in_order(pl.concat([first, second]))
