"""`imagelake init`: write the recipe that build would infer."""

from pathlib import Path

import click

from pipeline.cli.options import as_json
from pipeline.cli.show import show_json
from pipeline.cli.terminal import print_line
from pipeline.errors import RecipeError
from pipeline.infer import infer_text
from pipeline.places import default_lake


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
@as_json
def init_command(paths: tuple[str, ...], file: Path, *, json_: bool) -> None:
    """Write the recipe that `imagelake build PATH...` would use, with comments, for you to edit.

    A PATH is a folder, an archive, a table, a pattern or a URL. Build the recipe with: imagelake build recipe.toml
    """
    if file.exists():
        raise RecipeError(f"{file} exists already and was not changed. Choose another file with -o.")
    text = infer_text(paths, default_lake(paths), str(file), file.resolve().parent)
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
