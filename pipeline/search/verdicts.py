"""Decide about images of a lake by their path, id or digest, and list what people decided."""

from typing import NamedTuple

import polars as pl

from pipeline.errors import LakeError
from pipeline.lake.reads import explain_failures
from pipeline.search.images import locate_images, raise_not_found
from pipeline.search.tables import Tables
from pipeline.verdicts.journal import Picture, Verdict, read_journal, read_verdicts, record
from pipeline.verdicts.standing import Resolved, conflicts, resolve, standing

_FACTS = ("image_id", "path", "dataset", "split", "file_digest", "content_hash")
_SUBJECT = ["file_digest", "content_hash"]
_OTHER = ["other_file_digest", "other_content_hash"]


class Verdicts(NamedTuple):
    """What people decided.

    Attributes:
        standing: the verdicts that count: rows of the table verdicts with the columns path and other_path, of one image
            of each picture in the release (null if it has none), in the order in which they were made.
        conflicts: verdicts in which people disagree, with the same columns, those about one picture or pair together.
        gone: number of verdicts that count, about a picture of which the release has no image.
        waiting: number of verdicts that the next build puts into the table.
        made: number of all verdicts, also those that no longer count.
    """

    standing: pl.DataFrame
    conflicts: pl.DataFrame
    gone: int
    waiting: int
    made: int


@explain_failures
def list_verdicts(lake: Tables) -> Verdicts:
    """List what people decided, also since the last build.

    Raises:
        DamagedLakeError: a file of the lake is missing or damaged.
    """
    waiting = pl.concat([lake.scan("verdicts").clear().collect(), *(rows for _, rows in read_journal(lake.root))])
    rows = read_verdicts(lake.root)
    counting, disputed = standing(rows), conflicts(rows)
    return Verdicts(
        _with_paths(lake, counting),
        _with_paths(lake, disputed),
        len(resolve(lake.snapshot, rows).gone),
        len(waiting.join(lake.scan("verdicts").select("verdict_id").collect(), on="verdict_id", how="anti")),
        len(rows),
    )


@explain_failures
def decide(  # noqa: PLR0913, PLR0917 - a verdict
    lake: Tables,
    verdict: str,
    item: str,
    other: str | None = None,
    label: str | None = None,
    note: str | None = None,
    who: str | None = None,
) -> bytes:
    """Record a verdict about an image or a pair; see `Lake.decide`."""
    # So that it is later than all that were made before, on any machine.
    read_verdicts(lake.root)
    pictures = [_picture(lake, name) for name in (item, other) if name is not None]
    made = Verdict(verdict, pictures[0], pictures[1] if other is not None else None, label, note=note)
    return record(lake.root, [made], who)[0]


def _picture(lake: Tables, item: str) -> Picture:
    rows, missing = locate_images(lake, [item], facts=_FACTS)
    if missing:
        raise_not_found(lake, missing, None, None)
    different = rows.unique(pl.coalesce(_SUBJECT).alias("key"), maintain_order=True)
    if len(different) > 1:
        listed = ", ".join(
            f"{row['image_id'].hex()} of {row['dataset']}/{row['split']}" for row in different.head(3).to_dicts()
        )
        raise LakeError(f"{lake.root} has {len(different)} pictures '{item}': name one by its image_id: {listed}")
    return Picture(different["content_hash"][0], different["file_digest"][0])


def _with_paths(lake: Tables, rows: pl.DataFrame) -> pl.DataFrame:
    """Add path and other_path: PATH of DATASET/SPLIT, of the first image of each picture."""
    images = Resolved(lake.snapshot, rows).images
    place = pl.format("{} of {}/{}", "path", "dataset", "split")
    named = (
        lake.scan("images")
        .select("image_id", place=place)
        .join(images.lazy(), on="image_id")
        .group_by(_SUBJECT)
        .agg(pl.min("place"))
        .collect()
    )
    for columns, name in ((_SUBJECT, "path"), (_OTHER, "other_path")):
        found = named.rename({**dict(zip(_SUBJECT, columns, strict=True)), "place": name})
        rows = rows.join(found, on=columns, how="left", nulls_equal=True, maintain_order="left")
    return rows
