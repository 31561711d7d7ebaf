"""`imagelake check`: check a release against the `[[check]]` of its recipe."""

import sys
from pathlib import Path

import click
import polars as pl

from pipeline.checks import Checked, run_checks
from pipeline.checks.files import describe, found, summary, write_junit, write_markdown
from pipeline.cli.failures import failure
from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.show import show_frame, show_json
from pipeline.cli.terminal import print_line
from pipeline.lake_handle import Lake
from pipeline.recipe import read_checks

# Exit codes: a check failed; a check could not run.
_FAILED, _NOT_RUN = 1, 2


@click.command("check")
@the_lake
@click.option(
    "--recipe",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take the checks from this recipe, or file of checks only, instead of from the recipe of the release.",
)
@click.option("--junit", metavar="FILE", type=click.Path(dir_okay=False), help="Write the results as JUnit XML.")
@click.option("--markdown", metavar="FILE", type=click.Path(dir_okay=False), help="Write the results as Markdown.")
@of_release("check")
@as_json
def check_command(  # noqa: PLR0913 - one per option
    lake: str, recipe: Path | None, junit: str | None, markdown: str | None, release: int | None, *, json_: bool
) -> None:
    """Check LAKE against every [[check]] of its recipe.

    Checks are of overlap, label conflicts, rejects, classes, drift, accuracy, and people who disagree.

    Nothing in the lake changes, and a build publishes a release whatever its checks say. The exit code is 0 if every
    check passed, 1 if one failed, and 2 if one could not run: it names a split or rule that the lake does not have, for
    example.

    \b
    imagelake check data/demo
    imagelake check data/demo --recipe checks.toml --junit checks.xml --markdown checks.md
    """  # noqa: D301 - click reads the backspace: it keeps the lines as they are
    try:
        checked = run_checks(Lake(lake, release), read_checks(recipe) if recipe else None)
        if junit:
            write_junit(checked, junit)
        if markdown:
            write_markdown(checked, markdown)
    except Exception as error:
        if (ended := failure(error)) is None:
            raise
        print_line(ended.line, err=True)
        sys.exit(_NOT_RUN)
    if json_:
        results = [one._asdict() for one in checked.results]
        show_json({"release": checked.release, "passed": checked.passed, "checks": results})
    else:
        _print(checked)
    for one in checked.results:
        if one.result == "error":
            print_line(f"imagelake: {one.check}: {one.detail}", err=True)
    if checked.count("error"):
        sys.exit(_NOT_RUN)
    if checked.count("failed"):
        sys.exit(_FAILED)


def _print(checked: Checked) -> None:
    rows = [(one.result, describe(one), found(one), one.detail) for one in checked.results]
    show_frame(pl.DataFrame(rows, schema=["result", "check", "found", "detail"], orient="row"), len(rows))
    print_line(f"release {checked.release}, {summary(checked)}")
