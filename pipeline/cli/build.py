"""imagelake build."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import as_json
from pipeline.cli.say import say
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
@click.option("--ray-address", metavar="HOST:PORT", help="A Ray cluster to run on; by default Ray runs here.")
@click.option("--prune", is_flag=True, help="Drop what the lake has and the recipe does not name.")
@click.option("--repair", is_flag=True, help="Look for damaged files first, as verify does, and bring them back.")
@as_json
def command(  # noqa: PLR0913 - one a flag
    recipe: str, engine: str, workers: int | None, ray_address: str | None, *, prune: bool, repair: bool, json_: bool
) -> None:
    """Build every stage that is out of date, for every source and split in RECIPE.

    With --repair, shards with damaged files are read from their sources again, and what is made of images is made
    again. Exits with code 1 where a source that is needed for that is gone: what stays damaged is named. Older releases
    that name a damaged file stay damaged.
    """
    if ray_address and engine != "ray":
        raise click.UsageError("--ray-address is where --engine ray runs: give both, or neither.")
    if repair and prune:
        raise click.UsageError("--prune drops what --repair brings back: repair first, prune after.")
    asked = read_recipe(recipe)
    # Where there is no lake, there will be work; in one that is there, often none.
    if engine == ENGINE_NAMES[0] and not Path(asked.root).exists():
        start_workers(workers)
    from pipeline.cli.show import show_json  # noqa: PLC0415 - slow to import: workers do their imports meanwhile
    from pipeline.engines.ray import RayEngine  # noqa: PLC0415 - likewise
    from pipeline.flow.build import ENGINES, build  # noqa: PLC0415 - likewise

    runs = RayEngine(workers, ray_address) if ray_address else ENGINES[engine](workers)
    built = build(asked, engine=runs, prune=prune, repair=repair)
    if json_:
        show_json({**vars(built), "done": [item._asdict() for item in built.done]})
    else:
        show_built(built)
    if built.stays:
        sys.exit(1)


def show_built(built: "Built") -> None:
    """Print what a build did, one line a unit of work, and last what the lake holds now and how fast that was."""
    if built.damaged is not None:
        say(f"{built.damaged:,} faults found" if built.damaged else "nothing is damaged")
    for item in built.done:
        say(f"{item.stage:>10}  {item.unit}: {item.reason}")
    for line in built.stays:
        say(f"{'damaged':>10}  {line}")
    if built.report:
        say(f"report: {built.report}")
    done = "built" if built.done else "nothing to do;"
    speed = f"{built.read:,} files at {built.read / built.read_seconds:,.0f} images/s; " if built.read else ""
    say(
        f"{done} release {built.release}: {built.images:,} images, {built.rejects:,} rejects in {built.root} "
        f"({speed}{built.seconds:.1f} s in all)"
    )
