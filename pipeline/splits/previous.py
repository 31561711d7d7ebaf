"""Find the role that every picture had in the previous split, also if its file was renamed, relabelled or edited.

An image_id is made of dataset, split and path. So a file with another name or class folder is another image, but the
same picture. Pictures are matched by the digest of their file, then by their pixels.
"""

from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from pipeline.recipe import SplitPart

# Columns that identify a picture apart from its path. A digest is null in rows of imagelake 0.5.
IDENTITY = ("file_digest", "content_hash")
# Columns by which images of now and of before are matched, the most reliable first. The last finds files
# that were edited in place.
_MATCHES = (
    ("image_id", "file_digest"),
    ("file_digest",),
    ("image_id", "content_hash"),
    ("content_hash",),
    ("image_id",),
)
# Equal files that have the same role now and before.
_SAME_ROLE = (("file_digest", "now"), ("content_hash", "now"))


class PreviousSplit(NamedTuple):
    """A split of an earlier release.

    Attributes:
        spec: its `[[split]]` in the recipe.
        rows: columns image_id, role, dropped_by, reason: its rows of the splits table, in any order.
        images: columns image_id, file_digest, content_hash: the images that it could draw. The last two are null where
            they are unknown, and images whose file is lost may be missing.
    """

    spec: SplitPart
    rows: pl.DataFrame
    images: pl.DataFrame

    @property
    def members(self) -> pl.DataFrame:
        """Columns image_id and role, without images that were left out because their group went to another role."""
        left_out = (pl.col("reason") == "overlap") & pl.col("dropped_by").is_in(list(self.spec.groups))
        return self.rows.filter(~left_out.fill_null(value=False)).select("image_id", "role")


class Moves(NamedTuple):
    """How a split differs from the previous one, in images. Images of both are matched by `previous_roles`.

    Attributes:
        moved: images that have another role now. In a split with groups these include images that are left out, because
            their group is now in a role that may not draw them.
        forced: in a split with groups, those of them that moved although the recipe still requests as much for their
            previous role: because of a new link, a protected dataset, or because their file moved to another source.
        left: images that were in the split and are not now, also because their files are gone.
        joined: images that are in the split now and were not.
    """

    moved: int
    forced: int
    left: int
    joined: int


def previous_roles(images: pl.DataFrame, previous: PreviousSplit) -> pl.Series:
    """Find the previous role of every image.

    Images are matched one to one: first those with the same image_id and file_digest, then by file_digest, by image_id
    and content_hash, by content_hash, and last by image_id alone. Of copies, the one with the smallest id before
    matches the one with the smallest id now, and so on. An image that had no role is matched too, so that its copy
    cannot take its place.

    Args:
        images: columns image_id, file_digest, content_hash; any order, each image once.
        previous: the split of an earlier release.

    Returns:
        Name of the role, in the order of `images`; null if the picture had none.
    """
    return _match(images.select("image_id", *IDENTITY), previous, _MATCHES)


def count_moves(images: pl.DataFrame, rows: pl.DataFrame, previous: PreviousSplit) -> Moves:
    """Compare a split without groups with the previous one.

    Copies are interchangeable: if the names of two equal files change which of them is drawn first, no picture moved.

    Args:
        images: columns image_id, file_digest, content_hash: the images that the split can draw.
        rows: columns image_id and role: its rows, also those that sanitizing drops.
        previous: the split of an earlier release.
    """
    found = images.select("image_id", *IDENTITY).join(
        rows.select("image_id", now="role"), on="image_id", how="left", maintain_order="left"
    )
    now, before = found["now"], _match(found, previous, (*_SAME_ROLE, *_MATCHES))
    stayed = before.is_not_null() & now.is_not_null()
    return Moves(
        int((stayed & (before != now)).sum()),
        0,
        len(previous.members) - int(stayed.sum()),
        int((now.is_not_null() & before.is_null()).sum()),
    )


def _match(images: pl.DataFrame, previous: PreviousSplit, matches: Iterable[tuple[str, ...]]) -> pl.Series:
    """Match images with those of the previous split by one set of columns after the other; see `previous_roles`."""
    old = previous.images.join(previous.members, on="image_id", how="full", coalesce=True).sort("image_id")
    old = old.with_columns(now="role").with_row_index("before")
    new = images.with_row_index("number").sort("image_id")
    found = [pl.DataFrame(schema={"number": new.schema["number"], "role": pl.String})]
    for keys in matches:
        both = _numbered(new, keys, "number").join(_numbered(old, keys, "before", "role"), on=[*keys, "copy"])
        found.append(both.select("number", "role"))
        new = new.join(both, on="number", how="anti")
        old = old.join(both, on="before", how="anti")
    numbers = images.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("number"))
    return numbers.join(pl.concat(found), on="number", how="left", maintain_order="left")["role"]


def _numbered(images: pl.DataFrame, keys: tuple[str, ...], *columns: str) -> pl.DataFrame:
    """Number the images with equal keys in the order of their ids; images without a key are left out."""
    known = images.drop_nulls(list(keys))
    return known.select(*keys, *columns, copy=pl.int_range(pl.len()).over(keys))
