"""imagelake build."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from pipeline.builder.preload import ENGINE_NAMES, start_workers
from pipeline.cli.options import as_json
from pipeline.cli.say import say
from pipeline.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from pipeline.builder.build import Built


class _Wanted(NamedTuple):
    """What to build.

    Attributes:
        recipe: the recipe.
        text: the recipe as it is to be written into the lake; None for not at all.
        replaced: (dataset, uri) of sources that others take the place of.
        notes: lines to print before the build.
    """

    recipe: Recipe
    text: str | None = None
    replaced: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@click.command("build")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--into", metavar="LAKE", help="Lake to build or add to; NAME-lake in the current folder by default.")
@click.option(
    "--engine", type=click.Choice(ENGINE_NAMES), default=ENGINE_NAMES[0], help="Where to run.", show_default=True
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; one a core by default.")
@click.option("--ray-address", metavar="HOST:PORT", help="A Ray cluster to run on; by default Ray runs here.")
@click.option("--prune", is_flag=True, help="Drop what the lake has and the recipe does not name.")
@click.option("--repair", is_flag=True, help="Look for damaged files first, as verify does, and bring them back.")
@as_json
def build_command(  # noqa: PLR0913 - one a flag
    paths: tuple[str, ...],
    into: str | None,
    engine: str,
    workers: int | None,
    ray_address: str | None,
    *,
    prune: bool,
    repair: bool,
    json_: bool,
) -> None:
    """Build a lake, or bring it up to date.

    A PATH that ends in .toml is a recipe. A folder that holds a lake is that lake, and its own recipe is used. Anything
    else is a source: a folder of pictures, an archive, a table, a pattern such as 'shards/train-*.tar', or an address.
    Form, dataset, splits and image mode follow from its content. The recipe is printed and kept in the lake.

    With --repair, shards with damaged files are read from their sources again, and what is made of images is made
    again. Exits with code 1 where a source that is needed for that is gone: what stays damaged is named. Older releases
    that name a damaged file stay damaged.
    """
    if ray_address and engine != "ray":
        raise click.UsageError("--ray-address is where --engine ray runs: give both, or neither.")
    if repair and prune:
        raise click.UsageError("--prune drops what --repair brings back: repair first, prune after.")
    known = _recipe_of(paths, into)
    # Where there is no lake, there will be work; in one that is there, often none.
    place = known.root if known else _place(paths, into)
    if engine == ENGINE_NAMES[0] and not Path(place).exists():
        start_workers(workers)
    from pipeline.builder.build import ENGINES, build  # noqa: PLC0415 - likewise
    from pipeline.cli.show import show_json  # noqa: PLC0415 - slow to import: workers do their imports meanwhile
    from pipeline.engines.ray import RayEngine  # noqa: PLC0415 - likewise

    wanted = _Wanted(known) if known else _wanted(paths, into)
    if not json_:
        _show_recipe(wanted)
    runs = RayEngine(workers, ray_address) if ray_address else ENGINES[engine](workers)
    if repair:
        from pipeline.repair import repair as repair_lake  # noqa: PLC0415 - only repairs need it

        built = repair_lake(wanted.recipe, engine=runs)
    else:
        built = build(wanted.recipe, engine=runs, prune=prune, replaced=wanted.replaced)
    kept = _keep(wanted)
    if json_:
        values = {key: value for key, value in vars(built).items() if key not in ("done", "sources")}
        done, counts = ([item._asdict() for item in items] for items in (built.done, built.sources))
        show_json({**values, "done": done, "sources": counts, "recipe": kept})
    else:
        show_built(built)
        if kept:
            say(f"recipe: {kept} (edit it, then run: imagelake build {built.root})")
    if built.stays:
        sys.exit(1)


def show_built(built: "Built") -> None:
    """Print what a build did, one line a unit of work, then its sources, and last what the lake holds and how fast."""
    if built.damaged is not None:
        say(f"{built.damaged:,} faults found" if built.damaged else "nothing is damaged")
    for item in built.done:
        say(f"{item.stage:>10}  {item.unit}: {item.reason}")
    for line in built.stays:
        say(f"{'damaged':>10}  {line}")
    for source in built.sources:
        if source.images or source.rejects:
            say(f"{'source':>10}  {source.line()}")
    if built.mode_decided:
        kind = "gray" if built.mode == "L" else "colour"
        say(f"{'mode':>10}  {built.mode} ({kind}), decided by the first pictures; the lake keeps it. Key: decode.mode")
    for line in built.notes:
        say(f"{'note':>10}  {line}")
    if built.report:
        say(f"report: {built.report}")
    done = "built" if built.done else "nothing to do;"
    rejects = f"{built.rejects:,} reject{'' if built.rejects == 1 else 's'}"
    speed = f"{built.read:,} files at {built.read / built.read_seconds:,.0f} images/s; " if built.read else ""
    say(
        f"{done} release {built.release}: {built.images:,} images, {rejects} in {built.root} "
        f"({speed}{built.seconds:.1f} s in all)"
    )


def _recipe_of(paths: tuple[str, ...], into: str | None) -> Recipe | None:
    """Read the recipe, where the arguments name one, or a lake; None where they name sources."""
    from pipeline.places import is_lake_place, is_recipe  # noqa: PLC0415 - as below

    recipes = [path for path in paths if is_recipe(path)]
    lakes = [path for path in paths if path not in recipes and is_lake_place(path)]
    if not recipes and not lakes:
        return None
    first = (recipes or lakes)[0]
    if len(paths) > 1:
        hint = (
            "build it by itself"
            if recipes
            else f"to add sources to it, write: imagelake build SOURCE... --into {first}"
        )
        raise click.UsageError(f"{first} is a {'recipe' if recipes else 'lake'}: {hint}.")
    if into:
        what = "a recipe, which names its lake in [lake] root" if recipes else "a lake already"
        raise click.UsageError(f"--into goes with sources; {first} is {what}.")
    if recipes:
        return read_recipe(first)
    from pipeline.maintenance import last_recipe  # noqa: PLC0415 - slow to import

    return last_recipe(first)


def _place(paths: tuple[str, ...], into: str | None) -> str:
    from pipeline.places import default_lake  # noqa: PLC0415 - as above

    return into or default_lake(paths)


def _wanted(paths: tuple[str, ...], into: str | None) -> _Wanted:
    from pipeline.infer import infer  # noqa: PLC0415 - slow to import

    made = infer(paths, _place(paths, into), replace=into is not None)
    return _Wanted(made.recipe, made.text, made.replaced, made.notes)


def _show_recipe(wanted: _Wanted) -> None:
    for line in wanted.notes:
        say(f"{'note':>10}  {line}")
    if wanted.text:
        for line in wanted.text.rstrip().split("\n"):
            say(f"    {line}".rstrip())
        say("")


def _keep(wanted: _Wanted) -> str:
    """Write an inferred recipe beside the tables; tell where, or nothing where there is nothing to write."""
    if not wanted.text or wanted.recipe.file is None:
        return ""
    from pipeline.infer import write_recipe  # noqa: PLC0415 - slow to import

    return write_recipe(wanted.recipe.file, wanted.text)
