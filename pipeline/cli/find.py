"""`imagelake find`: find the duplicates of a picture in a lake."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import polars as pl

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.show import show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.progress import plural

# Pictures without a match that are named.
_PRINTED = 10


@click.command("find")
@the_lake
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--rule", metavar="RULE", help="Compare by this rule only; by every rule of the lake by default.")
@click.option(
    "--top",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="List only the closest matches of a picture by a rule; all by default.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the matches side by side as one HTML page.",
)
@of_release("search")
@as_json
def find_command(  # noqa: PLR0913, PLR0917 - one per option
    lake: str,
    images: tuple[str, ...],
    rule: str | None,
    top: int | None,
    html: Path | None,
    release: int | None,
    *,
    json_: bool,
) -> None:
    """Find the duplicates of a picture in LAKE. Nothing is written to the lake.

    An IMAGE is an image file, or what build reads: a folder, an archive, a table, a pattern. It is decoded with the
    settings of the lake. Its matches are the images that a build with it would pair or cluster it with.

    RULE is a rule of the lake, or a stricter threshold of one. exact and file work in every lake. Files that are no
    image are listed with the reason. If no file is an image, the exit code is 1.

    \b
    imagelake find data/demo picture.png
    imagelake find data/demo new-pictures --rule exact --json
    imagelake find data/demo picture.png --top 5 --html matches.html
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    opened = Lake(lake, release)
    found = opened.find(list(images), rule=rule, top=top)
    page = None
    if html is not None:
        from pipeline.review.found import write_found  # noqa: PLC0415 - slow to import

        page = write_found(opened, images, found, html)
    if json_:
        rejects = [item._asdict() for item in found.rejects]
        show_json({**found._asdict(), "rejects": rejects})
    else:
        shown = found.matches
        for line in _matches(shown):
            print_line(line)
        for item in found.rejects:
            print_line(f"imagelake: {item.path}: {item.reason}: {item.detail}", err=True)
        for name, reason in found.skipped.items():
            print_line(f"imagelake: rule '{name}' is left out: {reason}", err=True)
        for line in _unmatched(found.unmatched) if len(shown) else ():
            print_line(line)
        print_line(_summary(len(found.queries), found.matches["number"].n_unique(), found.matching, len(shown)))
        if found.queries:
            print_line(f"rules: {', '.join(found.rules)}; release {found.release}")
        if page is not None:
            print_line(str(page))
    if not found.queries:
        sys.exit(1)


def _matches(matches: pl.DataFrame) -> Iterator[str]:
    """Name every picture, and below it list its matches, one a line."""
    before, widest = None, max(map(len, matches["rule"].unique()), default=0)
    for row in matches.iter_rows(named=True):
        if row["number"] != before:
            yield row["query"]
            before = row["number"]
        label = "no label" if row["label"] is None else f"label {row['label']}"
        image = f"{row['path']} of {row['dataset']}/{row['split']}, {label}"
        yield f"  {row['score']:.4f}  {row['rule']:{widest}}  {row['image_id'].hex()}  {image}"


def _unmatched(names: list[str]) -> Iterator[str]:
    yield from (f"without a match: {name}" for name in names[:_PRINTED])
    if len(names) > _PRINTED:
        yield f"without a match: {plural(len(names) - _PRINTED, 'more picture')}; --json lists all"


def _summary(queries: int, matched: int, matching: int, shown: int) -> str:
    if not queries:
        return "no picture could be read"
    if not matching:
        return f"nothing found: {plural(queries, 'picture')} without a match in the lake"
    left_out = f", {shown:,} shown" if shown < matching else ""
    return f"{plural(matching, 'match', 'matches')}{left_out}; {matched:,} of {plural(queries, 'picture')} matched"
