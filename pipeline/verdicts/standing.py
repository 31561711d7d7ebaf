"""Find the verdicts that count, the images that they are about, and where people disagree."""

from typing import NamedTuple

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
_TEXTS = dict.fromkeys(("verdict", "label", "dataset", "split"), pl.String)
_OF_IMAGES = {"image_id": pl.Binary, "verdict_id": pl.Binary, **_TEXTS}


class Resolved(NamedTuple):
    """The verdicts that count for the images of a lake.

    Attributes:
        pictures: verdicts about pictures, for each of their images: columns image_id, verdict_id, verdict (keep, drop,
            label or wrong_label), label (the right one), and dataset and split of the image; ordered by image_id. An
            image has one row at most.
        decided: verdicts about pairs, that they are the same or different.
        gone: rows of the verdicts table that count, about pictures of which the lake has no image.
    """

    pictures: pl.DataFrame
    decided: Decided
    gone: pl.DataFrame

    @property
    def links_digest(self) -> str:
        """Digest of the verdicts about pairs; empty if there are none."""
        if not (len(self.decided.same) or len(self.decided.different)):
            return ""
        images = self.decided.images.with_columns(pl.col("image_id").bin.encode("hex"))
        return digest_of([images.rows(), self.decided.same.rows(), self.decided.different.rows()])

    def pictures_digest(self, chosen: pl.Expr) -> str:
        """Digest of the verdicts about pictures; empty if there are none.

        Args:
            chosen: selects images by dataset and split.
        """
        rows = self.pictures.filter(chosen).select(pl.col("image_id").bin.encode("hex"), "verdict", "label").rows()
        return digest_of(rows) if rows else ""


EMPTY = Resolved(pl.DataFrame(schema=_OF_IMAGES), NOTHING, SCHEMA.to_frame())


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


def about(file_digest: bytes | None, content_hash: bytes, side: str = "") -> pl.Expr:
    """Select the rows about a picture: by its file digest, or those without one by its pixels.

    Args:
        file_digest: of the picture; None if it is unknown.
        content_hash: of the picture.
        side: "other_" for the second picture of pairs.
    """
    digest, pixels = pl.col(f"{side}file_digest"), pl.col(f"{side}content_hash")
    by_pixels = digest.is_null() & (pixels == pl.lit(content_hash))
    return by_pixels if file_digest is None else by_pixels | (digest == pl.lit(file_digest))


def resolve(snapshot: Snapshot, rows: pl.DataFrame | None = None) -> Resolved:
    """Find the images that the verdicts of a lake are about.

    A picture is found by its file digest or, if no image has it, by its pixels.

    Args:
        snapshot: the lake.
        rows: rows of the verdicts table; None for those of the snapshot.
    """
    rows = committed_verdicts(snapshot) if rows is None else rows
    counting = standing(rows)
    if counting.is_empty():
        return EMPTY
    other = counting.select(pl.col(old).alias(new) for old, new in _OTHER.items())
    subjects = pl.concat([counting.select(_SUBJECT), other]).filter(_KEY.is_not_null()).unique()
    any_of = pl.any_horizontal(
        pl.col(name).is_in(subjects[name].drop_nulls().implode()).fill_null(value=False) for name in _SUBJECT
    )
    images = snapshot.scan("images").select("image_id", *_SUBJECT, "dataset", "split").filter(any_of).collect()
    found = _images_of(subjects, images)
    return Resolved(_pictures(counting, found, images), _decided(counting, found, images), _gone(counting, found))


def _images_of(subjects: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Find the images of pictures: columns file_digest, content_hash (of the verdict), image_id and by_digest."""
    by_digest = subjects.join(images.select("image_id", "file_digest"), on="file_digest")
    others = subjects.join(by_digest, on=_SUBJECT, how="anti", nulls_equal=True)
    by_pixels = others.join(images.select("image_id", "content_hash"), on="content_hash")
    columns = [*_SUBJECT, "image_id"]
    return pl.concat(
        [
            by_digest.select(*columns, by_digest=pl.lit(value=True)),
            by_pixels.select(*columns, by_digest=pl.lit(value=False)),
        ]
    )


def _pictures(counting: pl.DataFrame, found: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    about_one = counting.filter(_OTHER_KEY.is_null(), pl.col("verdict").is_in(list(PICTURE_VERDICTS))).with_row_index(
        "order"
    )
    return (
        about_one.join(found, on=_SUBJECT, nulls_equal=True)
        .sort("image_id", "by_digest", "order")
        .unique("image_id", keep="last", maintain_order=True)
        .join(images.select("image_id", "dataset", "split"), on="image_id", maintain_order="left")
        .select(*_OF_IMAGES)
    )


def _decided(counting: pl.DataFrame, found: pl.DataFrame, images: pl.DataFrame) -> Decided:
    pairs = counting.filter(_OTHER_KEY.is_not_null(), pl.col("verdict").is_in(list(PAIR_VERDICTS)))
    if pairs.is_empty():
        return NOTHING
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
