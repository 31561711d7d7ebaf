"""imagelake status."""

from pathlib import Path

import click

from pipeline.cli.options import as_json, of_release, the_lake
from pipeline.cli.say import say
from pipeline.cli.show import show_frame, show_json
from pipeline.flow.inspect import status


@click.command("status")
@the_lake
@click.option(
    "--recipe",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Recipe of the next build; the last one by default.",
)
@of_release("look at")
@as_json
def command(lake: str, recipe: Path | None, release: int | None, *, json_: bool) -> None:
    """Show the tables of LAKE, its rejects by reason, and what the next build would do and why.

    With --release, only what that release holds.
    """
    if recipe and release:
        raise click.UsageError("--recipe is of the next build, --release of a past one: choose one.")
    found = status(lake, recipe, release)
    if json_:
        show_json({**found._asdict(), "todo": [item._asdict() for item in found.todo or []]})
        return
    say(f"{lake}: release {found.release or 'none yet'}")
    show_frame(found.tables)
    say("Rejects by reason:" if len(found.rejects) else "No rejects.")
    if len(found.rejects):
        show_frame(found.rejects)
    if release:
        return
    say(f"The next build by {found.recipe}:" if found.todo else f"The next build by {found.recipe} has nothing to do.")
    for item in found.todo:
        say(f"  {item.stage:>10}  {item.unit}: {item.reason}")
