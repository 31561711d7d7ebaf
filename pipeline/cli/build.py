"""imagelake build."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import as_json
from pipeline.flow.early import ENGINE_NAMES, start_workers
from pipeline.recipe import read_recipe

if TYPE_CHECKING:
    from pipeline.flow.build import Built


@click.command("build")
@click.argument("recipe", type=click.Path())
@click.option(
    "--engine", type=click.Choice(ENGINE_NAMES), default=ENGINE_NAMES[0], help="Where to run.", show_default=True
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; one a core by default.")
@click.option("--prune", is_flag=True, help="Drop what the lake has and the recipe does not name.")
@as_json
def command(recipe: str, engine: str, workers: int | None, *, prune: bool, json_: bool) -> None:
    """Build every stage that is out of date, for every source and split in RECIPE."""
    asked = read_recipe(recipe)
    if not Path(asked.root).exists():  # there will be work; in a lake that is there, often none
        start_workers(workers)
    from pipeline.cli.show import show_json  # noqa: PLC0415 - slow to import: workers do their imports meanwhile
    from pipeline.flow.build import ENGINES, build  # noqa: PLC0415 - likewise

    built = build(asked, engine=ENGINES[engine](workers), prune=prune)
    if json_:
        show_json({**vars(built), "done": [item._asdict() for item in built.done]})
    else:
        show_built(built)


def show_built(built: "Built") -> None:
    """Print what a build did, one line a unit of work, and last what the lake holds now and how fast that was."""
    for item in built.done:
        click.echo(f"{item.stage:>10}  {item.unit}: {item.reason}")
    click.echo(f"report: {built.report}")
    done = "built" if built.done else "nothing to do;"
    speed = f"{built.read:,} files at {built.read / built.read_seconds:,.0f} images/s; " if built.read else ""
    click.echo(
        f"{done} release {built.release}: {built.images:,} images, {built.rejects:,} rejects in {built.root} "
        f"({speed}{built.seconds:.1f} s in all)"
    )
