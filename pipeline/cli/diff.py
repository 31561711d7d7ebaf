"""`imagelake diff`: list what changed from one release to another."""

from pathlib import Path

import click
import polars as pl

from pipeline.cli.options import as_json, the_lake
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.diff import Diff, describe_release
from pipeline.lake_handle import Lake
from pipeline.review.diff import write_diff

# The column by which the changes of a kind are counted, if they have it.
_COUNTED_BY = ("split_name", "rule")


@click.command("diff")
@the_lake
@click.argument("before", metavar="A", type=click.IntRange(min=1))
@click.argument("after", metavar="[B]", type=click.IntRange(min=1), required=False)
@click.option(
    "--list",
    "listed",
    is_flag=True,
    help="List the images, clusters and scores, not only their numbers. --json has more columns.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write an HTML page of the changes with their images.",
)
@as_json
def diff_command(  # noqa: PLR0913 - one per option
    lake: str, before: int, after: int | None, html: Path | None, *, listed: bool, json_: bool
) -> None:
    """Count what changed in LAKE from release A to release B, by default the newest.

    Pictures are found again by the digest of their file, whatever their path and label: relabelled is the same picture
    with another label, moved the same picture and label at another path. An edited file is another picture: the old one
    is gone, the new one is added. "imagelake history LAKE" lists the releases.

    \b
    imagelake diff data/demo 1
    imagelake diff data/demo 1 2 --list
    imagelake diff data/demo 1 2 --html changes.html
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    opened = Lake(lake, after)
    found = opened.diff(before)
    page = write_diff(opened, found, html) if html else None
    if json_:
        kinds = {name: {"count": len(rows), "rows": rows} for name, rows in found.kinds.items()}
        names = ("before", "after", "matched_by", "totals", "issues", "settings", "other_pixels")
        facts = {name: getattr(found, name) for name in names}
        show_json({**facts, **kinds, **({"page": page} if page else {})})
        return
    print_line(f"Changes from release {found.before} to release {found.after}:")
    for line in describe_release(found):
        print_line(line)
    show_frame(_counts(found))
    if found.matched_by != "file_digest":
        print_line(
            "Some images have no file_digest, because imagelake 0.5 or earlier read them. Pictures are matched by "
            "content_hash instead: by their stored pixels."
        )
    for name, rows in found.kinds.items() if listed else ():
        if len(rows):
            print_line("")
            print_line(f"{_words(name)}: {len(rows):,}")
            show_frame(_short(_with_keepers(opened, rows)), rest="--json gives all")
    if page:
        print_line(page)


def _counts(found: Diff) -> pl.DataFrame:
    """Count every kind of change: by split or rule, if it has them."""
    counts = []
    for name, rows in found.kinds.items():
        by = next((column for column in _COUNTED_BY if column in rows.columns), None)
        several = rows.group_by(by, maintain_order=True).len().rows() if by and len(rows) else [("", len(rows))]
        counts += [(_words(name), str(value or ""), count) for value, count in several]
    return pl.DataFrame(counts, schema={"change": pl.String, "of": pl.String, "count": pl.Int64}, orient="row")


def _with_keepers(lake: Lake, rows: pl.DataFrame) -> pl.DataFrame:
    """Name the images for which others were dropped by their paths; one that is gone keeps its id."""
    if "dropped_for" not in rows.columns:
        return rows
    ids = rows["dropped_for"].drop_nulls().unique()
    named = lake.scan("images").filter(pl.col("image_id").is_in(ids.implode())).select("image_id", "path").collect()
    found = rows.join(
        named.rename({"path": "keeper"}), left_on="dropped_for", right_on="image_id", how="left", maintain_order="left"
    )
    return found.with_columns(dropped_for=pl.coalesce("keeper", pl.col("dropped_for").bin.encode("hex"))).drop("keeper")


def _short(rows: pl.DataFrame) -> pl.DataFrame:
    """Leave out what would make lines too long: ids of images and settings; and join dataset and source split."""
    for ending in ("", "_before"):
        if f"dataset{ending}" in rows.columns:
            source = pl.format("{}/{}", f"dataset{ending}", f"split{ending}").alias(f"dataset{ending}")
            rows = rows.with_columns(source).rename({f"dataset{ending}": f"source{ending}"})
    long = ("split", "split_before", "image_id", "image_id_before", "settings", "seed")
    return rows.drop(long, strict=False)


def _words(kind: str) -> str:
    return kind.replace("_", " ")
