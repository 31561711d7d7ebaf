"""List the images that a person should look at, from the table issues."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from pipeline.errors import LakeError
from pipeline.lake.reads import check_values, explain_failures
from pipeline.lake_handle import Lake
from pipeline.recipe.issues import KINDS
from pipeline.search.rules import raise_unknown

# Columns of the table images that are read.
_FACTS = ("image_id", "dataset", "split", "path", "label")


class Issues(NamedTuple):
    """Images with issues.

    Attributes:
        release: the release.
        counts: columns kind, images, threshold, meaning: one row for each kind that the lake lists, also for none.
        shown: columns kind, score, dataset, split, path, label, suggested_label, agreement, image_id, other_path,
            other_id: the first images of each kind, the highest score first.
    """

    release: int
    counts: pl.DataFrame
    shown: pl.DataFrame


@explain_failures
def list_issues(lake: Lake, kinds: Sequence[str] = (), limit: int = 20) -> Issues:
    """List the images with the highest scores of each kind. Reads no pixels.

    Args:
        lake: the lake of a release.
        kinds: kinds to list; empty for all.
        limit: at most this many images of each kind.

    Raises:
        LakeError: the lake lists no issues, or not those of a kind.
        DamagedLakeError: a file is missing or damaged.
    """
    units = lake.snapshot.metadata("issues").units
    listed = [kind for kind in KINDS if kind in units]
    if not listed:
        raise LakeError(
            f"{lake.root}: release {lake.release} lists no issues. Add an [issues] to the recipe, which may be empty, "
            "and build."
        )
    for kind in kinds:
        if kind not in listed:
            raise_unknown(lake, "issue", kind, listed)
    lake.check("issues")
    check_values(lake.snapshot, "images", _FACTS)
    wanted = [kind for kind in listed if not kinds or kind in kinds]
    rows = lake.scan("issues").filter(pl.col("kind").is_in(wanted))
    found = dict(rows.group_by("kind").len().collect().rows())
    counts = [(kind, found.get(kind, 0), units[kind]["spec"]["threshold"], KINDS[kind].meaning) for kind in wanted]
    order = pl.col("kind").cast(pl.Enum(list(KINDS)))
    first = rows.sort(order, "score", "image_id", descending=[False, True, False]).group_by("kind", maintain_order=True)
    shown = first.head(limit).collect()
    ids = pl.concat([shown["image_id"], shown["other_id"].drop_nulls()]).unique()
    facts = lake.scan("images").select(_FACTS).filter(pl.col("image_id").is_in(ids.implode())).collect()
    named = shown.join(facts, on="image_id", how="left", maintain_order="left").join(
        facts.select(other_id="image_id", other_path="path"), on="other_id", how="left", maintain_order="left"
    )
    columns = ("kind", "score", *_FACTS[1:], "suggested_label", "agreement", "image_id", "other_path", "other_id")
    schema = {"kind": pl.String, "images": pl.Int64, "threshold": pl.Float64, "meaning": pl.String}
    return Issues(lake.release, pl.DataFrame(counts, schema=schema, orient="row"), named.select(columns))
