"""`imagelake issues`: list the images that a person should look at."""

import click
import polars as pl

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.review.issues import list_issues

# Images of each kind that are listed by default: of all kinds, and with --kind.
_FEW, _MANY = 5, 20


@click.command("issues")
@the_lake
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only this kind, such as blurry; may be repeated.")
@click.option(
    "--limit",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help=f"Images to list of each kind: {_FEW} by default, with --kind {_MANY}.",
)
@of_release("read")
@as_json
def issues_command(lake: str, kinds: tuple[str, ...], limit: int | None, release: int | None, *, json_: bool) -> None:
    """List images of LAKE that a person should look at, such as dark, blurry or odd ones, the strongest first.

    The [issues] of the recipe chooses the kinds and the score from which on an image is listed. Scores are from 0 to 1.

    \b
    imagelake issues data/demo
    imagelake issues data/demo --kind blurry --limit 100
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    found = list_issues(Lake(lake, release), kinds, limit or (_MANY if kinds else _FEW))
    if json_:
        show_json(found._asdict())
        return
    show_frame(found.counts, len(found.counts))
    shown = found.shown.with_columns(pl.format("{}/{}", "dataset", "split").alias("source"))
    empty = [name for name in ("suggested_label", "agreement", "other_path") if shown[name].null_count() == len(shown)]
    if len(shown):
        print_line("")
        columns = ("kind", "score", "path", "source", "label", "suggested_label", "agreement", "other_path")
        show_frame(shown.select(columns).drop(empty), len(shown))
