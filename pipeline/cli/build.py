"""`imagelake build` and `imagelake init`: build a lake from a recipe or from paths; write the recipe of the paths."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from pipeline.builder import ENGINE_NAMES, start_workers
from pipeline.cli.options import as_json, workers_option
from pipeline.cli.terminal import print_line
from pipeline.errors import LakeError, RecipeError
from pipeline.progress import plural
from pipeline.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from pipeline.builder.build import Built


class _Request(NamedTuple):
    """The build to run.

    Attributes:
        recipe: the recipe.
        text: TOML text of an inferred recipe, to be written into the lake; None for a recipe from a file.
        replaced: (dataset, uri) of sources that are replaced by others.
        notes: lines to print before the build.
    """

    recipe: Recipe
    text: str | None = None
    replaced: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def _share(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    # click's FloatRange takes NaN.
    if value is not None and not 0 < value < 1:
        raise click.BadParameter(f"{value:g} is not between 0 and 1.")
    return value


_valid_option = click.option(
    "--valid",
    metavar="SHARE",
    type=float,
    callback=_share,
    help="Share of train that becomes the role valid, such as 0.1, where the sources have train and test only.",
)


@click.command("build")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--into", metavar="LAKE", help="Lake to build or add to; NAME-lake in the current folder by default.")
@_valid_option
@click.option(
    "--engine",
    type=click.Choice(ENGINE_NAMES),
    default=ENGINE_NAMES[0],
    help="How to run work in parallel.",
    show_default=True,
)
@workers_option
@click.option("--ray-address", metavar="HOST:PORT", help="Ray cluster to run on; by default Ray runs on this machine.")
@click.option(
    "--prune", is_flag=True, help="Drop sources, attributes, rules, splits and baselines that are not in the recipe."
)
@click.option("--repair", is_flag=True, help="First find damaged files, as verify does, and restore them.")
@as_json
def build_command(  # noqa: PLR0913 - one per option
    paths: tuple[str, ...],
    into: str | None,
    engine: str,
    workers: int | None,
    ray_address: str | None,
    *,
    valid: float | None,
    prune: bool,
    repair: bool,
    json_: bool,
) -> None:
    """Build a lake, or bring it up to date.

    A PATH that ends in .toml is a recipe. A PATH that is a lake is built again by its own recipe. Any other PATH is a
    source: a folder of images, an archive, a table, a pattern such as 'shards/train-*.tar', or a URL. Its format,
    dataset, splits and image mode are detected. The inferred recipe is printed and stored in the lake. SPLIT=PATH says
    which split a source is: train, valid or test.

    imagelake build train=notMNIST_large.tar.gz test=notMNIST_small.tar.gz --valid 0.05 --into letters

    With --repair, damaged shards are read from their sources again, and tables made from their images are made again.
    If a source is missing, the files that stay damaged are listed and the exit code is 1. Older releases that use a
    damaged file stay damaged.
    """
    if ray_address and engine != "ray":
        raise click.UsageError("--ray-address needs --engine ray: give both, or neither.")
    if repair and prune:
        raise click.UsageError("--repair and --prune cannot be combined: repair first, then prune.")
    if not all(paths) or into == "":
        raise click.UsageError("a PATH or the value of --into is empty. Use . for the current folder.")
    recipe = _named_recipe(paths, into, valid)
    # A new lake always needs workers, an existing one often does not.
    root = recipe.root if recipe else _lake_root(paths, into)
    if engine == ENGINE_NAMES[0] and not Path(root).exists():
        start_workers(workers)
    # Imported only now: while these imports run, the workers do theirs.
    from pipeline.builder.build import ENGINES, build  # noqa: PLC0415
    from pipeline.cli.show import show_json  # noqa: PLC0415
    from pipeline.engines.ray import RayEngine  # noqa: PLC0415

    request = _Request(recipe) if recipe else _inferred(paths, into, valid)
    if not json_:
        _print_recipe(request)
    runner = RayEngine(workers, ray_address) if ray_address else ENGINES[engine](workers)
    if repair:
        from pipeline.repair import repair as repair_lake  # noqa: PLC0415 - only for repairs

        built = repair_lake(request.recipe, engine=runner)
    else:
        built = build(request.recipe, engine=runner, prune=prune, replaced=request.replaced)
    written, recipe_error = _write_inferred(request)
    if json_:
        renamed = {"still_damaged": "stays"}
        values = {renamed.get(key, key): value for key, value in vars(built).items() if key not in ("done", "sources")}
        done, counts = ([item._asdict() for item in items] for items in (built.done, built.sources))
        show_json({**values, "done": done, "sources": counts, "recipe": written})
    else:
        show_built(built)
        if written:
            print_line(f"recipe: {written} (edit it, then run: imagelake build {built.root})")
    if print_errors(built.report_error, recipe_error) or built.still_damaged:
        sys.exit(1)


def print_errors(*errors: str) -> bool:
    """Print what failed after the release was published. Returns whether anything did."""
    for error in filter(None, errors):
        print_line(f"imagelake: {error}", err=True)
    return any(errors)


def show_built(built: "Built") -> None:
    """Print what a build did, one line per unit of work, then its sources, the content of the lake and the speed."""
    if built.damaged is not None:
        print_line(f"{plural(built.damaged, 'fault')} found" if built.damaged else "nothing is damaged")
    for item in built.done:
        print_line(f"{item.stage:>10}  {item.unit}: {item.reason}")
    for line in built.still_damaged:
        print_line(f"{'damaged':>10}  {line}")
    for source in built.sources:
        if source.images or source.rejects:
            print_line(f"{'source':>10}  {source.line()}")
    if built.mode_decided:
        kind = "gray" if built.mode == "L" else "colour"
        print_line(
            f"{'mode':>10}  {built.mode} ({kind}), detected from the first images; the lake keeps it. Key: decode.mode"
        )
    if built.originals_decided:
        print_line(
            f"{'files':>10}  kept as they came, because some are JPEG, WebP, AVIF or HEIC; `pixels` are reduced. Keys: "
            "decode.originals, decode.longest, decode.size"
        )
    for line in built.notes:
        print_line(f"{'note':>10}  {line}")
    if built.report:
        print_line(f"report: {built.report}")
    done = "built" if built.done else "nothing to do;"
    rejects = plural(built.rejects, "reject")
    speed = f"{plural(built.read, 'file')} at {built.read / built.read_seconds:,.0f} images/s; " if built.read else ""
    print_line(
        f"{done} release {built.release}: {plural(built.images, 'image')}, {rejects} in {built.root} "
        f"({speed}{built.seconds:.1f} s in all)"
    )


def _named_recipe(paths: tuple[str, ...], into: str | None, valid: float | None) -> Recipe | None:
    """Read the recipe if the arguments name a recipe or a lake; return None if they name sources."""
    from pipeline.places import is_lake_place, is_recipe, named_split  # noqa: PLC0415 - slow to import

    for split, path in map(named_split, paths):
        if split and (is_recipe(path) or is_lake_place(path)):
            raise click.UsageError(f"{split}={path}: a recipe or lake has splits of its own. {split}= is for sources.")
    recipes = [path for path in paths if is_recipe(path)]
    lakes = [path for path in paths if path not in recipes and is_lake_place(path)]
    if not recipes and not lakes:
        return None
    first = (recipes or lakes)[0]
    if len(paths) > 1:
        hint = "build it alone" if recipes else f"to add sources to it, write: imagelake build SOURCE... --into {first}"
        raise click.UsageError(f"{first} is a {'recipe' if recipes else 'lake'}: {hint}.")
    if into:
        kind = "a recipe, which names its lake in [lake] root" if recipes else "a lake already"
        raise click.UsageError(f"--into is for sources; {first} is {kind}.")
    if valid is not None:
        raise click.UsageError(
            '--valid is for sources; the recipe has the splits. There, write: valid = { from = "train", share = 0.1 }'
        )
    if recipes:
        return read_recipe(first)
    from pipeline.maintenance import last_recipe  # noqa: PLC0415 - slow to import

    return last_recipe(first)


def _lake_root(paths: tuple[str, ...], into: str | None) -> str:
    from pipeline.places import default_lake  # noqa: PLC0415 - slow to import

    return into or default_lake(paths)


def _inferred(paths: tuple[str, ...], into: str | None, valid: float | None) -> _Request:
    from pipeline.infer import infer  # noqa: PLC0415 - slow to import

    inferred = infer(paths, _lake_root(paths, into), replace=into is not None, valid=valid)
    return _Request(inferred.recipe, inferred.text, inferred.replaced, inferred.notes)


def _print_recipe(request: _Request) -> None:
    for line in request.notes:
        print_line(f"{'note':>10}  {line}")
    if request.text:
        for line in request.text.rstrip().split("\n"):
            print_line(f"    {line}".rstrip())
        print_line("")


def _write_inferred(request: _Request) -> tuple[str, str]:
    """Write an inferred recipe next to the tables. The release is published already.

    Returns:
        Its path, empty if it was not inferred; why it could not be written, empty if it could.
    """
    if not request.text or request.recipe.file is None:
        return "", ""
    from pipeline.infer import write_recipe  # noqa: PLC0415 - slow to import

    try:
        return write_recipe(request.recipe.file, request.text), ""
    except LakeError as error:
        return "", str(error)


@click.command("init")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("recipe.toml"),
    show_default=True,
    help="File to write.",
)
@_valid_option
@as_json
def init_command(paths: tuple[str, ...], file: Path, valid: float | None, *, json_: bool) -> None:
    """Write the recipe that `imagelake build PATH...` would use, with comments, for you to edit.

    A PATH is a folder, an archive, a table, a pattern or a URL, or SPLIT=PATH. Build the recipe with: imagelake build
    recipe.toml
    """
    from pipeline.cli.show import show_json  # noqa: PLC0415 - slow to import, as below
    from pipeline.infer import infer_text  # noqa: PLC0415
    from pipeline.places import default_lake  # noqa: PLC0415

    if not all(paths):
        raise click.UsageError("a PATH is empty. Use . for the current folder.")
    if file.exists():
        raise RecipeError(f"{file} exists already and was not changed. Choose another file with -o.")
    text = infer_text(paths, default_lake(paths), str(file), file.resolve().parent, valid)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{file}: cannot be written ({error.strerror}). Choose another file with -o.") from error
    if json_:
        show_json({"file": str(file), "recipe": text})
        return
    for line in text.rstrip().split("\n"):
        print_line(line)
    print_line("")
    print_line(f"wrote {file}. Edit it, then run: imagelake build {file}")
